package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
	"culvert/setup/spec"
)

// Attributes of linux/rtnetlink.h.
const (
	tcaKind    = 1
	tcaOptions = 2
)

// discipline is a kind of queueing discipline: how its options become fields and back.
type discipline struct {
	read func(options []byte, fields model.Fields)
	// write returns the options for these fields. Where whole is set a change sends them all, as the kernel keeps nothing that is not
	// in the request.
	write func(fields model.Fields) ([]byte, error)
	whole bool
}

var disciplines = map[string]discipline{
	"ingress": {read: func([]byte, model.Fields) {}, write: func(model.Fields) ([]byte, error) { return nil, nil }},
	"htb":     {read: readHTB, write: writeHTB},
	"sfq":     {read: readSFQ, write: writeSFQ},
	"tbf":     {read: readTBF, write: writeTBF, whole: true},
	"fq_codel": tableDiscipline([]attribute{
		{"target", 1, codelTime()},
		{"limit", 2, number(4)},
		{"interval", 3, codelTime()},
		{"ecn", 4, truth(4)},
		{"flows", 5, number(4)},
		{"quantum", 6, byteCount(4)},
		{"memory", 9, byteCount(4)},
	}),
	"cake": tableDiscipline([]attribute{
		{"bandwidth", 2, byteRate()},
		{"diffserv", 3, named(4, names{"diffserv3": 0, "diffserv4": 1, "diffserv8": 2, "besteffort": 3, "precedence": 4})},
		{"atm", 4, named(4, names{"noatm": 0, "atm": 1, "ptm": 2})},
		{"flow_mode", 5, named(4, names{"flowblind": 0, "srchost": 1, "dsthost": 2, "hosts": 3, "flows": 4, "dual-srchost": 5,
			"dual-dsthost": 6, "triple-isolate": 7})},
		{"overhead", 6, signed()},
		{"rtt", 7, duration(time.Microsecond)},
		{"memory", 10, byteCount(4)},
		{"nat", 11, truth(4)},
		{"wash", 13, truth(4)},
		{"mpu", 14, number(4)},
		{"ingress", 15, truth(4)},
		{"ack_filter", 16, named(4, names{"no-ack-filter": 0, "ack-filter": 1, "ack-filter-aggressive": 2})},
		{"split_gso", 17, truth(4)},
	}),
}

// tableDiscipline is one whose options are attributes of a field each.
func tableDiscipline(table []attribute) discipline {
	return discipline{
		read: func(options []byte, fields model.Fields) { decodeFields(table, rtnl.Parse(options), fields) },
		write: func(fields model.Fields) ([]byte, error) {
			var a rtnl.Attributes
			err := encodeFields(table, fields, &a)
			return a.Bytes(), err
		},
	}
}

// size64 and rate64 are the canonical texts of bytes, and of bytes per second.
func size64(n uint64) model.Value { return model.Bytes(spec.Size(n)) }
func rate64(n uint64) model.Value { return model.Rate(spec.BitRate(n * 8)) }

// bytesPerSecond is a rate as the kernel counts it.
func bytesPerSecond(v model.Value) uint64 { return uint64(v.Rate()) / 8 }

// byteRate is a rate of eight bytes in bytes per second.
func byteRate() codec {
	return codec{
		func(v model.Value) ([]byte, error) { return sized(bytesPerSecond(v), 8), nil },
		func(b []byte) (model.Value, bool) { return rate64(rtnl.Uint(b)), true },
	}
}

const (
	htbInit    = 2  // TCA_HTB_INIT
	htbGlobal  = 20 // length of struct tc_htb_glob
	htbVersion = 3
	htbQuantum = 10 // rate2quantum
)

func readHTB(options []byte, fields model.Fields) {
	if global := rtnl.Parse(options)[htbInit]; len(global) >= htbGlobal {
		fields["default"] = model.Uint(binary.NativeEndian.Uint32(global[8:]))
	}
}

func writeHTB(fields model.Fields) ([]byte, error) {
	b := make([]byte, htbGlobal)
	binary.NativeEndian.PutUint32(b, htbVersion)
	binary.NativeEndian.PutUint32(b[4:], htbQuantum)
	binary.NativeEndian.PutUint32(b[8:], uint32(fields["default"].Uint()))
	var a rtnl.Attributes
	a.Put(htbInit, b)
	return a.Bytes(), nil
}

// sfqLength is the length of struct tc_sfq_qopt: quantum in bytes, perturb in seconds, limit in packets, divisor, flows.
const sfqLength = 20

func readSFQ(b []byte, fields model.Fields) {
	if len(b) < sfqLength {
		return
	}
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
	fields["quantum"] = size64(uint64(word(0)))
	fields["perturb"] = model.Duration(time.Duration(int32(word(1))) * time.Second)
	fields["limit"] = model.Uint(word(2))
	fields["divisor"] = model.Uint(word(3))
}

