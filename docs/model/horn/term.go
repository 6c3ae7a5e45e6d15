package main

import "strings"

// symbol is a function, a name, a tuple constructor or a predicate.
type symbol struct {
	name  string
	arity int
	tuple bool
	// blocking predicates are assumed, never derived: what must have happened before (begin of a correspondence).
	blocking bool
	// attacker predicates say that the adversary knows the one argument.
	attacker bool
	phase    int // of an attacker predicate
	// fresh is a name that the process makes.
	fresh bool
	// composed is a constructor that no rewrite rule takes apart: what has it on top, the adversary knows only if it put
	// it together. The solver assumes so and checks it.
	composed bool
	// known is a constructor that the adversary may apply.
	known bool
	// rank orders the predicates by when their hypotheses are resolved: the highest first.
	rank int
}

// term is a variable (sym nil, number v) or an application. Facts are terms whose symbol is a predicate. Immutable.
type term struct {
	sym  *symbol
	v    int
	args []*term
	size int
}

func variable(v int) *term { return &term{v: v, size: 1} }

func apply(s *symbol, args ...*term) *term {
	size := 1
	for _, a := range args {
		size += a.size
	}
	return &term{sym: s, args: args, size: size}
}

func (t *term) String() string {
	if t.sym == nil {
		return "x" + itoa(t.v)
	}
	if len(t.args) == 0 && !t.sym.tuple {
		return t.sym.name
	}
	parts := make([]string, len(t.args))
	for i, a := range t.args {
		parts[i] = a.String()
	}
	if t.sym.tuple {
		return "(" + strings.Join(parts, ", ") + ")"
	}
	return t.sym.name + "(" + strings.Join(parts, ", ") + ")"
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

func equal(a, b *term) bool {
	if a == b {
		return true
	}
	if a.sym != b.sym || a.size != b.size || a.sym == nil && a.v != b.v {
		return false
	}
	for i := range a.args {
		if !equal(a.args[i], b.args[i]) {
			return false
		}
	}
	return true
}

// subst binds variables by number. Numbers beyond its end are unbound.
type subst struct{ b []*term }

func (s *subst) get(v int) *term {
	if v < len(s.b) {
		return s.b[v]
	}
	return nil
}

func (s *subst) set(v int, t *term) {
	for len(s.b) <= v {
		s.b = append(s.b, nil)
	}
	s.b[v] = t
}

func (s *subst) walk(t *term) *term {
	for t.sym == nil {
		u := s.get(t.v)
		if u == nil {
			break
		}
		t = u
	}
	return t
}

func (s *subst) occurs(v int, t *term) bool {
	t = s.walk(t)
	if t.sym == nil {
		return t.v == v
	}
	for _, a := range t.args {
		if s.occurs(v, a) {
			return true
		}
	}
	return false
}

// unify makes a and b equal, and reports whether it could; what it bound stays bound either way.
func (s *subst) unify(a, b *term) bool {
	a, b = s.walk(a), s.walk(b)
	switch {
	case a == b || a.sym == nil && b.sym == nil && a.v == b.v:
		return true
	case a.sym == nil:
		if s.occurs(a.v, b) {
			return false
		}
		s.set(a.v, b)
		return true
	case b.sym == nil:
		return s.unify(b, a)
	case a.sym != b.sym:
		return false
	}
	for i := range a.args {
		if !s.unify(a.args[i], b.args[i]) {
			return false
		}
	}
	return true
}

// apply replaces all bound variables in t.
func (s *subst) apply(t *term) *term {
	t = s.walk(t)
	if t.sym == nil || len(t.args) == 0 {
		return t
	}
	args := make([]*term, len(t.args))
	same := true
	for i, a := range t.args {
		args[i] = s.apply(a)
		same = same && args[i] == a
	}
	if same {
		return t
	}
	return apply(t.sym, args...)
}

// unifiable reports whether a and b, over the same variables, have a common instance.
func unifiable(a, b *term) bool {
	var s subst
	return s.unify(a, b)
}

// match binds the pattern's variables in m so that the pattern becomes t, whose variables are constants here.
// trail records what was bound.
func match(m []*term, trail *[]int, pattern, t *term) bool {
	if pattern.sym == nil {
		if u := m[pattern.v]; u != nil {
			return equal(u, t)
		}
		m[pattern.v] = t
		*trail = append(*trail, pattern.v)
		return true
	}
	if pattern.sym != t.sym || pattern.size > t.size {
		return false
	}
	for i := range pattern.args {
		if !match(m, trail, pattern.args[i], t.args[i]) {
			return false
		}
	}
	return true
}

func countVars(t *term, n map[int]int) {
	if t.sym == nil {
		n[t.v]++
		return
	}
	for _, a := range t.args {
		countVars(a, n)
	}
}
