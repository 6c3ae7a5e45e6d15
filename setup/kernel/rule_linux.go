package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/rtnl"
)

const (
	ruleLength = 12     // of struct fib_rule_hdr
	ruleInvert = 1 << 1 // FIB_RULE_INVERT
	ruleAction = 7      // where the action is
	ruleFlags  = 8      // and the flags
	allBits    = 1<<32 - 1
)

// ruleActions are those of linux/fib_rules.h, by their names in ip-rule(8).
var ruleActions = names{"lookup": 1, "goto": 2, "nop": 3, "blackhole": 6, "unreachable": 7, "prohibit": 8}

// rule is an entry that chooses a routing table.
type rule struct {
	family   uint8
	priority uint32
	protocol uint8
	fields   model.Fields
}

func parseRule(b []byte) (rule, bool) {
	if len(b) < ruleLength {
		return rule{}, false
	}
	r := rule{family: b[0], fields: model.Fields{}}
	attributes := rtnl.Parse(b[ruleLength:])
	r.priority = uint32(rtnl.Uint(attributes[unix.FRA_PRIORITY]))
	r.protocol = uint8(rtnl.Uint(attributes[unix.FRA_PROTOCOL]))
	r.fields["not"] = model.Bool(binary.NativeEndian.Uint32(b[ruleFlags:])&ruleInvert != 0)
	r.fields["action"], _ = named(1, ruleActions).decode(b[ruleAction : ruleAction+1])
	if r.fields["action"] == "lookup" {
		table := uint64(b[4])
		if t, ok := attributes[unix.FRA_TABLE]; ok {
			table = rtnl.Uint(t)
		}
		r.fields["table"] = model.Uint(table)
	}
	for field, from := range map[model.Field]struct {
		kind   uint16
		length int
	}{"to": {unix.FRA_DST, 1}, "from": {unix.FRA_SRC, 2}} {
		if ip, ok := netip.AddrFromSlice(attributes[from.kind]); ok {
			r.fields[field] = model.Text(netip.PrefixFrom(ip, int(b[from.length])).String())
		}
	}
	for field, kind := range map[model.Field]uint16{"iif": unix.FRA_IIFNAME, "oif": unix.FRA_OIFNAME} {
		if name, ok := attributes[kind]; ok {
			r.fields[field] = model.Text(rtnl.Text(name))
		}
	}
	mark, marked := attributes[unix.FRA_FWMARK]
	mask, masked := attributes[unix.FRA_FWMASK]
	if marked || masked {
		m := uint64(allBits)
		if masked {
			m = rtnl.Uint(mask)
		}
		if rtnl.Uint(mark) != 0 || m != 0 {
			r.fields["mark"] = model.Text(fmt.Sprintf("0x%x/0x%x", rtnl.Uint(mark), m))
		}
	}
	if n, ok := attributes[unix.FRA_SUPPRESS_PREFIXLEN]; ok && rtnl.Uint(n) != math.MaxUint32 {
		r.fields["suppress_prefixlength"] = model.Uint(rtnl.Uint(n))
	}
	return r, true
}

// rules lists those of both families but the three that a namespace is born with.
func (n *namespace) rules() (list []rule, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		head := make([]byte, ruleLength)
		head[0] = family
		messages, err := n.conn.Dump(unix.RTM_GETRULE, head)
		if missingFamily(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if r, ok := parseRule(m); ok && r.family == family && r.priority != 0 && r.priority != 32766 && r.priority != 32767 {
				list = append(list, r)
			}
		}
	}
	return list, nil
}

func (r rule) id(netns string) model.ID {
	family := "4"
	if r.family == unix.AF_INET6 {
		family = "6"
	}
	return model.RuleID(netns, family, strconv.FormatUint(uint64(r.priority), 10))
}

func (w *work) ruleRequest() ([]byte, error) {
	words := w.step.ID.Words() // netns, family, priority
	priority, err := strconv.ParseUint(words[2], 10, 32)
	if err != nil {
		return nil, err
	}
	fields := w.step.Fields
	head := make([]byte, ruleLength)
	head[0] = unix.AF_INET
	if words[1] == "6" {
		head[0] = unix.AF_INET6
	}
	if fields["not"].Bool() {
		binary.NativeEndian.PutUint32(head[ruleFlags:], ruleInvert)
	}
	action := fields["action"]
	if action == "" {
		action = "lookup"
	}
	b, err := named(1, ruleActions).encode(action)
	if err != nil {
		return nil, err
	}
	head[ruleAction] = b[0]
	var a rtnl.Attributes
	if err := putRulePrefixes(&a, head, fields); err != nil {
		return nil, err
	}
	a.Uint32(unix.FRA_PRIORITY, uint32(priority))
	if protocol := w.protocol(); protocol != unix.RTPROT_UNSPEC {
		a.Uint8(unix.FRA_PROTOCOL, protocol)
	}
	if action == "lookup" {
		table := fields["table"].Uint()
		if table < 256 {
			head[4] = byte(table)
		}
		a.Uint32(unix.FRA_TABLE, uint32(table))
	}
	if name := fields["iif"]; name != "" {
		a.String(unix.FRA_IIFNAME, string(name))
	}
	if name := fields["oif"]; name != "" {
		a.String(unix.FRA_OIFNAME, string(name))
	}
	if text := string(fields["mark"]); text != "" {
		markText, maskText, _ := strings.Cut(text, "/")
		mark, errMark := strconv.ParseUint(markText, 0, 32)
		mask, errMask := strconv.ParseUint(maskText, 0, 32)
		if err := errors.Join(errMark, errMask); err != nil {
			return nil, fmt.Errorf("mark: %w", err)
		}
		a.Uint32(unix.FRA_FWMARK, uint32(mark))
		a.Uint32(unix.FRA_FWMASK, uint32(mask))
	}
	if n, ok := fields["suppress_prefixlength"]; ok && n != "" {
		a.Uint32(unix.FRA_SUPPRESS_PREFIXLEN, uint32(n.Uint()))
	}
	return append(head, a.Bytes()...), nil
}

func putRulePrefixes(a *rtnl.Attributes, head []byte, fields model.Fields) error {
	for _, side := range []struct {
		field  model.Field
		kind   uint16
		length int
	}{{"to", unix.FRA_DST, 1}, {"from", unix.FRA_SRC, 2}} {
		text := fields[side.field]
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", side.field, err)
		}
		head[side.length] = byte(p.Bits())
		a.Put(side.kind, p.Masked().Addr().AsSlice())
	}
	return nil
}

func createRule(w *work) (apply.Done, error) {
	request, err := w.ruleRequest()
	if err != nil {
		return apply.Done{}, err
	}
	return apply.Done{}, w.ns.conn.Do(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, request)
}

func deleteRule(w *work) (apply.Done, error) {
	request, err := w.ruleRequest()
	if err != nil {
		return apply.Done{}, err
	}
	err = w.ns.conn.Do(unix.RTM_DELRULE, 0, request)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return apply.Done{}, err
}