func writeSFQ(fields model.Fields) ([]byte, error) {
	b := make([]byte, sfqLength)
	binary.NativeEndian.PutUint32(b, uint32(fields["quantum"].Bytes()))
	binary.NativeEndian.PutUint32(b[4:], uint32(fields["perturb"].Duration()/time.Second))
	binary.NativeEndian.PutUint32(b[8:], uint32(fields["limit"].Uint()))
	binary.NativeEndian.PutUint32(b[12:], uint32(fields["divisor"].Uint()))
	return b, nil
}

// Attributes and structs of linux/pkt_sched.h for tbf and htb.
const (
	rateLength = 12 // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate

	tbfParms  = 1
	tbfRate64 = 4
	tbfPeak64 = 5
	tbfLength = 2*rateLength + 12 // rate, peakrate, limit, buffer, mtu

	linkLayerEthernet = 1 // without a table of times, which the kernel does not need
)

// putRate writes a struct tc_ratespec for a rate in bytes per second.
func putRate(b []byte, rate uint64) {
	b[1] = linkLayerEthernet
	binary.NativeEndian.PutUint32(b[8:], uint32(min(rate, math.MaxUint32)))
}

// rateOf reads one, with the attribute that holds what is above 32 bits.
func rateOf(b, wide []byte) uint64 {
	if r := rtnl.Uint(wide); r != 0 {
		return r
	}
	return uint64(binary.NativeEndian.Uint32(b[8:]))
}

func readTBF(options []byte, fields model.Fields) {
	attributes := rtnl.Parse(options)
	p := attributes[tbfParms]
	if len(p) < tbfLength {
		return
	}
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(p[2*rateLength+4*i:]) }
	rate, peak := rateOf(p, attributes[tbfRate64]), rateOf(p[rateLength:], attributes[tbfPeak64])
	fields["rate"] = rate64(rate)
	fields["limit"] = size64(uint64(word(0)))
	fields["burst"] = model.Bytes(model.BucketSize(word(1), spec.BitRate(rate*8)))
	if peak != 0 {
		fields["peak"] = rate64(peak)
		fields["mtu"] = model.Bytes(model.BucketSize(word(2), spec.BitRate(peak*8)))
	}
}

func writeTBF(fields model.Fields) ([]byte, error) {
	rate, burst := bytesPerSecond(fields["rate"]), uint64(fields["burst"].Bytes())
	peak, mtu := bytesPerSecond(fields["peak"]), uint64(fields["mtu"].Bytes())
	if rate == 0 || burst == 0 {
		return nil, fmt.Errorf("rate %s and burst %s: both are needed: %w", fields["rate"], fields["burst"], unix.EINVAL)
	}
	p := make([]byte, tbfLength)
	putRate(p, rate)
	binary.NativeEndian.PutUint32(p[2*rateLength:], uint32(fields["limit"].Bytes()))
	binary.NativeEndian.PutUint32(p[2*rateLength+4:], model.BucketTicks(spec.Size(burst), fields["rate"].Rate()))
	var a rtnl.Attributes
	if peak != 0 {
		putRate(p[rateLength:], peak)
		binary.NativeEndian.PutUint32(p[2*rateLength+8:], model.BucketTicks(spec.Size(mtu), fields["peak"].Rate()))
	}
	a.Put(tbfParms, p)
	if rate > math.MaxUint32 {
		a.Uint64(tbfRate64, rate)
	}
	if peak > math.MaxUint32 {
		a.Uint64(tbfPeak64, peak)
	}
	// Without the depths in bytes (TCA_TBF_BURST) the kernel shows the times as they are here.
	return a.Bytes(), nil
}

// qdisc is a queueing discipline as the kernel shows it.
type qdisc struct {
	rtnl.TC
	kind    string
	options []byte
}

// qdiscs lists those of every device of the namespace that somebody made: the kernel's own have no handle.
func (n *namespace) qdiscs() (list []qdisc, err error) {
	messages, err := n.conn.Dump(unix.RTM_GETQDISC, rtnl.TC{}.Head().Bytes())
	for _, m := range messages {
		head, attributes, ok := rtnl.ParseTC(m)
		if !ok || head.Handle == 0 {
			continue
		}
		list = append(list, qdisc{head, rtnl.Text(attributes[tcaKind]), attributes[tcaOptions]})
	}
	return list, err
}

// parentText is where a queueing discipline is, as in its ID.
func parentText(parent uint32) string {
	switch parent {
	case rtnl.ParentRoot:
		return "root"
	case rtnl.ParentIngress:
		return "ingress"
	}
	return spec.Handle(parent).String()
}

func parseParent(text string) (uint32, error) {
	switch text {
	case "root":
		return rtnl.ParentRoot, nil
	case "ingress":
		return rtnl.ParentIngress, nil
	}
	h, err := spec.ParseHandle(text)
	return uint32(h), err
}

