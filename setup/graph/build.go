package graph

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"culvert/setup/model"
	"culvert/setup/spec"
)

// builder makes a graph of things.
type builder struct {
	Source
	g      *Graph
	nodes  map[model.Ref]int
	spaces map[string]int
	on     map[model.Ref][]*thing // what is on a link
	edges  map[edgeKey]*edgeState
}

type edgeKey struct {
	relation Relation
	from, to int
}

// edgeState says whether an edge is declared and whether it is there.
type edgeState struct {
	declared, found bool
	owned           bool
	label           string
	details         []string
	changes         []string
}

// New returns the graph of what is declared, or there, or both.
func New(s Source) *Graph {
	b := &builder{
		Source: s,
		g:      &Graph{Title: clean(s.Title), Compared: s.Items != nil && s.System != nil},
		nodes:  make(map[model.Ref]int),
		spaces: make(map[string]int),
		on:     make(map[model.Ref][]*thing),
		edges:  make(map[edgeKey]*edgeState),
	}
	things := gather(s)
	for _, t := range things {
		switch t.id.Kind() {
		case model.KindNetns, model.KindLink, model.KindProcess:
		default:
			if r := t.id.Link(); r != "" {
				b.on[r] = append(b.on[r], t)
			}
			// Routes belong to the device they lead to as well.
			if r := t.field("link").Link(); r != "" && t.id.Kind() == model.KindRoute {
				b.on[r] = append(b.on[r], t)
			}
		}
	}
	for _, t := range things {
		if t.id.Kind() == model.KindLink && !b.isLoopback(t) {
			b.device(t)
		}
	}
	for _, t := range things {
		switch t.id.Kind() {
		case model.KindLink:
			b.linkEdges(t)
		case model.KindAttachment:
			b.join(t, Port, t.id.Link(), "master")
		case model.KindFilter:
			b.join(t, Redirect, t.id.Link(), "redirect")
		case model.KindProcess:
			b.process(t)
		}
	}
	for _, r := range slices.SortedFunc(maps.Keys(s.Peers), func(a, b model.Ref) int { return natural(string(a), string(b)) }) {
		for _, name := range s.Peers[r] {
			b.peer(r, name)
		}
	}
	b.crossConnects()
	b.finishEdges()
	for _, t := range things {
		b.space(t)
	}
	b.sort()
	return b.g
}

// isLoopback leaves out loopback devices that nobody speaks of.
func (b *builder) isLoopback(t *thing) bool { return t.item == nil && t.id.Link().Name() == "lo" }

// status is t's in a comparison, else Same.
func (b *builder) status(t *thing) Status {
	if !b.g.Compared {
		return Same
	}
	return t.status()
}

// node adds a node, and its namespace where that is new.
func (b *builder) node(n Node) int {
	if n.Shape != Peer {
		b.spaceOf(n.Space)
	}
	b.g.Nodes = append(b.g.Nodes, n)
	return len(b.g.Nodes) - 1
}

func (b *builder) spaceOf(name string) *Space {
	i, ok := b.spaces[name]
	if !ok {
		i = len(b.g.Spaces)
		b.spaces[name] = i
		b.g.Spaces = append(b.g.Spaces, Space{Name: name})
	}
	return &b.g.Spaces[i]
}

func (b *builder) device(t *thing) {
	r := t.id.Link()
	_, hasPeers := b.Peers[r]
	n := Node{Link: r, Space: r.Netns(), Name: clean(r.Name()), Type: clean(string(t.field("type"))), Status: b.status(t)}
	if t.item != nil {
		n.External = t.item.Owner == model.OwnerExternal
		n.Tunnel = t.item.Owner == model.OwnerTunnel
	} else {
		n.External = !t.owned() && !hasPeers
	}
	n.Tunnel = n.Tunnel || hasPeers || n.Type == string(spec.TypeTunnel)
	switch {
	case n.Status == Missing:
	case t.field("up") == "yes":
		n.Power = Up
	case t.field("up") == "no":
		n.Power = Down
	}
	on := b.on[r]
	n.Facts = facts(t, on, b.g.Compared && n.Status != Missing)
	if b.g.Compared {
		n.Reasons = t.changes("")
		if t.foreignName() {
			n.Reasons = append([]string{"not made by culvert: a conflict"}, n.Reasons...)
		}
		for _, o := range on {
			switch {
			case o.item != nil && o.found == nil && n.Status != Missing:
				n.Reasons = append(n.Reasons, o.phrase()+" is missing")
			case o.found != nil:
				n.Reasons = append(n.Reasons, o.changes(prefix(o))...)
			}
		}
		if len(n.Reasons) > 0 && n.Status == Same {
			n.Status = Differs
		}
	}
	n.Details = b.details(t, n, on)
	b.nodes[r] = b.node(n)
}

