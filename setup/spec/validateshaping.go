package spec

import (
	"slices"
	"time"
)

func (v *validator) shaping() {
	sources := make(map[string]*Shaping)
	roots := make(map[string]string) // key of a link -> what gives it a root qdisc
	for i := range v.spec.Shaping {
		s := &v.spec.Shaping[i]
		src := v.find(s.Place, "source", s.Source)
		if s.IngressTo == "" && s.Egress == nil {
			v.add(s.Place, "", "nothing is shaped")
			v.hint("add ingress_to with a qdisc, or egress")
		}
		if s.IngressTo == "" && s.Qdisc != nil {
			v.add(s.Place, "qdisc", "it is not known where to queue what comes in")
			v.hint("add ingress_to: the ifb; what goes out is shaped by egress")
		}
		if first := sources[s.Source]; first != nil {
			v.add(s.Place, "source", "%s is shaped already", s.Source)
			v.hint("at %s", first.Origin)
		}
		sources[s.Source] = s
		if s.IngressTo != "" {
			v.ingress(s, src, roots)
		}
		if s.Egress != nil {
			v.qdisc(s.Egress, true)
			v.root(s.Place, "egress", s.Source, roots)
		}
	}
	for i := range v.spec.Shaping {
		s := &v.spec.Shaping[i]
		if s.IngressTo != "" && s.Qdisc == nil && roots[s.IngressTo] == "" && v.links[s.IngressTo] != nil {
			v.add(s.Place, "", "what comes in is sent to %s, but nothing is queued there", s.IngressTo)
			v.hint("add a qdisc")
		}
	}
}

func (v *validator) root(p Place, field, link string, roots map[string]string) {
	if first := roots[link]; first != "" {
		v.add(p, field, "%s has a queueing discipline already, from %s", link, first)
		return
	}
	roots[link] = p.Key(field)
}

func (v *validator) ingress(s *Shaping, src *node, roots map[string]string) {
	if s.Qdisc != nil {
		v.qdisc(s.Qdisc, true)
		v.root(s.Place, "qdisc", s.IngressTo, roots)
	}
	to := v.find(s.Place, "ingress_to", s.IngressTo)
	if to == nil || src == nil {
		return
	}
	switch {
	case to.typ != TypeIfb:
		v.add(s.Place, "ingress_to", "%s is %s, what comes in is queued on an ifb", s.IngressTo, to.article())
	case src.typ == TypeIfb:
		v.add(s.Place, "source", "%s is an ifb, nothing comes in by it", s.Source)
	case to.netns != src.netns:
		v.add(s.Place, "ingress_to", "%s is in %s, its source %s in %s", s.IngressTo, inNetns(to.netns), s.Source, inNetns(src.netns))
	}
}

func (v *validator) qdisc(q *Qdisc, root bool) {
	kinds := 0
	for _, set := range []bool{q.SFQ != nil, q.HTB != nil, q.TBF != nil, q.FQCodel != nil, q.Cake != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		v.add(q.Place, "", "exactly one queueing discipline must be named")
		v.hint("one of sfq, htb, tbf, fq_codel, cake")
		return
	}
	p := q.Place
	switch {
	case q.SFQ != nil:
		v.between(p, "sfq.perturb", q.SFQ.Perturb, 0, time.Hour, time.Second)
		if d := q.SFQ.Divisor; d != nil && (*d == 0 || *d&(*d-1) != 0 || *d > 65536) {
			v.add(p, "sfq.divisor", "%d is not a power of two up to 65536", *d)
		}
		if l := q.SFQ.Limit; l != nil && (*l == 0 || *l > 65535) {
			v.add(p, "sfq.limit", "%d packets are not within 1 to 65535", *l)
		}
	case q.HTB != nil:
		h := q.HTB
		if !root {
			v.add(p, "htb", "the leaf of an htb cannot be an htb")
		}
		v.rate(p, "htb.rate", h.Rate)
		if h.Ceil != nil && *h.Ceil < h.Rate {
			v.add(p, "htb.ceil", "the ceiling %v is below the rate %v", *h.Ceil, h.Rate)
		}
		if h.Leaf != nil && root {
			v.qdisc(h.Leaf, false)
		}
	case q.TBF != nil:
		v.tbf(p, q.TBF)
	case q.FQCodel != nil:
		f := q.FQCodel
		v.between(p, "fq_codel.target", f.Target, time.Microsecond, time.Minute, time.Microsecond)
		v.between(p, "fq_codel.interval", f.Interval, time.Microsecond, time.Minute, time.Microsecond)
		if n := f.Flows; n != nil && (*n == 0 || *n > 65536) {
			v.add(p, "fq_codel.flows", "%d flows are not within 1 to 65536", *n)
		}
	case q.Cake != nil:
		c := q.Cake
		if c.Bandwidth != nil {
			v.rate(p, "cake.bandwidth", *c.Bandwidth)
		}
		v.between(p, "cake.rtt", c.RTT, time.Microsecond, time.Hour, time.Microsecond)
		v.oneOf(p, "cake.diffserv", c.Diffserv, "besteffort", "precedence", "diffserv3", "diffserv4", "diffserv8")
		v.oneOf(p, "cake.flow_mode", c.FlowMode, "flowblind", "srchost", "dsthost", "hosts", "flows", "dual-srchost", "dual-dsthost",
			"triple-isolate")
		v.oneOf(p, "cake.ack_filter", c.AckFilter, "no-ack-filter", "ack-filter", "ack-filter-aggressive")
		v.oneOf(p, "cake.atm", c.ATM, "noatm", "atm", "ptm")
		if o := c.Overhead; o != nil && (*o < -64 || *o > 256) {
			v.add(p, "cake.overhead", "%d bytes are not within -64 to 256", *o)
		}
		if m := c.MPU; m != nil && *m > 256 {
			v.add(p, "cake.mpu", "%d bytes are not within 0 to 256", *m)
		}
	}
}

