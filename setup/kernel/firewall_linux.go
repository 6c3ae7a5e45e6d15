package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
)

// firewallPrefix begins the name of each table of this kind. It is not that of masquerading: no instance's name has a slash.
const firewallPrefix = ours + "/"

// chain is a base chain of a firewall.
type chain struct {
	name     string
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	drops    bool // what no rule accepts
}

var (
	guarding = chain{"guard", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, false}
	marking  = chain{"mark", nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, false}
	tracking = chain{"track", nftables.ChainHookPostrouting, nftables.ChainPriorityMangle, false}
	sending  = chain{"sending", nftables.ChainHookOutput, nftables.ChainPriorityRaw, false}
	output   = chain{"output", nftables.ChainHookOutput, nftables.ChainPriorityFilter, true}
	forward  = chain{"forward", nftables.ChainHookForward, nftables.ChainPriorityFilter, true}
	input    = chain{"input", nftables.ChainHookInput, nftables.ChainPriorityFilter, true}
)

// chainsOf are the chains that a firewall with these fields has.
func chainsOf(f model.Fields) (list []chain) {
	if f["guard"] != "" || f["untracked"] != "" {
		list = append(list, guarding)
	}
	if f["untracked"] != "" {
		list = append(list, sending)
	}
	if f["marks"] != "" {
		list = append(list, marking, tracking)
	}
	if f["kill_switch"] != "" {
		list = append(list, output, forward, input)
	}
	return list
}

// filterRule is a rule of a firewall: what it is made of, and its expressions.
type filterRule struct {
	chain   string
	comment string
	exprs   []expr.Any
}

// rulesOf are the rules of a firewall with these fields, in order. Each word of a field is the comment of the rules made of it, by which it
// is read back.
func rulesOf(f model.Fields) (list []filterRule, err error) {
	if f["kill_switch"] != "" {
		list = append(list, alwaysLet()...)
	}
	for _, field := range model.FirewallFields {
		for _, word := range f[field].List() {
			more, err := rulesOfWord(field, word)
			if err != nil {
				return nil, fmt.Errorf("%s %q: %w", field, word, err)
			}
			for i := range more {
				more[i].comment = string(field) + " " + word
			}
			list = append(list, more...)
		}
	}
	return list, nil
}

// rulesOfWord are those of one word of a field.
func rulesOfWord(field model.Field, word string) ([]filterRule, error) {
	parts := strings.Split(word, ",")
	number := func(bits int) (uint32, error) {
		n, err := strconv.ParseUint(parts[0], 0, bits)
		return uint32(n), err
	}
	device := func() ([]byte, error) {
		if len(parts[0]) == 0 || len(parts[0]) >= unix.IFNAMSIZ {
			return nil, errors.New("not the name of a device")
		}
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, parts[0])
		return name, nil
	}
	switch {
	case field == "kill_switch" && len(parts) == 1:
		name, err := device()
		to, from := equals(expr.MetaKeyOIFNAME, name), equals(expr.MetaKeyIIFNAME, name)
		return []filterRule{ruleOf(output, to, accept), ruleOf(forward, to, accept), ruleOf(forward, from, answers(), accept), ruleOf(input, from, accept)}, err
	case field == "guard" && len(parts) == 2:
		name, err := device()
		a, errAddr := netip.ParseAddr(parts[1])
		if err = errors.Join(err, errAddr); err != nil {
			return nil, err
		}
		return []filterRule{ruleOf(guarding, differs(expr.MetaKeyIIFNAME, name), within(netip.PrefixFrom(a, a.BitLen()), false), notLocal(), drop)}, nil
	case field == "marks" && len(parts) == 1:
		mark, err := number(32)
		return []filterRule{
			ruleOf(tracking, protocol(unix.IPPROTO_UDP), marked(mark), keepMark()),
			ruleOf(tracking, protocol(unix.IPPROTO_TCP), marked(mark), keepMark()),
			ruleOf(marking, hasKept(mark), giveMark()),
		}, err
	case field == "endpoints" && (len(parts) == 2 && parts[1] == "any" || len(parts) == 3):
		mark, err := number(32)
		if err == nil && len(parts) == 3 {
			return endpointRules(mark, parts[1], parts[2])
		}
		return []filterRule{ruleOf(output, marked(mark), protocol(unix.IPPROTO_UDP), accept), ruleOf(output, marked(mark), protocol(unix.IPPROTO_TCP), accept)}, err
	case field == "lookups" && len(parts) == 1:
		const dns = 53
		mark, err := number(32)
		return []filterRule{ruleOf(output, marked(mark), protocol(unix.IPPROTO_UDP), toPort(dns), accept),
			ruleOf(output, marked(mark), protocol(unix.IPPROTO_TCP), toPort(dns), accept)}, err
	case field == "listen" && len(parts) == 1:
		port, err := number(16)
		return []filterRule{ruleOf(input, protocol(unix.IPPROTO_UDP), toPort(uint16(port)), accept),
			ruleOf(input, protocol(unix.IPPROTO_TCP), toPort(uint16(port)), accept)}, err
	case field == "untracked" && len(parts) == 1:
		port, err := number(16)
		return []filterRule{ruleOf(guarding, protocol(unix.IPPROTO_UDP), toPort(uint16(port)), toLocal(), notrack),
			ruleOf(sending, protocol(unix.IPPROTO_UDP), fromPort(uint16(port)), notrack)}, err
	case field == "except" && len(parts) == 1:
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, err
		}
		return []filterRule{ruleOf(output, within(p, false), accept), ruleOf(forward, within(p, false), accept),
			ruleOf(forward, within(p, true), answers(), accept), ruleOf(input, within(p, true), accept)}, nil
	}
	return nil, errors.New("not understood")
}

