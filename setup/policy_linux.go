package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/setup/spec"
)

const (
	// firstMark is where the search for a free mark and table begins: that of wg-quick(8), WireGuard's usual port.
	firstMark = 51820
	// marksTried bounds the search.
	marksTried = 4096
	// ruleProtocol tells rules made here from those of others (FRA_PROTOCOL; ip-rule(8) shows "proto 67"). Neither the
	// kernel nor iproute2 gives the number a meaning.
	ruleProtocol = 67
	// validMarkSysctl makes the reverse path filter take a packet's mark into account.
	validMarkSysctl = "/proc/sys/net/ipv4/conf/all/src_valid_mark"
)

// addPolicy leads everything but the tunnel's own datagrams into the link; defaults are the default routes, at most one
// per family and metric.
func (w *l3Work) addPolicy(defaults []Route) error {
	// Two processes looking for a free mark at once would find the same one, and the remains of a third that was killed
	// look like what one of them is just building.
	unlock := lockNetns(w.applied.netns)
	defer unlock()
	reapPolicies()
	mark := w.Mark
	if mark == 0 {
		var err error
		if mark, err = freeMark(); err != nil {
			return &OpError{Op: "find a free fwmark for", Item: w.Link, Err: err}
		}
	}
	if w.SetMark != nil {
		if err := w.SetMark(mark); err != nil {
			return &OpError{Op: "set fwmark", Item: fmt.Sprintf("%d of %s", mark, w.Link), Err: err}
		}
	}
	w.applied.Mark = mark
	var families []int
	for _, r := range defaults {
		r.Table = mark
		if err := w.addRoute(r); err != nil {
			return err
		}
		if f := familyOf(r.Prefix.Addr()); !slices.Contains(families, f) {
			families = append(families, f)
		}
	}
	if slices.Contains(families, netlink.FAMILY_V4) {
		if err := w.setValidMark(); err != nil {
			return err
		}
	}
	if err := w.addFirewall(families, mark); err != nil {
		return err
	}
	for _, family := range families {
		if err := w.addRules(family, mark); err != nil {
			return err
		}
	}
	return nil
}

// addRules adds the two rules of one family in front of all but the first (that of the table local): where an
// unmarked packet goes is looked up in the main table without its default route, then in the tunnel's table.
func (w *l3Work) addRules(family int, mark uint32) error {
	rules, err := listRules(family)
	if err != nil {
		return &OpError{Op: "list rules for", Item: w.Link, Err: err}
	}
	first := lowestPriority(rules)
	if first < 3 {
		return &OpError{Op: "add rule", Item: fmt.Sprintf("not fwmark %d lookup %d", mark, mark),
			Err: fmt.Errorf("no priority is left before the rule of priority %d", first)}
	}
	suppress := policyRule(family, first-2)
	suppress.Table = tableMain
	suppress.SuppressPrefixlen = 0
	divert := policyRule(family, first-1)
	divert.Table = int(mark)
	divert.Mark = mark
	divert.Invert = true
	for _, rule := range []*netlink.Rule{suppress, divert} {
		item := ruleText(rule)
		if err := netlink.RuleAdd(rule); err != nil {
			return &OpError{Op: "add rule", Item: item, Err: err, Hint: ruleHint(err)}
		}
		w.ruleAdded(rule)
	}
	return nil
}

func (w *l3Work) ruleAdded(rule *netlink.Rule) {
	w.done("delete rule", ruleText(rule), func() error { return netlink.RuleDel(rule) })
}

func ruleHint(err error) string {
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return "the kernel lacks CONFIG_IP_MULTIPLE_TABLES or CONFIG_IPV6_MULTIPLE_TABLES"
	}
	return permissionHint(err)
}

func policyRule(family, priority int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Protocol = family, priority, ruleProtocol
	return r
}

// ruleText returns one of the two rules as ip-rule(8) takes it.
func ruleText(r *netlink.Rule) string {
	flag := "-4"
	if r.Family == netlink.FAMILY_V6 {
		flag = "-6"
	}
	if r.Invert {
		return fmt.Sprintf("%s priority %d not fwmark %d table %d", flag, r.Priority, r.Mark, r.Table)
	}
	return fmt.Sprintf("%s priority %d table main suppress_prefixlength 0", flag, r.Priority)
}

