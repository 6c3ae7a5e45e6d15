package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// expr is one expression of a rule: its kind, and what it says.
type expr map[string]json.RawMessage

// sets are the elements of named sets, by table and name.
type sets map[string]json.RawMessage

// ParseNFT reads what "nft -j list ruleset" prints. What of a rule it does not know makes it opaque: no conclusion is drawn of it.
func ParseNFT(data []byte) (*Firewall, error) {
	var doc struct {
		NFTables []struct {
			Chain *struct {
				Family, Table, Name, Hook, Policy string
			}
			Set *struct {
				Family, Table, Name string
				Elem                json.RawMessage
			}
			Rule *struct {
				Family, Table, Chain string
				Expr                 []expr
			}
		}
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("nft's answer: %w", err)
	}
	f := &Firewall{}
	named := make(sets)
	for _, o := range doc.NFTables {
		if c := o.Chain; c != nil && c.Family != "arp" && c.Family != "bridge" && (c.Hook == "" || slices.Contains([]string{"input", "output", "prerouting"}, c.Hook)) {
			f.Chains = append(f.Chains, Chain{Table: c.Family + " " + c.Table, Name: c.Name, Hook: c.Hook, Policy: c.Policy})
		}
		if s := o.Set; s != nil {
			named[s.Family+" "+s.Table+" @"+s.Name] = s.Elem
		}
	}
	for _, o := range doc.NFTables {
		if r := o.Rule; r != nil {
			table := r.Family + " " + r.Table
			if c := f.find(table, r.Chain); c != nil {
				c.Rules = append(c.Rules, rulesOf(table, named, r.Expr)...)
			}
		}
	}
	return f, nil
}

// rulesOf are the rules that one is: a map of verdicts is a rule for each of its elements.
func rulesOf(table string, named sets, exprs []expr) []Rule {
	r := reading{table: table, named: named}
	for i, e := range exprs {
		body, ok := e["vmap"]
		if !ok {
			continue
		}
		var m struct {
			Key  json.RawMessage
			Data struct{ Set [][2]json.RawMessage }
		}
		if json.Unmarshal(body, &m) != nil || len(m.Data.Set) == 0 {
			break // as what is not known
		}
		var list []Rule
		for _, element := range m.Data.Set {
			var verdict expr
			if json.Unmarshal(element[1], &verdict) != nil {
				verdict = expr{"?": nil}
			}
			match, _ := json.Marshal(map[string]any{"op": "==", "left": m.Key, "right": element[0]})
			one := slices.Concat(exprs[:i], []expr{{"match": match}, verdict}, exprs[i+1:])
			list = append(list, r.rule(one))
		}
		return list
	}
	return []Rule{r.rule(exprs)}
}

// reading reads the rules of a table.
type reading struct {
	table string
	named sets
}

func (x *reading) rule(exprs []expr) (r Rule) {
	tracked := false // by connection state, which iptables' rules do not show here
	for _, e := range exprs {
		for _, kind := range slices.Sorted(maps.Keys(e)) {
			body := e[kind]
			switch kind {
			case "drop", "accept", "reject", "return":
				r.Verdict = kind
			case "jump", "goto":
				var to struct{ Target string }
				_ = json.Unmarshal(body, &to)
				r.Verdict, r.To = kind, to.Target
			case "counter":
				var c struct{ Packets uint64 }
				_ = json.Unmarshal(body, &c) // a named one's is not here
				r.Packets = c.Packets
			case "match":
				x.match(&r, body)
			case "comment", "log", "mangle", "notrack":
			case "limit", "quota", "connlimit", "ct count":
				r.Opaque = true
			case "xt":
				var xt struct{ Type, Name string }
				_ = json.Unmarshal(body, &xt)
				switch {
				case xt.Type == "match" && xt.Name == "conntrack":
					tracked = true
				case xt.Type == "match" && xt.Name == "comment", xt.Type == "target" && (xt.Name == "LOG" || xt.Name == "NFLOG"):
				case xt.Type == "target" && xt.Name == "REJECT":
					r.Verdict = "reject"
				default:
					r.Opaque = true
					if xt.Type != "match" {
						r.Verdict = "other"
					}
				}
			default:
				r.Opaque, r.Verdict = true, "other"
			}
		}
	}
	// Rules of iptables' that go by the state alone accept what belongs to known flows, or drop what belongs to none.
	if tracked && !r.Opaque && r.Ports == nil && (r.Verdict == "accept" || r.Verdict == "drop" || r.Verdict == "reject") {
		r.Others = true
	}
	r.Opaque = r.Opaque || tracked
	return r
}

