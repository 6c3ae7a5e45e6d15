package main

import (
	"container/heap"
	"slices"
)

// clause says that the hypotheses, where no two terms of a pair in neq are equal, imply the conclusion.
type clause struct {
	hyps  []*term
	concl *term
	neq   [][2]*term
	nvars int
	size  int
	// sel is the hypothesis to resolve upon, or -1: the conclusion.
	sel      int
	features uint64
	dead     bool
	from     [2]*clause
	serial   int
}

// normalise numbers the variables from 0, in order of their occurrence.
func (c *clause) normalise() {
	s := map[int]*term{}
	var rename func(t *term) *term
	rename = func(t *term) *term {
		if t.sym == nil {
			if s[t.v] == nil {
				s[t.v] = variable(len(s))
			}
			return s[t.v]
		}
		if len(t.args) == 0 {
			return t
		}
		args := make([]*term, len(t.args))
		for i, a := range t.args {
			args[i] = rename(a)
		}
		return apply(t.sym, args...)
	}
	c.concl = rename(c.concl)
	c.size = c.concl.size
	hyps := make([]*term, len(c.hyps))
	c.features = 0
	for i, h := range c.hyps {
		hyps[i] = rename(h)
		c.size += h.size
		c.features |= feature(h)
	}
	c.hyps = hyps
	neq := make([][2]*term, len(c.neq))
	for i, d := range c.neq {
		neq[i] = [2]*term{rename(d[0]), rename(d[1])}
	}
	c.neq = neq
	c.nvars = len(s)
}

// feature is a bit for the two topmost symbols of a hypothesis; none where a variable might hide one.
func feature(h *term) uint64 {
	if h.sym.attacker {
		if h.args[0].sym == nil {
			return 0
		}
		return 1 << (hashName(h.args[0].sym.name) % 64)
	}
	return 1 << (hashName(h.sym.name) % 64)
}

