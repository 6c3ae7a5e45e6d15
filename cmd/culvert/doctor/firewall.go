package doctor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Firewall are the rules of nftables' base chains that can stop datagrams, in order.
type Firewall struct {
	Chains []Chain `json:"chains"`
}

// Chain is a base chain.
type Chain struct {
	Table  string `json:"table"` // with its family
	Name   string `json:"name"`
	Hook   string `json:"hook"`   // "input", "output" or "prerouting"
	Policy string `json:"policy"` // "accept" or "drop"
	Rules  []Rule `json:"rules,omitempty"`
}

// Rule is a rule as far as it is understood.
type Rule struct {
	UDPPort uint16 `json:"udp_dport,omitempty"` // it matches nothing but datagrams to that port
	Verdict string `json:"verdict"`             // "drop", "accept", "reject", or "" for none of these
	Packets uint64 `json:"packets,omitempty"`
	Others  bool   `json:"others,omitempty"` // it matches no datagram that somebody else begins with: of known flows, or of this machine
	Opaque  bool   `json:"opaque,omitempty"` // it matches something else besides, which is not looked at
}

// ParseNFT reads what "nft -j list ruleset" prints. What of a rule it does not know makes it opaque: no conclusion is drawn of it.
func ParseNFT(data []byte) (*Firewall, error) {
	var doc struct {
		NFTables []struct {
			Chain *struct {
				Family, Table, Name, Hook, Policy string
			}
			Rule *struct {
				Family, Table, Chain string
				Expr                 []map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("nft's answer: %w", err)
	}
	f := &Firewall{}
	for _, o := range doc.NFTables {
		if c := o.Chain; c != nil && slices.Contains([]string{"input", "output", "prerouting"}, c.Hook) && c.Family != "arp" && c.Family != "bridge" {
			f.Chains = append(f.Chains, Chain{Table: c.Family + " " + c.Table, Name: c.Name, Hook: c.Hook, Policy: c.Policy})
		}
		if r := o.Rule; r != nil {
			for i := range f.Chains {
				if c := &f.Chains[i]; c.Table == r.Family+" "+r.Table && c.Name == r.Chain {
					c.Rules = append(c.Rules, ruleOf(r.Expr))
				}
			}
		}
	}
	return f, nil
}

func ruleOf(exprs []map[string]json.RawMessage) (r Rule) {
	for _, e := range exprs {
		for kind, body := range e {
			switch kind {
			case "drop", "accept", "reject":
				r.Verdict = kind
			case "counter":
				var c struct{ Packets uint64 }
				_ = json.Unmarshal(body, &c) // a named one's is not here
				r.Packets = c.Packets
			case "match":
				var m struct {
					Op   string
					Left struct {
						Payload struct{ Protocol, Field string }
						Meta    struct{ Key string }
						CT      struct{ Key string }
					}
					Right json.RawMessage
				}
				port, right := uint64(0), ""
				err := json.Unmarshal(body, &m)
				if err == nil {
					right = string(m.Right)
					port, _ = strconv.ParseUint(right, 10, 16)
				}
				switch {
				case err == nil && m.Op == "==" && m.Left.Payload.Protocol == "udp" && m.Left.Payload.Field == "dport" && port != 0:
					r.UDPPort = uint16(port)
				case err == nil && m.Op == "==" && m.Left.Meta.Key == "l4proto" && right == `"udp"`:
				case err == nil && m.Left.CT.Key == "state" && m.Op != "!=" && !strings.Contains(right, "new"),
					err == nil && m.Op == "==" && (m.Left.Meta.Key == "iifname" || m.Left.Meta.Key == "iif") && right == `"lo"`:
					r.Others = true
				default:
					r.Opaque = true
				}
			case "comment", "log":
			default:
				r.Opaque = true
			}
		}
	}
	return r
}

// stops says what of the firewall stops datagrams to a UDP port at a hook, "" where nothing does as far as can be seen.
func (f *Firewall) stops(port uint16, hooks ...string) (where string, packets uint64) {
	if f == nil {
		return "", 0
	}
	for _, c := range f.Chains {
		if !slices.Contains(hooks, c.Hook) {
			continue
		}
		open := false // something may let them through before what stops them
		ended := false
		for _, r := range c.Rules {
			if r.Others || r.UDPPort != 0 && r.UDPPort != port {
				continue
			}
			switch {
			case r.Opaque && r.Verdict != "drop" && r.Verdict != "reject":
				open = true
			case r.Opaque:
			case r.Verdict == "accept":
				ended = true
			case r.Verdict == "drop" || r.Verdict == "reject":
				if r.UDPPort == port || !open {
					return fmt.Sprintf("table %s, chain %s, a rule that says %s", c.Table, c.Name, r.Verdict), r.Packets
				}
				ended = true
			}
			if ended {
				break
			}
		}
		if !ended && !open && c.Policy == "drop" {
			return fmt.Sprintf("table %s, chain %s, whose policy is drop", c.Table, c.Name), 0
		}
	}
	return "", 0
}
