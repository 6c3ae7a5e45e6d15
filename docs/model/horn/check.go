package main

import (
	"fmt"
	"strings"
)

type verdict struct {
	text           string
	result         string // "is true", "is true of what never happens", "cannot be proved", "was not decided"
	derivation     *clause
	initial, steps int
}

// check proves one query or finds a clause that speaks against it.
func check(m *model, q query, limit int) (v verdict, err error) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case syntaxError:
			err = fmt.Errorf("%s", e.msg)
		default:
			panic(e)
		}
	}()
	v.text = q.text
	if q.right == nil {
		v.text = "not " + q.text
	}
	t := translate(m, q)
	s, done := saturate(t, limit)
	v.initial, v.steps = len(t.clauses), s.steps
	if !done {
		v.result = "was not decided"
		if s.broken {
			v.result += " (the adversary is told a term of a function that was taken for its own work alone)"
		}
		return v, nil
	}
	reached := false
	for _, c := range s.active[key(t.goal)] {
		if c.dead || c.sel >= 0 {
			continue
		}
		reached = true
		if !t.satisfied(q, c) {
			v.result, v.derivation = "cannot be proved", c
			return v, nil
		}
	}
	v.result = "is true"
	if q.right != nil && !reached {
		v.result = "is true of what never happens"
	}
	return v, nil
}

// satisfied: the clause's hypotheses contain one of the right sides of q.
func (t *translator) satisfied(q query, c *clause) bool {
	env := map[string]*term{}
	for i, name := range q.vars {
		env[name] = c.concl.args[i]
	}
	left := map[string]bool{}
	for _, a := range q.left {
		for _, e := range a.args {
			mention(e, left)
		}
	}
	for _, conj := range q.right {
		// Variables that stand on the right side alone are there for any value.
		free := map[string]*term{}
		for name, v := range env {
			if !left[name] {
				if v.sym != nil {
					continue
				}
				delete(env, name)
			}
		}
		if t.conjunction(q, conj, c, env, free) {
			return true
		}
	}
	return false
}

func mention(e expr, into map[string]bool) {
	if !e.call && e.name != "" {
		into[e.name] = true
	}
	for _, a := range e.args {
		mention(a, into)
	}
}

func (t *translator) conjunction(q query, conj []atom, c *clause, env, free map[string]*term) bool {
	if len(conj) == 0 {
		return true
	}
	a := conj[0]
	if a.kind == "equal" {
		return equal(t.queryTerm(a.args[0], env), t.queryTerm(a.args[1], env)) && t.conjunction(q, conj[1:], c, env, free)
	}
	for _, h := range c.hyps {
		if h.sym != t.begin[a.name] {
			continue
		}
		bound := map[string]*term{}
		ok := true
		for i, e := range a.args {
			if _, known := env[e.name]; !known && free[e.name] == nil && !e.call && t.syms[e.name] == nil {
				if bound[e.name] == nil {
					bound[e.name] = h.args[i]
				}
				ok = ok && equal(bound[e.name], h.args[i])
				continue
			}
			if f := free[e.name]; f != nil && !e.call {
				ok = ok && equal(f, h.args[i])
				continue
			}
			ok = ok && equal(t.queryTerm(e, env), h.args[i])
		}
		if !ok || a.kind == "inj-event" && !t.injective(q, c, h) {
			continue
		}
		for k, v := range free {
			bound[k] = v
		}
		if t.conjunction(q, conj[1:], c, env, bound) {
			return true
		}
	}
	return false
}

// injective: the session of the event on the left is a function of the one on the right. The latter happens at most once in a
// session of its own, so its session determines its arguments; if those contain all replication indices of the session
// on the left, no two sessions on the left can go back to one on the right.
func (t *translator) injective(q query, c *clause, h *term) bool {
	sessions := map[int]int{}
	for _, s := range c.concl.args[len(q.vars):] {
		if s.sym == nil {
			return false
		}
		countVars(s, sessions)
	}
	in := map[int]int{}
	countVars(h, in)
	for v := range sessions {
		if in[v] == 0 {
			return false
		}
	}
	return true
}

// explain prints what a clause was resolved from: the clauses of the protocol and of the adversary that it took.
func explain(c *clause) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nby resolution of:\n", c)
	seen := map[*clause]bool{}
	var walk func(c *clause)
	walk = func(c *clause) {
		if c == nil || seen[c] {
			return
		}
		seen[c] = true
		if c.from[0] == nil {
			fmt.Fprintf(&b, "  %s\n", c)
			return
		}
		walk(c.from[0])
		walk(c.from[1])
	}
	walk(c)
	return b.String()
}

func (c *clause) String() string {
	parts := make([]string, 0, len(c.hyps)+len(c.neq))
	for _, h := range c.hyps {
		parts = append(parts, h.String())
	}
	for _, d := range c.neq {
		parts = append(parts, d[0].String()+" <> "+d[1].String())
	}
	return strings.Join(parts, " & ") + " => " + c.concl.String()
}