func listRules(family int) ([]netlink.Rule, error) {
	return dumped(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
}

// lowestPriority returns the lowest priority of all rules but those at 0, as the kernel does where a new rule names
// none (fib_default_rule_pref).
func lowestPriority(rules []netlink.Rule) int {
	lowest := 32766 // that of the main table's rule on a fresh host
	for _, r := range rules {
		if r.Priority > 0 {
			lowest = min(lowest, r.Priority)
		}
	}
	return lowest
}

// tableUse is what rules and routes of both families refer to.
type tableUse struct {
	rules  []netlink.Rule
	routed map[int]bool // tables that hold a route
}

func readTableUse() (tableUse, error) {
	use := tableUse{routed: map[int]bool{}}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := listRules(family)
		if noFamily(err) {
			continue
		}
		if err != nil {
			return use, err
		}
		use.rules = append(use.rules, rules...)
		routes, err := dumped(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		if noFamily(err) {
			continue
		}
		if err != nil {
			return use, err
		}
		for _, r := range routes {
			use.routed[r.Table] = true
		}
	}
	return use, nil
}

// noFamily reports whether an error says that the kernel has no such address family.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// freeMark returns the first number from firstMark upward that is neither a mark nor a table in use.
func freeMark() (uint32, error) {
	use, err := readTableUse()
	if err != nil {
		return 0, err
	}
	for mark := uint32(firstMark); mark < firstMark+marksTried; mark++ {
		inRule := slices.ContainsFunc(use.rules, func(r netlink.Rule) bool {
			return r.Table == int(mark) || r.Mark == mark
		})
		if !inRule && !use.routed[int(mark)] {
			return mark, nil
		}
	}
	return 0, fmt.Errorf("all of %d to %d are in use by rules or routes", firstMark, firstMark+marksTried-1)
}

// reapPolicies removes the rules of tunnels whose process was killed: their device went with it, and the route in their
// table with the device. Such rules lead nowhere, so failing to remove them hurts nobody.
func reapPolicies() {
	use, err := readTableUse()
	if err != nil {
		return
	}
	live := func(r netlink.Rule) bool { return r.Invert && use.routed[r.Table] }
	for _, r := range use.rules {
		if !isPolicyRule(r) {
			continue
		}
		// The rule for the main table belongs to the one right behind it.
		inUse := live(r) || slices.ContainsFunc(use.rules, func(next netlink.Rule) bool {
			return isPolicyRule(next) && next.Family == r.Family && next.Priority == r.Priority+1 && live(next)
		})
		if !inUse {
			_ = netlink.RuleDel(&r)
		}
	}
	reapFirewalls()
}

// isPolicyRule reports whether a rule is one of the two that addRules makes. Those that a file declares have the same protocol number.
func isPolicyRule(r netlink.Rule) bool {
	if r.Protocol != ruleProtocol || r.Src != nil || r.Dst != nil || r.Priority >= spec.FirstPriority && r.Priority <= spec.LastPriority {
		return false
	}
	if r.Invert {
		return r.Mark != 0 && int(r.Mark) == r.Table
	}
	return r.Table == tableMain && r.SuppressPrefixlen == 0 && r.Mark == 0
}

// setValidMark switches src_valid_mark on for the namespace.
func (w *l3Work) setValidMark() error {
	before, err := os.ReadFile(validMarkSysctl)
	if err == nil && strings.TrimSpace(string(before)) == "1" {
		return nil
	}
	if err == nil {
		err = os.WriteFile(validMarkSysctl, []byte("1"), 0)
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		// As in containers with /proc/sys read-only. It matters only under a strict reverse path filter.
		w.warn(&OpError{Op: "set sysctl", Item: "net.ipv4.conf.all.src_valid_mark=1", Err: err,
			Hint: "where rp_filter is 1, answers to the tunnel's datagrams are dropped"})
		return nil
	}
	if err != nil {
		return &OpError{Op: "set sysctl", Item: "net.ipv4.conf.all.src_valid_mark=1", Err: err}
	}
	w.validMarkSet(before)
	return nil
}

func (w *l3Work) validMarkSet(before []byte) {
	w.applied.ValidMark = true
	w.done("restore sysctl", "net.ipv4.conf.all.src_valid_mark", func() error {
		// Another tunnel that came later found it on already and relies on it.
		if rules, err := listRules(netlink.FAMILY_V4); err != nil || slices.ContainsFunc(rules, isDiversion) {
			return err
		}
		return os.WriteFile(validMarkSysctl, before, 0)
	})
}

// isDiversion reports whether a rule sends what does not carry a mark to a table, as every tunnel with a default route
// has one, be it ours or wg-quick's.
func isDiversion(r netlink.Rule) bool { return r.Invert && r.Mark != 0 }

// lockTimeout bounds the wait for another process that is setting up a policy. It is short and its end no failure,
// since any process of the namespace, however unprivileged, can hold the lock.
const lockTimeout = 2 * time.Second

// lockNetns keeps others out who set up a policy in the namespace, until unlock is called. The lock lies on the
// namespace itself, so it leaves nothing behind, and holds across mount namespaces.
func lockNetns(netns int) (unlock func()) {
	// A description of its own: flock belongs to that, and threads of one process may compete as well.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", netns), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	for end := time.After(lockTimeout); unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil; {
		select {
		case <-end:
			return func() { unix.Close(fd) }
		case <-time.After(2 * time.Millisecond):
		}
	}
	return func() { unix.Close(fd) }
}

// addressesOf returns the link's addresses of a family.
func addressesOf(index, family int) ([]netip.Addr, error) {
	addrs, err := dumped(func() ([]netlink.Addr, error) { return netlink.AddrList(device(index), family) })
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok {
			list = append(list, p.Addr())
		}
	}
	return list, nil
}