// prefix says in front of a difference what it is of.
func prefix(t *thing) string {
	switch t.id.Kind() {
	case model.KindAttachment:
		return "port's "
	case model.KindAddress:
		return clean(t.id.Words()[1]) + ": "
	}
	return string(t.id.Kind()) + ": "
}

// target returns the node a reference means. One that is neither declared nor there is drawn all the same.
func (b *builder) target(r model.Ref, kind string, found bool) int {
	if i, ok := b.nodes[r]; ok {
		return i
	}
	n := Node{Link: r, Space: r.Netns(), Name: clean(r.Name()), Type: kind, External: kind == ""}
	n.Details = []string{place(n) + ", only referred to"}
	if b.g.Compared {
		n.Status = Missing
		if found {
			n.Status = Foreign
		}
	}
	b.nodes[r] = b.node(n)
	return b.nodes[r]
}

// outside stands for a device in a namespace that was not looked at.
const outside = "?"

// join adds the edges from a link to those that a field of t names: one where it is as declared, two where it is not.
func (b *builder) join(t *thing, relation Relation, from model.Ref, field model.Field) {
	want, have := t.want(field).Link(), t.have(field).Link()
	for _, to := range slices.Compact([]model.Ref{want, have}) {
		if to == "" || to == outside || from == "" {
			continue
		}
		kind := ""
		if relation == Cable {
			kind = string(spec.TypeVeth)
		}
		e := b.edge(relation, b.target(from, "", have != ""), b.target(to, kind, to == have))
		e.declared = e.declared || to == want && t.item != nil
		e.found = e.found || to == have && t.found != nil
		e.owned = e.owned || t.owned()
		if t.id.Kind() != model.KindLink {
			e.details = append(e.details, t.phrase())
		}
		if to == want && to == have {
			e.changes = append(e.changes, t.changes("")...)
		}
	}
}

func (b *builder) edge(relation Relation, from, to int) *edgeState {
	if relation == Cable && from > to {
		from, to = to, from
	}
	k := edgeKey{relation, from, to}
	if b.edges[k] == nil {
		b.edges[k] = &edgeState{}
	}
	return b.edges[k]
}

func (b *builder) linkEdges(t *thing) {
	if b.isLoopback(t) {
		return
	}
	b.join(t, Stacked, t.id.Link(), "parent")
	b.join(t, Cable, t.id.Link(), "peer")
}

func (b *builder) process(t *thing) {
	name := clean(t.id.Rest())
	n := Node{Shape: Process, Space: string(t.field("netns")), Name: cmp.Or(clean(string(t.field("program"))), name), Type: "process",
		Status: b.status(t), Facts: processFacts(t)}
	if b.g.Compared {
		n.Reasons = t.changes("")
	}
	n.Details = []string{"process " + name}
	n.Details = append(n.Details, fieldLines(t.fields())...)
	if t.item != nil {
		n.Details = append(n.Details, declaredAt(t.item)...)
	}
	link := t.field("link").Link()
	if link != "" && link != outside && n.Space == "" {
		n.Space = link.Netns()
	}
	i := b.node(n)
	if link == "" || link == outside {
		return
	}
	e := b.edge(Serves, i, b.target(link, "", t.found != nil))
	e.declared, e.found, e.owned = t.item != nil, t.found != nil, t.owned()
}

func (b *builder) peer(r model.Ref, name string) {
	name = clean(name)
	to := b.target(r, string(spec.TypeTunnel), true)
	b.g.Nodes[to].Tunnel = true
	i := b.node(Node{Shape: Peer, Name: name, Details: []string{"peer " + name, "reached through " + clean(string(r))}})
	e := b.edge(Reaches, i, to)
	e.declared, e.found = true, true
}

// crossConnects makes one edge of two redirections that are each other's way back.
func (b *builder) crossConnects() {
	for k, e := range b.edges {
		back, ok := b.edges[edgeKey{Redirect, k.to, k.from}]
		if k.relation != Redirect || !ok || k.from >= k.to {
			continue
		}
		x := b.edge(Cross, k.from, k.to)
		x.declared = e.declared || back.declared
		x.found = e.found && back.found
		x.owned = e.owned || back.owned
		x.details = append(append(x.details, e.details...), back.details...)
		x.changes = append(append(x.changes, e.changes...), back.changes...)
		if e.found != back.found || e.declared != back.declared {
			x.found = true
			x.changes = append(x.changes, "one direction only")
		}
		delete(b.edges, k)
		delete(b.edges, edgeKey{Redirect, k.to, k.from})
	}
}

