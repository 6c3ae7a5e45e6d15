package doctor

import (
	"os"
	"strings"
	"testing"
)

// Rule sets as "nft -j list ruleset" shows them (nftables 1.0.6): one by hand with sets, one with maps of verdicts (as nftables' wiki has
// it), one that trusts an interface and a network, and those of ufw (0.36, by iptables 1.8.9 over nftables) and firewalld (1.3, its zone public).
var rulesets = []struct {
	file    string
	hook    string
	stopped map[uint16]string // by what; "" where it is let through, or may be
	do      string            // what lets in what the policy stops
}{
	{"plain", "input", map[uint16]string{1000: "chain input, whose policy is drop", 22: "policy", 443: "policy", 53: "", 2000: "", 3000: "", 3007: "", 3011: "policy", 4005: "", 4011: "policy"},
		"nft insert rule inet filter input udp dport 1000 accept"},
	{"plain", "output", map[uint16]string{1000: "chain output, a rule that says reject", 53: "", 123: "", 2050: "", 2101: "reject"}, "nft insert rule inet filter output udp dport 1000 accept"},
	{"maps", "input", map[uint16]string{1000: "chain inbound, whose policy is drop", 2000: "", 2001: "chain inbound_udp, a rule that says drop", 22: "policy"},
		"nft insert rule inet firewall inbound udp dport 1000 accept"},
	{"trusted", "input", map[uint16]string{1000: "", 2001: "chain input, a rule that says drop", 22: ""}, ""},
	{"ufw", "input", map[uint16]string{1000: "table ip filter, chain INPUT, whose policy is drop", 2000: "", 22: "policy", 68: "", 80: "policy", 137: "ufw-skip-to-policy-input"}, "ufw allow 1000/udp"},
	{"ufw", "output", map[uint16]string{1000: ""}, ""},
	{"firewalld", "input", map[uint16]string{1000: "chain filter_INPUT, a rule that says reject", 2000: "", 22: "reject"}, "firewall-cmd --permanent --add-port=1000/udp && firewall-cmd --reload"},
	{"firewalld", "prerouting", map[uint16]string{1000: ""}, ""},
	{"firewalld", "output", map[uint16]string{1000: ""}, ""},
}

func rulesetOf(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/ruleset-" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRulesets(t *testing.T) {
	for _, r := range rulesets {
		f, err := ParseNFT(rulesetOf(t, r.file))
		if err != nil {
			t.Fatal(err)
		}
		for port, want := range r.stopped {
			where, _ := f.stops(port, ipv4, r.hook)
			if !strings.Contains(where, want) || want == "" && where != "" {
				t.Errorf("%s, %s, port %d: %q, want %q", r.file, r.hook, port, where, want)
			}
		}
		if where, _ := f.stops(1000, ipv4, r.hook); where != "" {
			if do := f.letThrough(where, 1000); do != r.do {
				t.Errorf("%s, %s: to do: %s, want %s", r.file, r.hook, do, r.do)
			}
		}
	}
}

// What a single rule is taken for.
func TestRules(t *testing.T) {
	match := func(op, left, right string) string {
		return `{"match":{"op":"` + op + `","left":` + left + `,"right":` + right + `}},`
	}
	udp, tcp := `{"payload":{"protocol":"udp","field":"dport"}}`, `{"payload":{"protocol":"tcp","field":"dport"}}`
	proto, state, iif := `{"meta":{"key":"l4proto"}}`, `{"ct":{"key":"state"}}`, `{"meta":{"key":"iifname"}}`
	xt := func(name string) string { return `{"xt":{"type":"match","name":"` + name + `"}},` }
	for name, c := range map[string]struct {
		exprs  string
		accept bool // whether port 1000 may be let in by the rule, in front of a policy that drops
	}{
		"everything":                    {``, true},
		"tcp":                           {match("==", tcp, "22"), false},
		"tcp, but one port":             {match("!=", tcp, "22"), false},
		"the port":                      {match("==", udp, "1000"), true},
		"another":                       {match("==", udp, "1001"), false},
		"all but another":               {match("!=", udp, "1001"), true},
		"all but it":                    {match("!=", udp, "1000"), false},
		"below":                         {match("<", udp, "1000"), false},
		"up to":                         {match("<=", udp, "1000"), true},
		"above":                         {match(">", udp, "999"), true},
		"a range":                       {match("==", udp, `{"range":[900,1100]}`), true},
		"an element with a counter":     {match("==", udp, `{"set":[{"elem":{"val":1000,"counter":{}}}]}`), true},
		"a set that is not known":       {match("==", udp, `"@nowhere"`), true},
		"udp":                           {match("==", proto, `"udp"`), true},
		"not udp":                       {match("!=", proto, `"udp"`), false},
		"tcp and udp":                   {match("==", proto, `{"set":["tcp","udp"]}`), true},
		"protocol 6":                    {match("==", proto, `6`), false},
		"known flows":                   {match("in", state, `["established","related"]`), false},
		"new ones":                      {match("==", state, `{"set":["new","untracked"]}`), true},
		"not invalid":                   {match("!=", state, `"invalid"`), true},
		"loopback":                      {match("==", iif, `"lo"`), false},
		"all but loopback":              {match("!=", iif, `"lo"`), true},
		"a link":                        {match("==", iif, `"eth0"`), true},
		"iptables, by the state":        {xt("conntrack"), false},
		"iptables, a port by the state": {match("==", udp, "1000") + xt("conntrack"), true},
		"iptables, some ports of UDP":   {match("==", proto, `"udp"`) + xt("multiport"), true},
		"iptables, some ports of TCP":   {match("==", proto, `"tcp"`) + xt("multiport"), false},
		"iptables, something":           {xt("owner"), true},
		"null":                          {match("==", state, `null`), true},
	} {
		text := `{"nftables":[{"chain":{"family":"inet","table":"t","name":"c","hook":"input","policy":"drop"}},
			{"rule":{"family":"inet","table":"t","chain":"c","expr":[` + c.exprs + `{"accept":null}]}}]}`
		f, err := ParseNFT([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if where, _ := f.stops(1000, ipv4, "input"); (where == "") != c.accept {
			t.Errorf("%s: %q, %+v", name, where, f.Chains[0].Rules)
		}
	}
}

// Chains that jump to each other, which the kernel would not take, end the walk and give no finding.
func TestJumpsInCircles(t *testing.T) {
	jump := func(to string) Rule { return Rule{Verdict: "jump", To: to} }
	f := &Firewall{Chains: []Chain{
		{Table: "ip t", Name: "a", Hook: "input", Policy: "drop", Rules: []Rule{jump("b"), jump("b"), jump("b")}},
		{Table: "ip t", Name: "b", Rules: []Rule{jump("a"), jump("a"), jump("a")}},
	}}
	if where, _ := f.stops(1000, ipv4, "input"); where != "" {
		t.Error(where)
	}
}
