package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Firewall are the chains of nftables that can stop datagrams, in order, with those that they jump to.
type Firewall struct {
	Chains []Chain `json:"chains"`
}

// Chain is a chain: a base chain, or one without a hook that others jump to.
type Chain struct {
	Table  string `json:"table"` // with its family
	Name   string `json:"name"`
	Hook   string `json:"hook,omitempty"`   // "input", "output" or "prerouting"
	Policy string `json:"policy,omitempty"` // "accept" or "drop"
	Rules  []Rule `json:"rules,omitempty"`
}

// Rule is a rule as far as it is understood.
type Rule struct {
	Ports   []Ports `json:"udp_dports,omitempty"` // it matches nothing but datagrams to these ports; all of them where none is said
	Verdict string  `json:"verdict,omitempty"`    // "drop", "accept", "reject", "return", "jump", "goto", "other", or "" where the next rule follows
	To      string  `json:"to,omitempty"`         // the chain of a jump
	Packets uint64  `json:"packets,omitempty"`
	Others  bool    `json:"others,omitempty"` // it matches no datagram that somebody else begins with: of known flows, of this machine, of other protocols or ports
	Opaque  bool    `json:"opaque,omitempty"` // it matches something else besides, which is not looked at
}

// Ports are those from one to another, both included.
type Ports struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

func (p Ports) has(port uint16) bool { return p.First <= port && port <= p.Last }

// Bounds of a walk. Deeper than so many jumps the kernel takes no rules.
const (
	mostJumps = 16
	mostSteps = 100_000
)

// walk goes through the rules of a base chain as a datagram to a port would.
type walk struct {
	f     *Firewall
	port  uint16
	steps int
	open  bool // something may let it through before what stops it
}

// outcome is how a chain ended: with "" where it has let the datagram go on, to whoever jumped there or to the policy.
type outcome struct {
	verdict string // "", "accept" or "stop"
	where   string
	packets uint64
}

// The families of nftables that addresses are of. Chains of the family inet are for both.
const (
	ipv4 = "ip"
	ipv6 = "ip6"
)

// familyOf is the family of an "address:port", "" of what is none.
func familyOf(endpoint string) string {
	ap, err := netip.ParseAddrPort(endpoint)
	switch {
	case err != nil:
		return ""
	case ap.Addr().Unmap().Is4():
		return ipv4
	}
	return ipv6
}

// sees reports whether datagrams of a family come by a base chain.
func (c *Chain) sees(family string) bool {
	own, _, _ := strings.Cut(c.Table, " ")
	return own == family || own == "inet"
}

// stops says what of the firewall stops datagrams of a family to a UDP port at a hook, "" where nothing does as far as can be seen.
func (f *Firewall) stops(port uint16, family string, hooks ...string) (where string, packets uint64) {
	if f == nil {
		return "", 0
	}
	for i := range f.Chains {
		c := &f.Chains[i]
		if !slices.Contains(hooks, c.Hook) || !c.sees(family) {
			continue
		}
		w := walk{f: f, port: port}
		switch o := w.chain(c, mostJumps); {
		case o.verdict == "stop":
			return o.where, o.packets
		case o.verdict == "" && !w.open && c.Policy == "drop":
			return fmt.Sprintf("table %s, chain %s, whose policy is drop", c.Table, c.Name), 0
		}
	}
	return "", 0
}

// chain follows a chain. Where what a rule matches is not known, both ways are thought of: it is only said that something stops the
// datagram where it does so either way, or by a rule for its very port.
func (w *walk) chain(c *Chain, jumps int) outcome {
	left := false // the rest of this chain may be passed by
	for i := range c.Rules {
		r := &c.Rules[i]
		if w.steps++; w.steps > mostSteps {
			w.open = true
			return outcome{}
		}
		if r.Others || r.Ports != nil && !slices.ContainsFunc(r.Ports, func(p Ports) bool { return p.has(w.port) }) {
			continue
		}
		sure := !r.Opaque && !left
		switch r.Verdict {
		case "":
		case "accept":
			if sure {
				return outcome{verdict: "accept"}
			}
			w.open = true
		case "drop", "reject":
			if sure && (!w.open || r.Ports != nil) {
				return outcome{"stop", fmt.Sprintf("table %s, chain %s, a rule that says %s", c.Table, c.Name, r.Verdict), r.Packets}
			}
			if sure {
				return outcome{verdict: "accept"} // at least by what was seen before
			}
		case "return":
			if sure {
				return outcome{}
			}
			left = true
		case "jump", "goto":
			to := w.f.find(c.Table, r.To)
			if to == nil || jumps == 0 {
				w.open = true
				continue
			}
			o := w.chain(to, jumps-1)
			switch {
			case o.verdict != "" && sure:
				return o
			case o.verdict == "accept":
				w.open = true
			case o.verdict == "" && r.Verdict == "goto" && sure:
				return outcome{}
			case o.verdict == "" && r.Verdict == "goto":
				left = true
			}
		default:
			w.open = true
		}
	}
	return outcome{}
}

func (f *Firewall) find(table, name string) *Chain {
	if i := slices.IndexFunc(f.Chains, func(c Chain) bool { return c.Table == table && c.Name == name }); i >= 0 {
		return &f.Chains[i]
	}
	return nil
}

// letThrough is the command that lets datagrams to a port pass what [Firewall.stops] said, by whatever manages these rules.
func (f *Firewall) letThrough(where string, port uint16) string {
	parts := strings.Split(where, ", ")
	table, chain := strings.TrimPrefix(parts[0], "table "), strings.TrimPrefix(parts[1], "chain ")
	c := f.find(table, chain)
	ours := func(prefix string) bool {
		return slices.ContainsFunc(f.Chains, func(c Chain) bool { return c.Table == table && strings.HasPrefix(c.Name, prefix) })
	}
	family, name, _ := strings.Cut(table, " ")
	out := c != nil && c.Hook == "output"
	switch {
	case name == "firewalld" && !out:
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/udp && firewall-cmd --reload", port)
	case ours("ufw-") && out:
		return fmt.Sprintf("ufw allow out %d/udp", port)
	case ours("ufw-"):
		return fmt.Sprintf("ufw allow %d/udp", port)
	case name == "filter" && family != "inet" && chain == strings.ToUpper(chain): // iptables' own names
		return fmt.Sprintf("%stables -I %s -p udp --dport %d -j ACCEPT", family, chain, port)
	}
	return fmt.Sprintf("nft insert rule %s %s udp dport %d accept", table, chain, port)
}