func (b *builder) finishEdges() {
	keys := slices.SortedFunc(maps.Keys(b.edges), func(x, y edgeKey) int {
		return cmp.Or(cmp.Compare(x.relation, y.relation), cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to))
	})
	for _, k := range keys {
		s := b.edges[k]
		from, to := b.g.Nodes[k.from], b.g.Nodes[k.to]
		e := Edge{Relation: k.relation, From: k.from, To: k.to, Label: s.label}
		if k.relation == Redirect {
			e.Label = shaping(b.on[to.Link])
		}
		e.Details = []string{place(from) + " – " + place(to) + ": " + k.relation.String()}
		e.Details = append(append(e.Details, s.details...), s.changes...)
		if e.Label != "" {
			e.Details = append(e.Details, "queued by "+e.Label)
		}
		if b.g.Compared {
			switch {
			case !s.found:
				e.Status = Missing
			case !s.declared && s.owned:
				e.Status = Extra
			case !s.declared:
				e.Status = Foreign
			case len(s.changes) > 0:
				e.Status = Differs
			}
		}
		b.g.Edges = append(b.g.Edges, e)
	}
}

func place(n Node) string {
	if n.Shape == Device {
		return clean(string(n.Link))
	}
	return n.Name
}

// space adds what a thing says of its namespace.
func (b *builder) space(t *thing) {
	switch t.id.Kind() {
	case model.KindNetns:
		name := t.id.Rest()
		// Namespaces that nobody speaks of and nobody looked into are no news.
		if _, seen := b.spaces[name]; !seen && t.item == nil && b.Items != nil {
			return
		}
		s := b.spaceOf(name)
		s.Status = b.status(t)
		s.External = t.item != nil && t.item.Owner == model.OwnerExternal || t.item == nil && !t.owned() && t.found != nil
		if s.Status == Foreign || s.Status == Extra {
			s.Details = append(s.Details, s.Status.String())
		}
		if t.item != nil {
			s.Details = append(s.Details, declaredAt(t.item)...)
		}
	case model.KindRoute, model.KindRule, model.KindNAT, model.KindFirewall, model.KindSysctl:
		s := b.spaceOf(t.id.Netns())
		line := t.phrase()
		if b.g.Compared {
			if st := t.status(); st != Same && st != Foreign {
				line += ": " + st.String()
				if s.Status == Same {
					s.Status = Differs
				}
			}
			for _, c := range t.changes("") {
				line += "; " + c
			}
		}
		s.Details = append(s.Details, line)
	}
}

// sort fixes the order of namespaces and nodes, and counts what a namespace has.
func (b *builder) sort() {
	g := b.g
	slices.SortFunc(g.Spaces, func(x, y Space) int { return natural(x.Name, y.Name) })
	for i := range g.Spaces {
		g.Spaces[i].Facts = counted(g.Spaces[i].Details)
	}
	old := make([]int, len(g.Nodes))
	for i := range old {
		old[i] = i
	}
	slices.SortStableFunc(old, func(i, j int) int {
		x, y := g.Nodes[i], g.Nodes[j]
		return cmp.Or(cmp.Compare(x.Shape, y.Shape), natural(x.Space, y.Space), natural(x.Name, y.Name))
	})
	nodes, place := make([]Node, len(old)), make([]int, len(old))
	for i, o := range old {
		nodes[i], place[o] = g.Nodes[o], i
	}
	g.Nodes = nodes
	for i := range g.Edges {
		e := &g.Edges[i]
		e.From, e.To = place[e.From], place[e.To]
	}
	slices.SortStableFunc(g.Edges, func(x, y Edge) int {
		return cmp.Or(cmp.Compare(x.Relation, y.Relation), cmp.Compare(x.To, y.To), cmp.Compare(x.From, y.From))
	})
}

// counted says how many routes and rules there are, and whether packets are translated or filtered.
func counted(lines []string) (list []string) {
	for _, c := range []struct{ word, one, more string }{{"route ", "1 route", "routes"}, {"rule ", "1 rule", "rules"}, {"NAT ", "NAT", ""},
		{"firewall ", "firewall", ""}} {
		n := 0
		for _, l := range lines {
			if strings.HasPrefix(l, c.word) {
				n++
			}
		}
		switch {
		case n == 1 || n > 1 && c.more == "":
			list = append(list, c.one)
		case n > 1:
			list = append(list, fmt.Sprintf("%d %s", n, c.more))
		}
	}
	return list
}
