package model

import (
	"time"

	"culvert/setup/spec"
)

func (x *expansion) shaping() {
	for i := range x.spec.Shaping {
		s := &x.spec.Shaping[i]
		if s.Qdisc != nil {
			x.rootQdisc(s.Qdisc, s.Place, x.refs[s.IngressTo])
		}
		if s.Egress != nil {
			x.rootQdisc(s.Egress, s.Place, x.refs[s.Source])
		}
	}
	for i := range x.spec.Shaping {
		s := &x.spec.Shaping[i]
		if s.IngressTo != "" {
			x.redirect(s.Place, x.refs[s.Source], x.refs[s.IngressTo])
		}
	}
}

// redirect sends what comes in by a device out by another.
func (x *expansion) redirect(p spec.Place, from, to Ref) {
	ingress := QdiscID(from, "ingress")
	x.add(Item{ID: ingress, Place: p, Type: "ingress", Fields: Fields{"kind": "ingress", "handle": "ffff:"}, Needs: []ID{LinkID(from)}})
	i := Item{ID: FilterID(from, "ingress", FilterPriority), Place: p, Label: "redirect to " + string(to),
		Fields: Fields{"kind": "u32", "redirect": Link(to), "handle": FilterHandle},
		Needs:  []ID{ingress, LinkID(to)}, NeedsUp: []ID{LinkID(to)}}
	// What is to limit it must be there before.
	for _, parent := range []string{"root", (QdiscHandle | 1).String()} {
		if id := QdiscID(to, parent); x.types[to] == spec.TypeIfb {
			if _, ok := x.at[id]; ok {
				i.Needs = append(i.Needs, id)
			}
		}
	}
	x.add(i)
}

func (x *expansion) rootQdisc(q *spec.Qdisc, p spec.Place, r Ref) {
	if len(q.Place.Path) > 0 || q.Place.Origin != (spec.Origin{}) {
		p = q.Place
	}
	root := QdiscID(r, "root")
	x.add(Item{ID: root, Place: p, Type: q.Kind(), Label: q.Kind(), Fields: x.qdiscFields(q, QdiscHandle), Needs: []ID{LinkID(r)}})
	h := q.HTB
	if h == nil {
		return
	}
	class := QdiscHandle | 1
	f := fields{"kind": "htb", "parent": Text(QdiscHandle.String()), "rate": Rate(h.Rate), "ceil": Rate(h.Rate)}
	f.rate("ceil", h.Ceil)
	f.size("burst", h.Burst)
	f.size("cburst", h.CBurst)
	id := ClassID(r, class.String())
	x.add(Item{ID: id, Place: p, Type: "htb", Fields: Fields(f), Needs: []ID{root}})
	if h.Leaf != nil {
		x.add(Item{ID: QdiscID(r, class.String()), Place: p, Type: h.Leaf.Kind(), Label: h.Leaf.Kind(), Fields: x.qdiscFields(h.Leaf, LeafHandle),
			Needs: []ID{id}})
	}
}

func (x *expansion) qdiscFields(q *spec.Qdisc, handle spec.Handle) Fields {
	f := fields{"kind": Text(q.Kind()), "handle": Text(handle.String())}
	switch {
	case q.SFQ != nil:
		f.time("perturb", q.SFQ.Perturb)
		f.size("quantum", q.SFQ.Quantum)
		number(f, "limit", q.SFQ.Limit)
		number(f, "divisor", q.SFQ.Divisor)
	case q.HTB != nil:
		f["default"] = "1"
	case q.TBF != nil:
		t := q.TBF
		f["rate"], f["burst"], f["limit"] = Rate(t.Rate), Bytes(t.Burst), Bytes(tbfLimit(t))
		f.rate("peak", t.Peak)
		f.size("mtu", t.MTU)
	case q.FQCodel != nil:
		c := q.FQCodel
		number(f, "limit", c.Limit)
		number(f, "flows", c.Flows)
		f.time("target", c.Target)
		f.time("interval", c.Interval)
		f.size("quantum", c.Quantum)
		f.yes("ecn", c.ECN)
		f.size("memory", c.Memory)
	case q.Cake != nil:
		cakeFields(f, q.Cake)
	}
	return Fields(f)
}

// tbfLimit turns a latency into the bytes that may wait, as tc-tbf(8) does: what the rate takes away in that time, and a burst.
func tbfLimit(t *spec.TBF) spec.Size {
	if t.Limit != nil {
		return *t.Limit
	}
	latency := 50 * time.Millisecond
	if t.Latency != nil {
		latency = *t.Latency
	}
	waiting := func(rate spec.BitRate, burst spec.Size) spec.Size {
		return spec.Size(float64(rate)/8*latency.Seconds()) + burst
	}
	limit := waiting(t.Rate, t.Burst)
	if t.Peak != nil && t.MTU != nil {
		limit = min(limit, waiting(*t.Peak, *t.MTU))
	}
	return limit
}

func cakeFields(f fields, c *spec.Cake) {
	f.rate("bandwidth", c.Bandwidth)
	f.time("rtt", c.RTT)
	f.text("diffserv", c.Diffserv)
	f.text("flow_mode", c.FlowMode)
	f.yes("nat", c.NAT)
	f.yes("wash", c.Wash)
	f.text("ack_filter", c.AckFilter)
	if c.Overhead != nil {
		f["overhead"] = Int(*c.Overhead)
	}
	number(f, "mpu", c.MPU)
	f.text("atm", c.ATM)
	f.size("memory", c.Memory)
	f.yes("ingress", c.Ingress)
	f.yes("split_gso", c.SplitGSO)
}