// endpointRules let a tunnel's datagrams go to an endpoint; where it speaks TCP, the port may be another.
func endpointRules(mark uint32, address, port string) ([]filterRule, error) {
	a, errAddr := netip.ParseAddr(address)
	n, errPort := strconv.ParseUint(port, 10, 16)
	if err := errors.Join(errAddr, errPort); err != nil {
		return nil, err
	}
	to := within(netip.PrefixFrom(a, a.BitLen()), false)
	return []filterRule{ruleOf(output, marked(mark), to, protocol(unix.IPPROTO_UDP), toPort(uint16(n)), accept),
		ruleOf(output, marked(mark), to, protocol(unix.IPPROTO_TCP), accept)}, nil
}

// alwaysLet are the rules for what a kill switch never stops: the machine itself, answers, and what keeps the address on the underlay.
func alwaysLet() (list []filterRule) {
	const (
		client4, server4 = 68, 67   // RFC 2131, section 4.1
		client6, server6 = 546, 547 // RFC 8415, section 7.2
	)
	lo := make([]byte, unix.IFNAMSIZ)
	copy(lo, "lo")
	list = append(list, ruleOf(output, equals(expr.MetaKeyOIFNAME, lo), accept), ruleOf(input, equals(expr.MetaKeyIIFNAME, lo), accept),
		ruleOf(input, answers(), accept),
		ruleOf(output, protocol(unix.IPPROTO_UDP), ports(client4, server4), accept), ruleOf(input, protocol(unix.IPPROTO_UDP), ports(server4, client4), accept),
		ruleOf(output, ofFamily(unix.NFPROTO_IPV6), protocol(unix.IPPROTO_UDP), ports(client6, server6), accept),
		ruleOf(input, ofFamily(unix.NFPROTO_IPV6), protocol(unix.IPPROTO_UDP), ports(server6, client6), accept))
	// Solicitations and advertisements of routers and neighbours (RFC 4861), and of multicast listeners (RFC 3810), without which a switch
	// may keep the former to itself.
	for _, kind := range []byte{133, 135, 136, 143} {
		list = append(list, ruleOf(output, icmpv6(kind), accept))
	}
	for _, kind := range []byte{130, 134, 135, 136} {
		list = append(list, ruleOf(input, icmpv6(kind), accept))
	}
	for i := range list {
		list[i].comment = "always"
	}
	return list
}

// readFirewall returns what a table holds. A field that is not as its rules say, or rules that are not culvert's, make it unreadable: it
// differs from whatever is declared.
func readFirewall(conn *nftables.Conn, table *nftables.Table, chains []*nftables.Chain) (model.Fields, error) {
	words := map[model.Field][]string{}
	have := map[string][]*nftables.Rule{}
	for _, c := range chains {
		rules, err := conn.GetRules(table, c)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		have[c.Name] = rules
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			if field, word, ok := strings.Cut(comment, " "); ok && slices.Contains(model.FirewallFields, model.Field(field)) {
				words[model.Field(field)] = append(words[model.Field(field)], word)
			}
		}
	}
	f := model.Fields{}
	for _, field := range model.FirewallFields {
		list := words[field]
		slices.Sort(list)
		f[field] = model.List(slices.Compact(list))
	}
	if !isFirewall(f, chains, have) {
		f["kill_switch"] += " ?"
	}
	return f, nil
}