// match takes one condition into a rule.
func (x *reading) match(r *Rule, body json.RawMessage) {
	var m struct {
		Op   string
		Left struct {
			Payload struct{ Protocol, Field string }
			Meta    struct{ Key string }
			CT      struct{ Key string }
		}
		Right json.RawMessage
	}
	if json.Unmarshal(body, &m) != nil {
		r.Opaque = true
		return
	}
	if slices.Contains([]string{"", "in"}, m.Op) {
		m.Op = "=="
	}
	values, known := x.values(m.Right, 4)
	has := func(list ...string) bool {
		return slices.ContainsFunc(values, func(v value) bool { return slices.Contains(list, v.first) && v.first == v.last })
	}
	only := func(list ...string) bool { // nothing but these
		return known && len(values) > 0 && !slices.ContainsFunc(values, func(v value) bool { return !slices.Contains(list, v.first) || v.first != v.last })
	}
	is := m.Op == "=="
	switch p := m.Left.Payload; {
	case !known || !is && m.Op != "!=" && p.Field != "dport":
		if p.Protocol != "" && !slices.Contains(withUDP, p.Protocol) {
			r.Others = true
		}
		r.Opaque = true
	case (p.Protocol == "udp" || p.Protocol == "th") && p.Field == "dport":
		ports, ok := portsOf(m.Op, values)
		switch {
		case !ok:
			r.Opaque = true
		case r.Ports != nil:
			r.Opaque = true // twice said: of either
		case len(ports) == 0:
			r.Others = true
		default:
			r.Ports = ports
		}
	case p.Protocol != "" && !slices.Contains(withUDP, p.Protocol): // tcp, icmp and the like
		r.Others = true
	case m.Left.Meta.Key == "l4proto":
		r.take(has("udp", "17") == is, true)
	case p.Protocol == "ip" && p.Field == "protocol", p.Protocol == "ip6" && p.Field == "nexthdr":
		r.take(has("udp", "17") == is, strings.HasPrefix(x.table, p.Protocol+" "))
	case m.Left.CT.Key == "state":
		r.take(has("new") == is, true)
	case m.Left.CT.Key == "status" && is && only("dnat", "snat"): // it was meant for something else
		r.Others = true
	case m.Left.Meta.Key == "iifname" || m.Left.Meta.Key == "iif":
		if only("lo") {
			r.take(!is, true)
		} else {
			r.Opaque = true
		}
	case m.Left.Meta.Key == "pkttype":
		r.take((has("host", "unicast")) == is, true)
	default:
		r.Opaque = true
	}
}

// withUDP are the headers that a datagram has.
var withUDP = []string{"udp", "th", "ip", "ip6", "ether", "vlan"}

// take is of a condition that datagrams in question fulfil, or not; all of them, or a part.
func (r *Rule) take(fulfilled, all bool) {
	switch {
	case !fulfilled:
		r.Others = true
	case !all:
		r.Opaque = true
	}
}

// value is what something is compared with: one, or all from one to another.
type value struct{ first, last string }

// values are those of the right side of a condition. Sets in sets there are none, but of elements with a text or a counter of their own.
func (x *reading) values(right json.RawMessage, depth int) (list []value, known bool) {
	if depth < 0 || len(right) == 0 || bytes.Equal(right, []byte("null")) {
		return nil, false
	}
	var text string
	if json.Unmarshal(right, &text) == nil {
		if strings.HasPrefix(text, "@") {
			elements, ok := x.named[x.table+" "+text]
			if !ok || len(elements) == 0 {
				return nil, ok
			}
			return x.values(elements, depth-1)
		}
		return []value{{text, text}}, true
	}
	var number json.Number
	if json.Unmarshal(right, &number) == nil {
		return []value{{number.String(), number.String()}}, true
	}
	var all []json.RawMessage
	if json.Unmarshal(right, &all) == nil {
		for _, one := range all {
			v, ok := x.values(one, depth-1)
			if !ok {
				return nil, false
			}
			list = append(list, v...)
			if len(list) > mostSteps {
				return nil, false
			}
		}
		return list, true
	}
	var of struct {
		Set   json.RawMessage
		Range []json.Number
		Elem  *struct{ Val json.RawMessage }
	}
	switch err := json.Unmarshal(right, &of); {
	case err != nil:
	case of.Set != nil:
		return x.values(of.Set, depth-1)
	case of.Elem != nil:
		return x.values(of.Elem.Val, depth-1)
	case len(of.Range) == 2:
		return []value{{of.Range[0].String(), of.Range[1].String()}}, true
	}
	return nil, false
}

// portsOf are the ports that a comparison is true of.
func portsOf(op string, values []value) (list []Ports, ok bool) {
	for _, v := range values {
		first, err1 := strconv.ParseUint(v.first, 10, 16)
		last, err2 := strconv.ParseUint(v.last, 10, 16)
		if err1 != nil || err2 != nil || first > last {
			return nil, false
		}
		list = append(list, Ports{uint16(first), uint16(last)})
	}
	if op == "==" {
		return list, true
	}
	if op == "!=" {
		slices.SortFunc(list, func(a, b Ports) int { return int(a.First) - int(b.First) })
		next := 0
		var rest []Ports
		for _, p := range list {
			if int(p.First) > next {
				rest = append(rest, Ports{uint16(next), p.First - 1})
			}
			next = max(next, int(p.Last)+1)
		}
		if next <= 65535 {
			rest = append(rest, Ports{uint16(next), 65535})
		}
		return rest, true
	}
	if len(list) != 1 || list[0].First != list[0].Last {
		return nil, false
	}
	switch n := list[0].First; {
	case op == "<" && n > 0:
		return []Ports{{0, n - 1}}, true
	case op == "<=":
		return []Ports{{0, n}}, true
	case op == ">" && n < 65535:
		return []Ports{{n + 1, 65535}}, true
	case op == ">=":
		return []Ports{{n, 65535}}, true
	}
	return nil, false
}
