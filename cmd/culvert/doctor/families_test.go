package doctor

import (
	"strings"
	"testing"

	"culvert/control"
)

// closing is a base chain at a hook whose policy is drop, in the table filter of each family.
func closing(hook string, families ...string) *Firewall {
	f := &Firewall{}
	for _, family := range families {
		f.Chains = append(f.Chains, Chain{Table: family + " filter", Name: strings.ToUpper(hook), Hook: hook, Policy: "drop"})
	}
	return f
}

// A chain stops nothing of the other family, and one of inet stops both.
func TestFirewallFamilies(t *testing.T) {
	for _, c := range []struct {
		chains   string
		ip4, ip6 string // what stops these
	}{
		{"ip", "table ip filter", ""},
		{"ip6", "", "table ip6 filter"},
		{"inet", "table inet filter", "table inet filter"},
		{"ip ip6", "table ip filter", "table ip6 filter"},
	} {
		f := closing("input", strings.Fields(c.chains)...)
		for family, want := range map[string]string{ipv4: c.ip4, ipv6: c.ip6} {
			if where, _ := f.stops(1000, family, "input"); !strings.HasPrefix(where, want) || want == "" && where != "" {
				t.Errorf("chains of %s, a datagram of %s: %q, want %q", c.chains, family, where, want)
			}
		}
	}
}

// What the doctor says of a peer that does not answer, where chains of a family drop what comes or goes.
func TestFindingsByFamily(t *testing.T) {
	const v4, v6, mapped, unknown = "192.0.2.2:2000", "[2001:db8::2]:2000", "[::ffff:192.0.2.2]:2000", ""
	in, out := "drops what comes to UDP port 1000", "drops what goes to UDP port 2000"
	const silence = "it does not answer"
	for _, c := range []struct {
		hook, chains, endpoint string
		want, do               string // of the one error
	}{
		{"input", "inet", v4, in, "nft insert rule inet filter INPUT udp dport 1000 accept"},
		{"input", "inet", v6, in, "nft insert rule inet filter INPUT udp dport 1000 accept"},
		{"input", "ip ip6", v4, in, "iptables -I INPUT -p udp --dport 1000 -j ACCEPT && ip6tables -I INPUT -p udp --dport 1000 -j ACCEPT"},
		{"input", "ip", v4, in + " over IPv4", "iptables -I INPUT -p udp --dport 1000 -j ACCEPT"},
		{"input", "ip", mapped, in + " over IPv4", "iptables -I INPUT -p udp --dport 1000 -j ACCEPT"},
		{"input", "ip", v6, silence, ""},
		{"input", "ip6", v6, in + " over IPv6", "ip6tables -I INPUT -p udp --dport 1000 -j ACCEPT"},
		{"input", "ip6", v4, silence, ""},
		{"input", "ip6", unknown, in + " over IPv6", "ip6tables -I INPUT -p udp --dport 1000 -j ACCEPT"},
		{"output", "inet", v4, out, "nft insert rule inet filter OUTPUT udp dport 2000 accept"},
		{"output", "ip", v4, out, "iptables -I OUTPUT -p udp --dport 2000 -j ACCEPT"},
		{"output", "ip6", v6, out, "ip6tables -I OUTPUT -p udp --dport 2000 -j ACCEPT"},
		{"output", "ip6", v4, silence, ""},
		{"output", "ip6", mapped, silence, ""},
		{"output", "ip", v6, silence, ""},
	} {
		f := well()
		silent(f)
		p := &f.Second.Tunnels[0].Peers[0]
		if p.Endpoint = c.endpoint; p.Endpoint == "" {
			p.HandshakeAttempts = 0
		}
		f.Firewall = closing(c.hook, strings.Fields(c.chains)...)
		var errors []Finding
		for _, finding := range Examine(f) {
			if finding.Severity == Error {
				errors = append(errors, finding)
			}
		}
		what := c.chains + " " + c.hook + ", peer at " + c.endpoint
		if len(errors) != 1 {
			t.Errorf("%s: %+v", what, errors)
			continue
		}
		if e := errors[0]; c.want == silence && !strings.HasPrefix(e.What, silence) || c.want != silence && !strings.HasSuffix(e.What, c.want) || !strings.HasSuffix(e.Do, c.do) {
			t.Errorf("%s: %s: %s; want %s: %s", what, e.What, e.Do, c.want, c.do)
		}
	}
}

// A tunnel with a peer in contact is open to somebody, and one without peers may be called by either family.
func TestInputOfNobody(t *testing.T) {
	f := well()
	f.Firewall = closing("input", "ip6")
	if list := Examine(f); len(list) != 0 {
		t.Errorf("in contact: %+v", list)
	}
	f.First.Tunnels[0].Peers, f.Second.Tunnels[0].Peers, f.Tunnels[0].Peers = []control.Peer{}, []control.Peer{}, nil
	if list := Examine(f); len(list) != 1 || !strings.HasSuffix(list[0].What, "over IPv6") {
		t.Errorf("without peers: %+v", list)
	}
}
