package main

import (
	"fmt"
	"maps"
	"slices"
)

// Processes become Horn clauses (Blanchet, "Modeling and Verifying Security Protocols with the Applied Pi Calculus and
// ProVerif", 2016, section 4; phases as in section 3 there, tables as facts): an output is a clause whose hypotheses are the inputs, tables and events
// before it. A fresh name becomes a function of the session it is made in and of what was received before; of what was received
// only the value that the let right before it binds, if there is one. Any such choice is sound, more arguments are more precise.

type rule struct { // a destructor's or constructor's rewrite rule, over its own variables
	n    int
	args []*term
	to   *term
}

type translator struct {
	m        *model
	syms     map[string]*symbol
	rules    map[string][]rule
	tuples   map[int]*symbol
	att      []*symbol // by phase
	tables   map[string]*symbol
	begin    map[string]*symbol // events that may stand on the right side
	end      map[string]*symbol // on the left side
	goal     *symbol
	clauses  []*clause
	nextVar  int
	names    map[string]int
	used     map[string]bool // functions that the process or a query mentions outside of rules
	maxPhase int
}

type state struct {
	env    map[string]*term
	hyps   []*term
	neq    [][2]*term
	sids   []*term
	inputs []*term
	phase  int
	last   *term // what the let right before binds
}

// with applies what s has bound to everything known so far.
func (st state) with(s *subst) state {
	if len(s.b) == 0 {
		return st
	}
	n := state{env: make(map[string]*term, len(st.env)), phase: st.phase}
	for k, v := range st.env {
		n.env[k] = s.apply(v)
	}
	all := func(ts []*term) []*term {
		out := make([]*term, len(ts))
		for i, t := range ts {
			out[i] = s.apply(t)
		}
		return out
	}
	n.hyps, n.sids, n.inputs = all(st.hyps), all(st.sids), all(st.inputs)
	for _, d := range st.neq {
		n.neq = append(n.neq, [2]*term{s.apply(d[0]), s.apply(d[1])})
	}
	return n
}

func (st state) bind(name string, t *term) state {
	st.env = maps.Clone(st.env)
	st.env[name] = t
	return st
}

func (st state) assume(f ...*term) state {
	st.hyps = append(slices.Clip(slices.Clone(st.hyps)), f...)
	return st
}

func (t *translator) fresh() *term {
	t.nextVar++
	return variable(t.nextVar - 1)
}

func (t *translator) tuple(n int) *symbol {
	if t.tuples[n] == nil {
		t.tuples[n] = &symbol{name: "tuple", arity: n, tuple: true}
	}
	return t.tuples[n]
}

func fail(line int, format string, args ...any) {
	panic(syntaxError{fmt.Sprintf("line %d: ", line) + fmt.Sprintf(format, args...)})
}

// schema makes a term of a rewrite rule, whose variables are numbered.
func (t *translator) schema(e expr, vars []string) *term {
	if i := slices.Index(vars, e.name); i >= 0 && !e.call {
		return variable(i)
	}
	args := make([]*term, len(e.args))
	for i, a := range e.args {
		args[i] = t.schema(a, vars)
	}
	if e.name == "" {
		return apply(t.tuple(len(args)), args...)
	}
	f := t.m.functions[e.name]
	if f == nil || f.arity != len(args) || f.destr {
		fail(e.line, "no constructor %s of %d arguments", e.name, len(args))
	}
	return apply(t.syms[e.name], args...)
}

// variants are the rules a function is evaluated by: for a constructor f(x...) -> f(x...) and its equations both ways.
func (t *translator) variants(f *function) []rule {
	var out []rule
	if !f.destr {
		args := make([]*term, f.arity)
		for i := range args {
			args[i] = variable(i)
		}
		out = append(out, rule{f.arity, args, apply(t.syms[f.name], args...)})
	}
	for _, r := range f.rules {
		var from []*term
		for _, a := range r.from.args {
			from = append(from, t.schema(a, r.vars))
		}
		to := t.schema(r.to, r.vars)
		out = append(out, rule{len(r.vars), from, to})
		if !f.destr && !sameUpToNames(apply(t.syms[f.name], from...), to) {
			out = append(out, rule{len(r.vars), to.args, apply(t.syms[f.name], from...)})
		}
	}
	return out
}

