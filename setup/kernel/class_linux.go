package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/rtnl"
	"culvert/setup/spec"
)

// Attributes and struct tc_htb_opt of linux/pkt_sched.h: rate, ceil, buffer, cbuffer, quantum, level, prio.
const (
	htbParms  = 1
	htbRate64 = 6
	htbCeil64 = 7
	htbLength = 2*rateLength + 20
)

// class is a class of htb.
type class struct {
	rtnl.TC
	kind    string
	options []byte
}

// classes lists those of a device.
func (n *namespace) classes(index int) (list []class, err error) {
	messages, err := n.conn.Dump(unix.RTM_GETTCLASS, rtnl.TC{Index: index}.Head().Bytes())
	for _, m := range messages {
		head, attributes, ok := rtnl.ParseTC(m)
		if ok && rtnl.Text(attributes[tcaKind]) == "htb" {
			list = append(list, class{head, "htb", attributes[tcaOptions]})
		}
	}
	return list, err
}

func (c class) fields() model.Fields {
	parent := spec.Handle(c.Parent)
	if c.Parent == rtnl.ParentRoot {
		parent = spec.Handle(c.Handle) &^ 0xffff // of the root itself, which is said to be none
	}
	f := model.Fields{"kind": model.Text(c.kind), "parent": model.Text(parent.String())}
	attributes := rtnl.Parse(c.options)
	p := attributes[htbParms]
	if len(p) < htbLength {
		return f
	}
	rate, ceil := rateOf(p, attributes[htbRate64]), rateOf(p[rateLength:], attributes[htbCeil64])
	f["rate"], f["ceil"] = rate64(rate), rate64(ceil)
	f["burst"] = model.Bytes(model.BucketSize(binary.NativeEndian.Uint32(p[2*rateLength:]), spec.BitRate(rate*8)))
	f["cburst"] = model.Bytes(model.BucketSize(binary.NativeEndian.Uint32(p[2*rateLength+4:]), spec.BitRate(ceil*8)))
	return f
}

// defaultBurst is the depth of a bucket of which none is declared: what the rate brings in a millisecond, and a frame.
func defaultBurst(rate uint64) spec.Size {
	const frame = 1600
	return spec.Size(rate/1000 + frame)
}

// classOptions are those of a class with these fields.
func classOptions(f model.Fields) ([]byte, error) {
	rate, ceil := bytesPerSecond(f["rate"]), bytesPerSecond(f["ceil"])
	if ceil == 0 {
		ceil = rate
	}
	if rate == 0 {
		return nil, fmt.Errorf("its rate is missing: %w", unix.EINVAL)
	}
	burst, cburst := f["burst"].Bytes(), f["cburst"].Bytes()
	if burst == 0 {
		burst = defaultBurst(rate)
	}
	if cburst == 0 {
		cburst = defaultBurst(ceil)
	}
	p := make([]byte, htbLength)
	putRate(p, rate)
	putRate(p[rateLength:], ceil)
	word := func(i int, v uint32) { binary.NativeEndian.PutUint32(p[2*rateLength+4*i:], v) }
	word(0, model.BucketTicks(burst, spec.BitRate(rate*8)))
	word(1, model.BucketTicks(cburst, spec.BitRate(ceil*8)))
	// How much it sends at a time where classes compete; the kernel warns of what it would choose for high rates.
	word(2, uint32(min(max(rate/htbQuantum, 1514), 200000)))
	var a rtnl.Attributes
	a.Put(htbParms, p)
	if rate > math.MaxUint32 {
		a.Uint64(htbRate64, rate)
	}
	if ceil > math.MaxUint32 {
		a.Uint64(htbCeil64, ceil)
	}
	return a.Bytes(), nil
}

func (w *work) classHead(l *link, parent model.Value) (*rtnl.Attributes, error) {
	handle, err := spec.ParseHandle(w.step.ID.Words()[1])
	if err != nil {
		return nil, err
	}
	head := rtnl.TC{Index: l.index, Handle: uint32(handle)}
	if parent != "" {
		p, err := spec.ParseHandle(string(parent))
		if err != nil {
			return nil, err
		}
		head.Parent = uint32(p)
	}
	a := head.Head()
	a.String(tcaKind, "htb")
	return a, nil
}

func createClass(w *work) (apply.Done, error) {
	l, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	return apply.Done{Index: l.index}, w.putClass(l, w.step.Fields, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

func (w *work) putClass(l *link, fields model.Fields, flags uint16) error {
	a, err := w.classHead(l, fields["parent"])
	if err != nil {
		return err
	}
	options, err := classOptions(fields)
	if err != nil {
		return err
	}
	a.Nest(tcaOptions, func(a *rtnl.Attributes) { a.Raw(options) })
	return w.ns.conn.Do(unix.RTM_NEWTCLASS, flags, a.Bytes())
}

// class finds the step's; nil where there is none.
func (w *work) class(l *link) (*class, error) {
	handle, err := spec.ParseHandle(w.step.ID.Words()[1])
	if err != nil {
		return nil, err
	}
	list, err := w.ns.classes(l.index)
	for i := range list {
		if list[i].Handle == uint32(handle) {
			return &list[i], nil
		}
	}
	return nil, err
}

func changeClass(w *work) (apply.Done, error) {
	l, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	have, err := w.class(l)
	if err == nil && have == nil {
		err = unix.ENOENT
	}
	if err != nil {
		return apply.Done{}, err
	}
	before := have.fields()
	fields := have.fields()
	// The kernel takes all values together: what does not change is what it was, and a burst that nobody declared goes with its rate.
	for _, pair := range [][2]model.Field{{"burst", "rate"}, {"cburst", "ceil"}} {
		if before[pair[0]].Bytes() == model.BucketDepth(defaultBurst(bytesPerSecond(before[pair[1]])), before[pair[1]].Rate()) {
			delete(fields, pair[0])
		}
	}
	for f, v := range changed(w.step.Changes) {
		fields[f] = v
	}
	return apply.Done{Index: l.index}, about(w.step.Changes, w.putClass(l, fields, 0))
}

func deleteClass(w *work) (apply.Done, error) {
	l, err := w.link()
	if err != nil || l == nil {
		return apply.Done{}, err
	}
	have, err := w.class(l)
	if err != nil || have == nil {
		return apply.Done{}, err
	}
	a, err := w.classHead(l, "")
	if err != nil {
		return apply.Done{}, err
	}
	err = w.ns.conn.Do(unix.RTM_DELTCLASS, 0, a.Bytes())
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return apply.Done{}, err
}