func hashName(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

func openHyp(h *term) bool {
	return h.sym.blocking || h.sym.attacker && h.args[0].sym == nil
}

func (c *clause) choose() {
	c.sel = -1
	best := -1
	for i, h := range c.hyps {
		if openHyp(h) {
			continue
		}
		w := h.sym.rank*1000000 + h.size
		if h.sym.attacker && h.args[0].sym.fresh {
			w += 500000 // mostly a dead end: no need to look at the others
		}
		if w > best {
			best, c.sel = w, i
		}
	}
}

// simplify splits what is said of tuples and leaves out what is redundant. No clause: a tautology.
func (s *solver) simplify(c *clause) []*clause {
	// The conclusion's tuple.
	if c.concl.sym.attacker {
		if t := c.concl.args[0]; t.sym != nil && t.sym.tuple {
			var out []*clause
			for _, a := range t.args {
				d := *c
				d.concl = apply(c.concl.sym, a)
				out = append(out, s.simplify(&d)...)
			}
			return out
		}
	}
	var hyps []*term
	var add func(h *term)
	add = func(h *term) {
		if h.sym.attacker {
			t := h.args[0]
			if t.sym != nil && (t.sym.tuple || t.sym.composed) {
				for _, a := range t.args {
					add(apply(h.sym, a))
				}
				return
			}
		}
		for _, g := range hyps {
			if equal(g, h) {
				return
			}
		}
		hyps = append(hyps, h)
	}
	for _, h := range c.hyps {
		add(h)
	}
	for _, h := range hyps {
		if equal(h, c.concl) || h.sym.attacker && c.concl.sym.attacker && h.sym.phase <= c.concl.sym.phase && equal(h.args[0], c.concl.args[0]) {
			return nil
		}
	}
	// What follows from what else is known is no condition.
	hyps = slices.DeleteFunc(hyps, func(h *term) bool {
		return h.sym.attacker && h.args[0].sym != nil && s.derivable(h.args[0], h.sym.phase, hyps)
	})
	// Disequalities.
	var neq [][2]*term
	for _, d := range c.neq {
		if equal(d[0], d[1]) {
			return nil
		}
		if !unifiable(d[0], d[1]) {
			continue
		}
		if d[0].String() > d[1].String() {
			d[0], d[1] = d[1], d[0]
		}
		if !slices.ContainsFunc(neq, func(e [2]*term) bool { return equal(e[0], d[0]) && equal(e[1], d[1]) }) {
			neq = append(neq, d)
		}
	}
	n := map[int]int{}
	countVars(c.concl, n)
	for _, h := range hyps {
		countVars(h, n)
	}
	// A value that only has to differ from others, and that the adversary has to know at most, can be one of its own names.
	isFree := func(t *term) bool {
		return t.sym == nil && (n[t.v] == 0 || n[t.v] == 1 && slices.ContainsFunc(hyps, func(h *term) bool {
			return h.sym.attacker && h.args[0].sym == nil && h.args[0].v == t.v
		}))
	}
	neq = slices.DeleteFunc(neq, func(d [2]*term) bool { return isFree(d[0]) || isFree(d[1]) })
	inNeq := map[int]int{}
	for _, d := range neq {
		countVars(d[0], inNeq)
		countVars(d[1], inNeq)
	}
	// What the adversary must know but nothing else depends on, it can know: its own names.
	keep := hyps[:0:0]
	for _, h := range hyps {
		if h.sym.attacker && h.args[0].sym == nil {
			v := h.args[0].v
			if n[v] == 1 && inNeq[v] == 0 {
				continue
			}
			// Known in an earlier phase: known in a later one.
			if slices.ContainsFunc(hyps, func(g *term) bool { return g.sym.attacker && equal(g.args[0], h.args[0]) && g.sym.phase < h.sym.phase }) {
				continue
			}
		}
		keep = append(keep, h)
	}
	d := &clause{hyps: keep, concl: c.concl, neq: neq, from: c.from}
	d.normalise()
	d.choose()
	return []*clause{d}
}

// derivable: t, in this phase, is put together from public names, from what no hypothesis is needed for, and from
// variables that the other hypotheses say the adversary knows.
func (s *solver) derivable(t *term, phase int, hyps []*term) bool {
	if t.sym == nil {
		return slices.ContainsFunc(hyps, func(h *term) bool {
			return h.sym.attacker && h.sym.phase <= phase && h.args[0].sym == nil && h.args[0].v == t.v
		})
	}
	if t.sym.tuple || t.sym.known {
		all := true
		for _, a := range t.args {
			if all = s.derivable(a, phase, hyps); !all {
				break
			}
		}
		if all {
			return true
		}
	}
	for _, f := range s.known {
		if f.concl.sym.phase <= phase && f.concl.args[0].sym == t.sym {
			m := make([]*term, f.nvars)
			if match(m, new([]int), f.concl.args[0], t) {
				return true
			}
		}
	}
	return false
}

// What the adversary knows in one phase it knows in all later ones. There is no clause that says so: wherever
// "attacker1(t)" is wanted, "attacker0(t)" will do, in resolution and in subsumption alike.

// key is what facts are listed by: their predicate, whatever the phase.
func key(p *symbol) string {
	if p.attacker {
		return "attacker"
	}
	return p.name
}

// serves: the fact that pattern becomes is what is wanted where t is, by what is bound.
func serves(m []*term, trail *[]int, pattern, t *term) bool {
	if pattern.sym.attacker && t.sym.attacker {
		return pattern.sym.phase <= t.sym.phase && match(m, trail, pattern.args[0], t.args[0])
	}
	return match(m, trail, pattern, t)
}

// follows: the pattern's hypothesis holds where h does, by what is bound.
func follows(m []*term, trail *[]int, pattern, h *term) bool {
	if pattern.sym.attacker && h.sym.attacker {
		return h.sym.phase <= pattern.sym.phase && match(m, trail, pattern.args[0], h.args[0])
	}
	return match(m, trail, pattern, h)
}

// subsumes: every instance of d is one of c, or weaker.
func subsumes(c, d *clause) bool {
	if len(c.hyps) > len(d.hyps) || c.features&^d.features != 0 {
		return false
	}
	m := make([]*term, c.nvars)
	var trail []int
	if !serves(m, &trail, c.concl, d.concl) {
		return false
	}
	// The largest hypotheses first: they fit in the fewest ways.
	order := make([]*term, len(c.hyps))
	copy(order, c.hyps)
	slices.SortStableFunc(order, func(a, b *term) int { return b.size - a.size })
	var try func(i int) bool
	try = func(i int) bool {
		if i == len(order) {
			return neqImplied(c, d, m)
		}
		for _, h := range d.hyps {
			mark := len(trail)
			if follows(m, &trail, order[i], h) && try(i+1) {
				return true
			}
			for _, v := range trail[mark:] {
				m[v] = nil
			}
			trail = trail[:mark]
		}
		return false
	}
	return try(0)
}

func neqImplied(c, d *clause, m []*term) bool {
	s := subst{b: m}
	for _, e := range c.neq {
		l, r := instance(&s, e[0]), instance(&s, e[1])
		if l == nil || r == nil {
			return false
		}
		if !unifiable(l, r) {
			continue
		}
		if !slices.ContainsFunc(d.neq, func(f [2]*term) bool {
			return equal(f[0], l) && equal(f[1], r) || equal(f[0], r) && equal(f[1], l)
		}) {
			return false
		}
	}
	return true
}

// instance replaces the variables of a matched term once; nil if one is not matched.
func instance(s *subst, t *term) *term {
	if t.sym == nil {
		return s.get(t.v)
	}
	args := make([]*term, len(t.args))
	for i, a := range t.args {
		if args[i] = instance(s, a); args[i] == nil {
			return nil
		}
	}
	return apply(t.sym, args...)
}

type queue []*clause

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].size != q[j].size {
		return q[i].size < q[j].size
	}
	return q[i].serial < q[j].serial
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*clause)) }
func (q *queue) Pop() any {
	old := *q
	c := old[len(old)-1]
	*q = old[:len(old)-1]
	return c
}