// sameUpToNames: the equation read backwards is the same rule.
func sameUpToNames(l, r *term) bool {
	pair := &symbol{name: "pair", arity: 2}
	a, b := apply(pair, l, r), apply(pair, r, l)
	ab, ba := make([]*term, 64), make([]*term, 64)
	return match(ab, new([]int), a, b) && match(ba, new([]int), b, a)
}

func (t *translator) instance(r rule) rule {
	s := &subst{b: make([]*term, r.n)}
	for i := range s.b {
		s.b[i] = t.fresh()
	}
	out := rule{to: instance(s, r.to)}
	for _, a := range r.args {
		out.args = append(out.args, instance(s, a))
	}
	return out
}

type result struct {
	st state
	t  *term
}

type results struct {
	st state
	ts []*term
}

func (t *translator) evalAll(es []expr, st state) []results {
	out := []results{{st, nil}}
	for _, e := range es {
		var next []results
		for _, r := range out {
			for _, v := range t.evalKeep(e, r.st, r.ts) {
				next = append(next, v)
			}
		}
		out = next
	}
	return out
}

// evalKeep evaluates e and keeps the terms so far in step with what the evaluation binds.
func (t *translator) evalKeep(e expr, st state, ts []*term) []results {
	const slot = "\x00kept"
	st = state{env: maps.Clone(st.env), hyps: st.hyps, neq: st.neq, sids: st.sids, inputs: st.inputs, phase: st.phase}
	for i, k := range ts {
		st.env[slot+itoa(i)] = k
	}
	var out []results
	for _, r := range t.eval(e, st) {
		kept := make([]*term, len(ts), len(ts)+1)
		for i := range ts {
			kept[i] = r.st.env[slot+itoa(i)]
			delete(r.st.env, slot+itoa(i))
		}
		out = append(out, results{r.st, append(kept, r.t)})
	}
	return out
}

// eval gives every way to evaluate e: one for each rewrite rule that may apply. Failure is no result.
func (t *translator) eval(e expr, st state) []result {
	if v, ok := st.env[e.name]; ok && !e.call && e.name != "" {
		return []result{{st, v}}
	}
	var out []result
	if e.name == "" {
		for _, r := range t.evalNested(e.args, st) {
			out = append(out, result{r.st, apply(t.tuple(len(r.ts)), r.ts...)})
		}
		return out
	}
	f := t.m.functions[e.name]
	if f == nil || f.arity != len(e.args) || f.channel {
		fail(e.line, "%s with %d arguments is not known here", e.name, len(e.args))
	}
	t.used[e.name] = true
	for _, r := range t.evalNested(e.args, st) {
		for _, rw := range t.rules[e.name] {
			in := t.instance(rw)
			var s subst
			ok := true
			for i := range in.args {
				if ok = s.unify(in.args[i], r.ts[i]); !ok {
					break
				}
			}
			if ok {
				out = append(out, result{r.st.with(&s), s.apply(in.to)})
			}
		}
	}
	return out
}

// evalNested is evalAll with slots of its own, so that kept terms of an outer evaluation stay apart.
func (t *translator) evalNested(es []expr, st state) []results {
	if len(es) == 0 {
		return []results{{st, nil}}
	}
	const slot = "\x00outer"
	depth := 0
	for {
		if _, ok := st.env[slot+itoa(depth)]; !ok {
			break
		}
		depth++
	}
	saved := map[string]*term{}
	inner := maps.Clone(st.env)
	for i := 0; ; i++ {
		k := "\x00kept" + itoa(i)
		v, ok := inner[k]
		if !ok {
			break
		}
		saved[k] = v
		delete(inner, k)
		inner[slot+itoa(depth)+"."+itoa(i)] = v
	}
	inner[slot+itoa(depth)] = apply(t.tuple(0))
	st.env = inner
	out := t.evalAll(es, st)
	for i := range out {
		env := maps.Clone(out[i].st.env)
		delete(env, slot+itoa(depth))
		for j := range len(saved) {
			k := slot + itoa(depth) + "." + itoa(j)
			env["\x00kept"+itoa(j)] = env[k]
			delete(env, k)
		}
		out[i].st.env = env
	}
	return out
}