// looksMade reports whether a table with these fields was made by culvert, whatever became of it since: it has rules with culvert's comments.
func looksMade(f model.Fields) bool {
	for _, v := range f {
		if slices.ContainsFunc(v.List(), func(word string) bool { return word != "?" }) {
			return true
		}
	}
	return false
}

// isFirewall reports whether chains and rules are those of the fields, to the last expression.
func isFirewall(f model.Fields, chains []*nftables.Chain, have map[string][]*nftables.Rule) bool {
	want := chainsOf(f)
	rules, err := rulesOf(f)
	if err != nil || len(chains) != len(want) {
		return false
	}
	for _, w := range want {
		at := slices.IndexFunc(chains, func(c *nftables.Chain) bool { return c.Name == w.name })
		if at < 0 {
			return false
		}
		c := chains[at]
		if c.Hooknum == nil || *c.Hooknum != *w.hook || c.Priority == nil || *c.Priority != *w.priority ||
			(c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop) != w.drops {
			return false
		}
		list := have[w.name]
		for _, r := range rules {
			if r.chain != w.name {
				continue
			}
			if len(list) == 0 || !sameExpressions(list[0].Exprs, r.exprs) {
				return false
			}
			list = list[1:]
		}
		if len(list) > 0 {
			return false
		}
	}
	return true
}

func sameExpressions(a, b []expr.Any) bool {
	return slices.EqualFunc(a, b, func(x, y expr.Any) bool {
		// Of an expression that sets something of a connection the library reads only what.
		if set, ok := y.(*expr.Ct); ok && set.SourceRegister {
			have, ok := x.(*expr.Ct)
			return ok && have.Key == set.Key && have.Register == 0
		}
		l, errL := expr.Marshal(byte(nftables.TableFamilyINet), x)
		r, errR := expr.Marshal(byte(nftables.TableFamilyINet), y)
		return errL == nil && errR == nil && bytes.Equal(l, r)
	})
}

// putFirewall makes a firewall of fields, in place of one that is there where replace says so, in one transaction.
func putFirewall(w *work, f model.Fields, replace bool) error {
	if !strings.HasPrefix(w.table().Name, firewallPrefix) {
		return fmt.Errorf("the name of a table does not begin with %q: %w", firewallPrefix, errRefused)
	}
	rules, err := rulesOf(f)
	if err != nil {
		return err
	}
	conn, err := w.ns.nftables()
	if err != nil {
		return err
	}
	table := w.table()
	if replace {
		conn.DelTable(table)
		table = conn.AddTable(table)
	} else {
		table = conn.CreateTable(table)
	}
	chains := map[string]*nftables.Chain{}
	for _, c := range chainsOf(f) {
		policy := nftables.ChainPolicyAccept
		if c.drops {
			policy = nftables.ChainPolicyDrop
		}
		chains[c.name] = conn.AddChain(&nftables.Chain{Name: c.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: c.hook,
			Priority: c.priority, Policy: &policy})
	}
	for _, r := range rules {
		if c := chains[r.chain]; c != nil {
			conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: r.exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
	return flush(conn)
}

func createFirewall(w *work) (apply.Done, error) {
	return apply.Done{}, putFirewall(w, w.step.Fields, false)
}

// changeFirewall reads what there is and puts another in its place: no packet passes between the two.
func changeFirewall(w *work) (apply.Done, error) {
	conn, err := w.ns.nftables()
	if err != nil {
		return apply.Done{}, err
	}
	chains, err := chainsIn(conn, w.table().Name)
	if err != nil {
		return apply.Done{}, err
	}
	f, err := readFirewall(conn, w.table(), chains)
	if err != nil {
		return apply.Done{}, err
	}
	for _, c := range w.step.Changes {
		f[c.Field] = c.New
	}
	for field, v := range f {
		f[field] = model.Value(strings.TrimSuffix(string(v), " ?"))
	}
	return apply.Done{}, putFirewall(w, f, true)
}

func chainsIn(conn *nftables.Conn, table string) (list []*nftables.Chain, err error) {
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	for _, c := range all {
		if c.Table.Name == table {
			list = append(list, c)
		}
	}
	return list, err
}