// solver saturates clauses by resolution with free selection. What is derivable at all is then derivable by clauses
// whose conclusion is selected (Blanchet 2016, section 4.3).
type solver struct {
	queue  queue
	active map[string][]*clause // by the conclusion's predicate
	bySel  map[string][]*clause // by the selected hypothesis' predicate
	known  []*clause            // what the adversary knows without any condition
	// broken: the adversary learns a term that was taken to be put together by it alone.
	broken bool
	serial int
	steps  int
	limit  int
}

func (s *solver) add(c *clause) {
	for _, d := range s.simplify(c) {
		if s.subsumed(d) {
			continue
		}
		s.serial++
		d.serial = s.serial
		heap.Push(&s.queue, d)
	}
}

func (s *solver) subsumed(d *clause) bool {
	for _, c := range s.active[key(d.concl.sym)] {
		if !c.dead && subsumes(c, d) {
			return true
		}
	}
	return false
}

// run saturates; false: the limit of steps was reached first.
func (s *solver) run() bool {
	for s.queue.Len() > 0 {
		c := heap.Pop(&s.queue).(*clause)
		if s.subsumed(c) {
			continue
		}
		if s.steps++; s.steps > s.limit {
			return false
		}
		for _, d := range s.active[key(c.concl.sym)] {
			if !d.dead && subsumes(c, d) {
				d.dead = true
			}
		}
		if s.steps%64 == 0 {
			s.sweep()
		}
		s.active[key(c.concl.sym)] = append(s.active[key(c.concl.sym)], c)
		if len(c.hyps)+len(c.neq) == 0 && c.concl.sym.attacker && c.concl.args[0].sym != nil {
			s.known = append(s.known, c)
		}
		if t := c.concl.args; c.sel < 0 && c.concl.sym.attacker && t[0].sym != nil && t[0].sym.composed {
			for _, a := range t[0].args {
				if !s.derivable(a, c.concl.sym.phase, c.hyps) {
					s.broken = true
					return false
				}
			}
		}
		if c.sel >= 0 {
			p := key(c.hyps[c.sel].sym)
			s.bySel[p] = append(s.bySel[p], c)
			for _, r := range s.active[p] {
				if !r.dead && r.sel < 0 {
					s.resolve(r, c)
				}
			}
			continue
		}
		for _, d := range s.bySel[key(c.concl.sym)] {
			if !d.dead {
				s.resolve(c, d)
			}
		}
	}
	return true
}

func (s *solver) sweep() {
	gone := func(c *clause) bool { return c.dead }
	for k := range s.active {
		s.active[k] = slices.DeleteFunc(s.active[k], gone)
	}
	for k := range s.bySel {
		s.bySel[k] = slices.DeleteFunc(s.bySel[k], gone)
	}
}

// resolve replaces the selected hypothesis of d by those of r.
func (s *solver) resolve(r, d *clause) {
	want, have := d.hyps[d.sel], r.concl
	if want.sym.attacker {
		if have.sym.phase > want.sym.phase {
			return
		}
		want, have = want.args[0], have.args[0]
		if want.sym != nil && have.sym != nil && want.sym != have.sym {
			return
		}
	}
	shift := shifter(d.nvars)
	var sub subst
	sub.b = make([]*term, d.nvars+r.nvars)
	if !sub.unify(shift(have), want) {
		return
	}
	c := &clause{from: [2]*clause{r, d}}
	for i, x := range d.hyps {
		if i == d.sel {
			for _, y := range r.hyps {
				c.hyps = append(c.hyps, sub.apply(shift(y)))
			}
			continue
		}
		c.hyps = append(c.hyps, sub.apply(x))
	}
	c.concl = sub.apply(d.concl)
	for _, e := range d.neq {
		c.neq = append(c.neq, [2]*term{sub.apply(e[0]), sub.apply(e[1])})
	}
	for _, e := range r.neq {
		c.neq = append(c.neq, [2]*term{sub.apply(shift(e[0])), sub.apply(shift(e[1]))})
	}
	s.add(c)
}

func shifter(by int) func(*term) *term {
	var f func(*term) *term
	f = func(t *term) *term {
		if t.sym == nil {
			return variable(t.v + by)
		}
		if len(t.args) == 0 {
			return t
		}
		args := make([]*term, len(t.args))
		for i, a := range t.args {
			args[i] = f(a)
		}
		return &term{sym: t.sym, args: args, size: t.size}
	}
	return f
}

func saturate(t *translator, limit int) (*solver, bool) {
	s := &solver{active: map[string][]*clause{}, bySel: map[string][]*clause{}, limit: limit}
	for _, c := range t.clauses {
		s.add(c)
	}
	return s, s.run()
}