func (q qdisc) fields() model.Fields {
	f := model.Fields{"kind": model.Text(q.kind), "handle": model.Text(spec.Handle(q.Handle).String())}
	if d, ok := disciplines[q.kind]; ok {
		d.read(q.options, f)
	}
	return f
}

// ours reports whether the handle is one that culvert gives.
func (q qdisc) ours() bool {
	h := spec.Handle(q.Handle)
	return h == model.QdiscHandle || h == model.LeafHandle
}

// tcRequest is the message about the step's queueing discipline, with the options of these fields if any.
func (w *work) tcRequest(l *link, kind string, fields model.Fields, whole model.Fields) ([]byte, error) {
	parent, err := parseParent(w.step.ID.Words()[1])
	if err != nil {
		return nil, err
	}
	head := rtnl.TC{Index: l.index, Parent: parent}
	if h, ok := whole["handle"]; ok {
		handle, err := spec.ParseHandle(string(h))
		if err != nil {
			return nil, err
		}
		head.Handle = uint32(handle)
	}
	a := head.Head()
	a.String(tcaKind, kind)
	if fields == nil {
		return a.Bytes(), nil
	}
	d, ok := disciplines[kind]
	if !ok {
		return nil, fmt.Errorf("queueing discipline %q: %w", kind, errors.ErrUnsupported)
	}
	options, err := d.write(fields)
	if err != nil {
		return nil, err
	}
	if len(options) > 0 {
		a.Put(tcaOptions, options)
	}
	return a.Bytes(), nil
}

func createQdisc(w *work) (apply.Done, error) {
	l, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	request, err := w.tcRequest(l, string(w.step.Fields["kind"]), w.step.Fields, w.step.Fields)
	if err != nil {
		return apply.Done{}, err
	}
	return apply.Done{Index: l.index}, w.ns.conn.Do(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, request)
}

// qdisc finds the step's; nil where there is none.
func (w *work) qdisc(l *link) (*qdisc, error) {
	parent, err := parseParent(w.step.ID.Words()[1])
	if err != nil {
		return nil, err
	}
	messages, err := w.ns.conn.Dump(unix.RTM_GETQDISC, rtnl.TC{Index: l.index}.Head().Bytes())
	for _, m := range messages {
		head, attributes, ok := rtnl.ParseTC(m)
		if ok && head.Index == l.index && head.Parent == parent && head.Handle != 0 {
			return &qdisc{head, rtnl.Text(attributes[tcaKind]), attributes[tcaOptions]}, nil
		}
	}
	return nil, err
}

func changeQdisc(w *work) (apply.Done, error) {
	l, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	have, err := w.qdisc(l)
	if err == nil && have == nil {
		err = unix.ENOENT
	}
	if err != nil {
		return apply.Done{}, err
	}
	fields := changed(w.step.Changes)
	all := have.fields()
	if disciplines[have.kind].whole {
		for f, v := range fields {
			all[f] = v
		}
		fields = all
	}
	request, err := w.tcRequest(l, have.kind, fields, model.Fields{"handle": all["handle"]})
	if err == nil {
		err = w.ns.conn.Do(unix.RTM_NEWQDISC, 0, request)
	}
	return apply.Done{Index: l.index}, about(w.step.Changes, err)
}

// changed are the new values by field.
func changed(changes []plan.FieldChange) model.Fields {
	fields := make(model.Fields, len(changes))
	for _, c := range changes {
		fields[c.Field] = c.New
	}
	return fields
}

// about names the field where only one was to change.
func about(changes []plan.FieldChange, err error) error {
	if err != nil && len(changes) == 1 {
		return &fieldError{changes[0], err}
	}
	return err
}

// deleteQdisc deletes a queueing discipline that has the handle it should have. An ingress with somebody's classifier stays.
func deleteQdisc(w *work) (apply.Done, error) {
	l, err := w.link()
	if err != nil || l == nil {
		return apply.Done{}, err
	}
	have, err := w.qdisc(l)
	if err != nil || have == nil {
		return apply.Done{}, err
	}
	if want := w.step.Fields["handle"]; want != "" && want != have.fields()["handle"] || want == "" && have.kind != "ingress" && !have.ours() {
		return apply.Done{}, fmt.Errorf("there is %s %s: %w", have.kind, spec.Handle(have.Handle), unix.ESTALE)
	}
	if have.kind == "ingress" {
		filters, err := rtnl.Filters(w.ns.conn, l.index)
		if err != nil {
			return apply.Done{}, err
		}
		if slices.ContainsFunc(filters, func(f rtnl.Filter) bool { return !isOurs(f) }) {
			return apply.Done{}, fmt.Errorf("it has a classifier that culvert did not make: %w", unix.EBUSY)
		}
	}
	request, err := w.tcRequest(l, have.kind, nil, model.Fields{"handle": have.fields()["handle"]})
	if err == nil {
		err = w.ns.conn.Do(unix.RTM_DELQDISC, 0, request)
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return apply.Done{}, err
}
