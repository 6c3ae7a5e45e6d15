package main

import (
	"errors"
	"fmt"
	"strings"
)

// The part of ProVerif's typed input language that the models are written in.

type expr struct { // a term as written
	name string // "" for a tuple
	args []expr
	call bool
	line int
}

type pattern struct {
	bind  string    // a new variable
	equal *expr     // =M
	tuple []pattern // (p, ...)
}

type process struct {
	kind  string // nil out in new let iftest repl par event insert get phase call
	line  int
	name  string
	args  []expr
	pat   []pattern
	not   bool
	num   int
	then  *process
	other *process
}

type rewrite struct {
	vars     []string
	from, to expr
}

type function struct {
	name    string
	arity   int
	private bool
	data    bool // free names and constants
	channel bool
	rules   []rewrite // of a destructor, or the equations of a constructor
	destr   bool
}

type atom struct {
	kind string // attacker, event, inj-event, equal
	name string
	args []expr
}

type query struct {
	text string
	vars []string
	left []atom
	// right is a disjunction of conjunctions; nil: the left side must be impossible.
	right [][]atom
}

type macro struct {
	params []string
	body   *process
}

type model struct {
	functions    map[string]*function
	order        []string
	tables       map[string]int
	events       map[string]int
	macros       map[string]macro
	queries      []query
	restrictions []query
	main         *process
}

type token struct {
	text string
	line int
}

type parser struct {
	toks []token
	pos  int
	m    *model
	file string
}

type syntaxError struct{ msg string }

func (p *parser) fail(format string, args ...any) {
	panic(syntaxError{fmt.Sprintf("%s:%d: %s", p.file, p.line(), fmt.Sprintf(format, args...))})
}

func (p *parser) line() int {
	if p.pos < len(p.toks) {
		return p.toks[p.pos].line
	}
	return p.toks[len(p.toks)-1].line
}

var keywords = strings.Fields(`among axiom channel choice clauses const def diff do elimtrue else equation equivalence event
	expand fail for forall foreach free fun get if implementation in inj-event insert lemma let letfun letproba new noninterf
	noselect not nounif or otherwise out param phase pred proba process proof public_vars putbegin query reduc restriction
	secret select set suchthat sync table then type weaksecret yield`)