// bindPattern gives every way in which value has the form of p.
func (t *translator) bindPattern(p pattern, value *term, st state) []state {
	switch {
	case p.equal != nil:
		var out []state
		for _, r := range t.evalKeep(*p.equal, st, []*term{value}) {
			var s subst
			if s.unify(r.ts[0], r.ts[1]) {
				out = append(out, r.st.with(&s))
			}
		}
		return out
	case p.tuple != nil:
		parts := make([]*term, len(p.tuple))
		for i := range parts {
			parts[i] = t.fresh()
		}
		var s subst
		if !s.unify(value, apply(t.tuple(len(parts)), parts...)) {
			return nil
		}
		states := []state{st.with(&s)}
		const slot = "\x00part"
		for i := range parts {
			states[0] = states[0].bind(slot+itoa(i), s.apply(parts[i]))
		}
		for i, q := range p.tuple {
			var next []state
			for _, u := range states {
				v := u.env[slot+itoa(i)]
				if q.tuple != nil {
					panic(syntaxError{"tuples within tuples are not read here"})
				}
				next = append(next, t.bindPattern(q, v, u)...)
			}
			states = next
		}
		return states
	}
	return []state{st.bind(p.bind, value)}
}

func (t *translator) emit(st state, conclusion *term) {
	t.clauses = append(t.clauses, &clause{hyps: st.hyps, concl: conclusion, neq: st.neq})
}

func (t *translator) process(p *process, st state) {
	switch p.kind {
	case "nil":
	case "par":
		t.process(p.then, st)
		t.process(p.other, st)
	case "repl":
		st.sids = append(slices.Clone(st.sids), t.fresh())
		t.process(p.then, st)
	case "phase":
		st.phase = p.num
		t.process(p.then, st)
	case "new":
		t.names[p.name]++
		args := slices.Concat(st.sids, st.inputs)
		if st.last != nil {
			args = append(slices.Clone(st.sids), st.last)
		}
		name := p.name
		if n := t.names[p.name]; n > 1 {
			name += "'" + itoa(n)
		}
		st.last = nil
		t.process(p.then, st.bind(p.name, apply(&symbol{name: name + "[]", arity: len(args), fresh: true}, args...)))
	case "out":
		for _, r := range t.eval(p.args[1], st) {
			t.emit(r.st, apply(t.att[st.phase], r.t))
			t.process(p.then, r.st)
		}
	case "in":
		x := t.fresh()
		st = st.assume(apply(t.att[st.phase], x))
		st.inputs = append(slices.Clone(st.inputs), x)
		for _, u := range t.bindPattern(p.pat[0], x, st) {
			t.process(p.then, u)
		}
	case "insert":
		for _, r := range t.evalAll(p.args, st) {
			t.emit(r.st, apply(t.tables[p.name], r.ts...))
			t.process(p.then, r.st)
		}
	case "get":
		if p.other != nil {
			t.process(p.other, st) // also where there is such a row: more than can happen
		}
		row := make([]*term, len(p.pat))
		for i := range row {
			row[i] = t.fresh()
		}
		st = st.assume(apply(t.tables[p.name], row...))
		whole := pattern{tuple: p.pat}
		for _, u := range t.bindPattern(whole, apply(t.tuple(len(row)), row...), st) {
			t.process(p.then, u)
		}
	case "event":
		for _, r := range t.evalAll(p.args, st) {
			if e := t.end[p.name]; e != nil {
				session := apply(t.tuple(len(st.sids)), r.st.sids...)
				t.emit(r.st, apply(e, append(slices.Clone(r.ts), session)...))
			}
			u := r.st
			if b := t.begin[p.name]; b != nil {
				u = u.assume(apply(b, r.ts...))
			}
			t.process(p.then, u)
		}
	case "let":
		for _, r := range t.eval(p.args[0], st) {
			for _, u := range t.bindPattern(p.pat[0], r.t, r.st) {
				if p.then.kind == "new" {
					u.last = u.env[p.pat[0].bind]
				}
				t.process(p.then, u)
			}
		}
	case "iftest":
		for _, r := range t.evalAll(p.args, st) {
			if p.not {
				u := r.st
				u.neq = append(slices.Clone(u.neq), [2]*term{r.ts[0], r.ts[1]})
				t.process(p.then, u)
				continue
			}
			var s subst
			if s.unify(r.ts[0], r.ts[1]) {
				t.process(p.then, r.st.with(&s))
			}
		}
	case "call":
		m := t.m.macros[p.name]
		for _, r := range t.evalAll(p.args, st) {
			u := r.st
			u.env = map[string]*term{}
			for i, name := range m.params {
				u.env[name] = r.ts[i]
			}
			t.process(m.body, u)
		}
	default:
		fail(p.line, "process %q", p.kind)
	}
}