// rate refuses what the kernel, which counts bytes, would take for zero.
func (v *validator) rate(p Place, field string, r BitRate) {
	if r < 8 {
		v.add(p, field, "the rate %v is below one byte per second", r)
	}
}

func (v *validator) tbf(p Place, t *TBF) {
	v.rate(p, "tbf.rate", t.Rate)
	if t.Burst == 0 {
		v.add(p, "tbf.burst", "a tbf needs a burst")
		v.hint("at least the MTU, and about rate/100 bytes")
	}
	if t.Limit != nil && t.Latency != nil {
		v.add(p, "tbf.limit", "limit and latency say the same, only one of them can be given")
	}
	if t.Limit != nil && *t.Limit == 0 {
		v.add(p, "tbf.limit", "with a limit of 0 nothing passes")
	}
	if t.Latency != nil {
		v.between(p, "tbf.latency", t.Latency, time.Microsecond, time.Minute, time.Microsecond)
	}
	if t.Peak != nil {
		if *t.Peak <= t.Rate {
			v.add(p, "tbf.peak", "the peak %v is not above the rate %v", *t.Peak, t.Rate)
		}
		if t.MTU == nil || *t.MTU == 0 {
			v.add(p, "tbf.mtu", "a peak needs the size of its bucket")
		}
	} else if t.MTU != nil {
		v.add(p, "tbf.mtu", "it is the size of the peak's bucket, and there is no peak")
	}
}

func (v *validator) xconnects() {
	used := make(map[string]string)
	for i := range v.spec.XConnects {
		x := &v.spec.XConnects[i]
		a, b := v.find(x.Place, "a", x.A), v.find(x.Place, "b", x.B)
		for _, end := range []struct {
			field string
			n     *node
		}{{"a", a}, {"b", b}} {
			n := end.n
			if n == nil {
				continue
			}
			if first := used[n.key]; first != "" && x.A != x.B {
				v.add(x.Place, end.field, "%s is joined with another already, at %s", n.key, first)
			}
			used[n.key] = x.Path
			if !n.ethernet() {
				v.add(x.Place, end.field, "%s is a tun, a cross-connection carries Ethernet frames", n.key)
			}
			if m := v.master[n.key]; m != "" {
				v.add(x.Place, end.field, "%s is a port of %s, which would see no frame of it", n.key, m)
			}
			if slices.ContainsFunc(v.spec.Shaping, func(s Shaping) bool { return s.Source == n.key && s.IngressTo != "" }) {
				v.add(x.Place, end.field, "what comes in by %s is sent to an ifb already", n.key)
			}
		}
		switch {
		case a == nil || b == nil:
		case a == b:
			v.add(x.Place, "b", "%s cannot be joined with itself", x.A)
		case a.netns != b.netns:
			v.add(x.Place, "b", "%s is in %s, %s in %s", x.A, inNetns(a.netns), x.B, inNetns(b.netns))
			v.hint("lead one of them there with a veth")
		}
	}
}