func isWord(c byte) bool {
	return c == '_' || c == '\'' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func lex(src string) []token {
	var toks []token
	line := 1
	for i := 0; i < len(src); {
		switch c := src[i]; {
		case c == '\n':
			line++
			i++
		case c == ' ' || c == '\t':
			i++
		case strings.HasPrefix(src[i:], "(*"):
			depth := 0
			for i < len(src) {
				if strings.HasPrefix(src[i:], "(*") {
					depth++
					i += 2
				} else if strings.HasPrefix(src[i:], "*)") {
					depth--
					i += 2
				} else {
					if src[i] == '\n' {
						line++
					}
					i++
				}
				if depth == 0 {
					break
				}
			}
			if depth > 0 {
				panic(syntaxError{"a comment is not closed"})
			}
		case isWord(c):
			j := i
			for j < len(src) && isWord(src[j]) {
				j++
			}
			if src[i:j] == "inj" && strings.HasPrefix(src[j:], "-event") {
				j += len("-event")
			}
			toks = append(toks, token{src[i:j], line})
			i = j
		default:
			n := 1
			for _, op := range []string{"==>", "<>", "&&", "||"} {
				if strings.HasPrefix(src[i:], op) {
					n = len(op)
				}
			}
			toks = append(toks, token{src[i : i+n], line})
			i += n
		}
	}
	return append(toks, token{"<end>", line})
}

func (p *parser) peek() string { return p.toks[p.pos].text }

func (p *parser) next() string {
	t := p.toks[p.pos].text
	if p.pos < len(p.toks)-1 {
		p.pos++
	}
	return t
}

func (p *parser) accept(s string) bool {
	if p.peek() == s {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		p.fail("expected %q, found %q", s, p.peek())
	}
}

func (p *parser) ident() string {
	t := p.peek()
	if !isWord(t[0]) || t[0] >= '0' && t[0] <= '9' {
		p.fail("expected a name, found %q", t)
	}
	for _, k := range keywords {
		if t == k {
			p.fail("%q is a keyword", t)
		}
	}
	return p.next()
}

// typed reads "x: t, y: t".
func (p *parser) typed() []string {
	var names []string
	for {
		names = append(names, p.ident())
		p.expect(":")
		p.typeName()
		if !p.accept(",") {
			return names
		}
	}
}

func (p *parser) typeName() string {
	if t := p.peek(); t == "channel" || t == "bitstring" {
		return p.next()
	}
	p.fail("unknown type %q", p.peek())
	return ""
}

func (p *parser) types() int {
	p.expect("(")
	n := 0
	for !p.accept(")") {
		if n > 0 {
			p.expect(",")
		}
		p.typeName()
		n++
	}
	return n
}

func (p *parser) private() bool {
	if !p.accept("[") {
		return false
	}
	p.expect("private")
	p.expect("]")
	return true
}

func (p *parser) define(f *function) {
	if _, ok := p.m.functions[f.name]; ok {
		p.fail("%s is declared twice", f.name)
	}
	p.m.functions[f.name] = f
	p.m.order = append(p.m.order, f.name)
}

func (p *parser) file_() {
	for p.peek() != "<end>" {
		switch key := p.next(); key {
		case "free", "const":
			f := &function{name: p.ident(), data: true}
			p.expect(":")
			f.channel = p.typeName() == "channel"
			f.private = p.private()
			p.define(f)
			p.expect(".")
		case "fun":
			f := &function{name: p.ident()}
			f.arity = p.types()
			p.expect(":")
			p.typeName()
			f.private = p.private()
			p.define(f)
			p.expect(".")
		case "reduc", "equation":
			p.expect("forall")
			r := rewrite{vars: p.typed()}
			p.expect(";")
			r.from = p.expr()
			p.expect("=")
			r.to = p.expr()
			if key == "reduc" {
				p.define(&function{name: r.from.name, arity: len(r.from.args), private: p.private(), destr: true, rules: []rewrite{r}})
			} else {
				f := p.m.functions[r.from.name]
				if f == nil || r.to.name != r.from.name {
					p.fail("only equations between terms with one and the same function on top")
				}
				f.rules = append(f.rules, r)
			}
			p.expect(".")
		case "table":
			name := p.ident()
			p.m.tables[name] = p.types()
			p.expect(".")
		case "event":
			name := p.ident()
			n := 0
			if p.peek() == "(" {
				n = p.types()
			}
			p.m.events[name] = n
			p.expect(".")
		case "let":
			name := p.ident()
			var mac macro
			if p.accept("(") {
				mac.params = p.typed()
				p.expect(")")
			}
			p.expect("=")
			mac.body = p.process()
			p.m.macros[name] = mac
			p.expect(".")
		case "query", "restriction":
			start := p.pos
			q := p.query()
			var text []string
			for _, t := range p.toks[start:p.pos] {
				text = append(text, t.text)
			}
			q.text = tidy(strings.Join(text, " "))
			p.expect(".")
			if key == "query" {
				p.m.queries = append(p.m.queries, q)
			} else {
				p.m.restrictions = append(p.m.restrictions, q)
			}
		case "process":
			p.m.main = p.process()
			if p.peek() != "<end>" {
				p.fail("text after the process: %q", p.peek())
			}
		default:
			p.pos--
			p.fail("unknown declaration %q", key)
		}
	}
}

// tidy leaves out the declaration of variables.
func tidy(s string) string {
	if _, rest, ok := strings.Cut(s, " ; "); ok {
		s = rest
	}
	return strings.NewReplacer(" ( ", "(", " , ", ",", " )", ")").Replace(s)
}

func (p *parser) query() query {
	var q query
	if p.pos+1 < len(p.toks) && p.toks[p.pos+1].text == ":" {
		q.vars = p.typed()
		p.expect(";")
	}
	q.left = p.conj()
	if p.accept("==>") {
		q.right = [][]atom{p.conj()}
		for p.accept("||") {
			q.right = append(q.right, p.conj())
		}
	}
	return q
}

func (p *parser) conj() []atom {
	atoms := []atom{p.atom()}
	for p.accept("&&") {
		atoms = append(atoms, p.atom())
	}
	return atoms
}

func (p *parser) atom() atom {
	switch k := p.peek(); k {
	case "event", "inj-event":
		p.next()
		p.expect("(")
		e := p.expr()
		p.expect(")")
		if n, ok := p.m.events[e.name]; !ok || n != len(e.args) {
			p.fail("no event %s with %d arguments", e.name, len(e.args))
		}
		return atom{kind: k, name: e.name, args: e.args}
	case "attacker":
		p.next()
		p.expect("(")
		e := p.expr()
		p.expect(")")
		return atom{kind: k, args: []expr{e}}
	}
	l := p.expr()
	p.expect("=")
	return atom{kind: "equal", args: []expr{l, p.expr()}}
}

func (p *parser) expr() expr {
	line := p.line()
	if p.accept("(") {
		e := expr{line: line}
		for {
			e.args = append(e.args, p.expr())
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
		if len(e.args) == 1 {
			return e.args[0]
		}
		return e
	}
	e := expr{name: p.ident(), line: line}
	if p.accept("(") {
		e.call = true
		for !p.accept(")") {
			if len(e.args) > 0 {
				p.expect(",")
			}
			e.args = append(e.args, p.expr())
		}
	}
	return e
}

func (p *parser) pattern() pattern {
	if p.accept("=") {
		e := p.expr()
		return pattern{equal: &e}
	}
	if p.accept("(") {
		var pt pattern
		for {
			pt.tuple = append(pt.tuple, p.pattern())
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
		return pt
	}
	name := p.ident()
	if p.accept(":") {
		p.typeName()
	}
	return pattern{bind: name}
}

// then reads what follows an action: ";" and a process, or nothing.
func (p *parser) after() *process {
	if p.accept(";") {
		return p.single()
	}
	return &process{kind: "nil"}
}

func (p *parser) process() *process {
	l := p.single()
	for p.accept("|") {
		l = &process{kind: "par", then: l, other: p.single()}
	}
	return l
}

func (p *parser) single() *process {
	n := &process{line: p.line()}
	switch key := p.peek(); key {
	case "(":
		p.next()
		n = p.process()
		p.expect(")")
	case "!":
		p.next()
		n.kind, n.then = "repl", p.single()
	case "0":
		p.next()
		n.kind = "nil"
	case "new":
		p.next()
		n.kind, n.name = "new", p.ident()
		p.expect(":")
		p.typeName()
		n.then = p.after()
	case "out":
		p.next()
		p.expect("(")
		n.kind, n.args = "out", []expr{p.expr()}
		p.expect(",")
		n.args = append(n.args, p.expr())
		p.expect(")")
		n.then = p.after()
	case "in":
		p.next()
		p.expect("(")
		n.kind, n.args = "in", []expr{p.expr()}
		p.expect(",")
		n.pat = []pattern{p.pattern()}
		p.expect(")")
		n.then = p.after()
	case "event":
		p.next()
		e := p.expr()
		if c, ok := p.m.events[e.name]; !ok || c != len(e.args) {
			p.fail("no event %s with %d arguments", e.name, len(e.args))
		}
		n.kind, n.name, n.args, n.then = "event", e.name, e.args, p.after()
	case "insert":
		p.next()
		e := p.expr()
		if c, ok := p.m.tables[e.name]; !ok || c != len(e.args) {
			p.fail("no table %s with %d columns", e.name, len(e.args))
		}
		n.kind, n.name, n.args, n.then = "insert", e.name, e.args, p.after()
	case "get":
		p.next()
		n.kind, n.name = "get", p.ident()
		p.expect("(")
		for {
			n.pat = append(n.pat, p.pattern())
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
		if p.m.tables[n.name] != len(n.pat) {
			p.fail("no table %s with %d columns", n.name, len(n.pat))
		}
		p.expect("in")
		n.then = p.single()
		if p.accept("else") {
			n.other = p.single()
		}
	case "let":
		p.next()
		n.kind, n.pat = "let", []pattern{p.pattern()}
		p.expect("=")
		n.args = []expr{p.expr()}
		p.expect("in")
		n.then = p.single()
	case "if":
		p.next()
		n.kind, n.args = "iftest", []expr{p.expr()}
		if p.accept("<>") {
			n.not = true
		} else {
			p.expect("=")
		}
		n.args = append(n.args, p.expr())
		p.expect("then")
		n.then = p.single()
	case "phase":
		p.next()
		n.kind = "phase"
		for _, d := range p.next() {
			if d < '0' || d > '9' {
				p.fail("phase without a number")
			}
			n.num = n.num*10 + int(d-'0')
		}
		n.then = p.after()
	default:
		e := p.expr()
		m, ok := p.m.macros[e.name]
		if !ok || len(m.params) != len(e.args) {
			p.fail("no process %s with %d arguments", e.name, len(e.args))
		}
		n.kind, n.name, n.args = "call", e.name, e.args
	}
	return n
}

func parse(m *model, file, src string) (err error) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case syntaxError:
			err = errors.New(e.msg)
		default:
			panic(e)
		}
	}()
	p := &parser{toks: lex(src), m: m, file: file}
	p.file_()
	return nil
}

func newModel() *model {
	return &model{functions: map[string]*function{}, tables: map[string]int{}, events: map[string]int{}, macros: map[string]macro{}}
}