func phases(m *model, p *process, seen map[string]bool) int {
	if p == nil {
		return 0
	}
	n := max(p.num, phases(m, p.then, seen), phases(m, p.other, seen))
	if p.kind == "call" && !seen[p.name] {
		seen[p.name] = true
		n = max(n, phases(m, m.macros[p.name].body, seen))
	}
	return n
}

// translate gives the clauses of m's process and of the adversary, made for one query.
func translate(m *model, q query) (t *translator) {
	t = &translator{
		m: m, syms: map[string]*symbol{}, rules: map[string][]rule{}, tuples: map[int]*symbol{}, tables: map[string]*symbol{},
		begin: map[string]*symbol{}, end: map[string]*symbol{}, names: map[string]int{}, used: map[string]bool{},
	}
	t.maxPhase = phases(m, m.main, map[string]bool{})
	for i := 0; i <= t.maxPhase; i++ {
		t.att = append(t.att, &symbol{name: "attacker" + itoa(i), arity: 1, attacker: true, phase: i})
	}
	for name, n := range m.tables {
		t.tables[name] = &symbol{name: name, arity: n, rank: 2}
	}
	for _, a := range q.left {
		if a.kind != "attacker" {
			t.end[a.name] = &symbol{name: "end:" + a.name, arity: len(a.args) + 1, rank: 1}
		}
	}
	for _, c := range q.right {
		for _, a := range c {
			if a.kind == "event" || a.kind == "inj-event" {
				t.begin[a.name] = &symbol{name: "begin:" + a.name, arity: len(a.args), blocking: true}
			}
		}
	}
	for _, name := range m.order {
		if f := m.functions[name]; !f.destr {
			t.syms[name] = &symbol{name: name, arity: f.arity, known: !f.private && !f.channel}
			t.syms[name].composed = f.arity > 0 && !f.private && len(f.rules) == 0 && !m.takenApart(name)
		}
	}
	for _, name := range m.order {
		t.rules[name] = t.variants(m.functions[name])
	}
	t.process(m.main, state{env: map[string]*term{}})
	t.adversary()
	t.query(q)
	return t
}

// takenApart: a rewrite rule takes the function apart or yields it.
func (m *model) takenApart(name string) bool {
	var within func(e expr) bool
	within = func(e expr) bool { return e.name == name || slices.ContainsFunc(e.args, within) }
	for _, f := range m.functions {
		for _, r := range f.rules {
			if slices.ContainsFunc(r.from.args, within) || within(r.to) {
				return true
			}
		}
	}
	return false
}

func (t *translator) adversary() {
	for _, att := range t.att {
		t.emit(state{}, apply(att, apply(&symbol{name: "made[]", arity: 1}, t.fresh())))
		for _, name := range t.m.order {
			f := t.m.functions[name]
			if f.private || f.channel {
				continue
			}
			for _, r := range t.rules[name] {
				in := t.instance(r)
				var st state
				for _, a := range in.args {
					st = st.assume(apply(att, a))
				}
				t.emit(st, apply(att, in.to))
			}
		}
	}
}

func (t *translator) query(q query) {
	st := state{env: map[string]*term{}}
	args := make([]*term, 0, len(q.vars))
	for _, v := range q.vars {
		x := t.fresh()
		st.env[v] = x
		args = append(args, x)
	}
	for _, a := range q.left {
		var ts []*term
		for _, e := range a.args {
			ts = append(ts, t.queryTerm(e, st.env))
		}
		if a.kind == "attacker" {
			st = st.assume(apply(t.att[t.maxPhase], ts[0]))
			continue
		}
		session := t.fresh()
		args = append(args, session)
		st = st.assume(apply(t.end[a.name], append(ts, session)...))
	}
	t.goal = &symbol{name: "goal", arity: len(args)}
	t.emit(st, apply(t.goal, args...))
}

// queryTerm makes a term as it stands: no rule is applied.
func (t *translator) queryTerm(e expr, env map[string]*term) *term {
	if v, ok := env[e.name]; ok && !e.call {
		return v
	}
	args := make([]*term, len(e.args))
	for i, a := range e.args {
		args[i] = t.queryTerm(a, env)
	}
	if e.name == "" {
		return apply(t.tuple(len(args)), args...)
	}
	s := t.syms[e.name]
	if s == nil || s.arity != len(args) {
		fail(e.line, "%s in a query", e.name)
	}
	return apply(s, args...)
}
