package plan

import (
	"container/heap"
	"maps"
	"slices"
	"strings"

	"culvert/setup/model"
)

// phase is what a node of the graph of steps does.
type phase uint8

const (
	build  phase = iota // create or change
	settle              // what comes last of a link: up, and what depends on its ports
	lower               // down
)

type nodeKey struct {
	id    model.ID
	phase phase
}

type node struct {
	key    nodeKey
	step   Step
	rank   int
	seq    int
	after  int // nodes that have to come first and have not yet
	before []*node
}

// rankOf orders nodes where no edge does.
func rankOf(kind model.Kind, ph phase) int {
	const perKind = 2
	switch ph {
	case settle:
		return slices.Index(model.Kinds, model.KindClass)*perKind + 1
	case lower:
		return slices.Index(model.Kinds, model.KindLink)*perKind + 1
	}
	return slices.Index(model.Kinds, kind) * perKind
}

// steps puts the deletions first, in reverse of the edges there are, then all else along the edges there are to be.
func (p *planner) steps() []Step {
	steps := p.deletions()
	steps = append(steps, p.withForwarding(p.makings())...)
	for i := range steps {
		steps[i].N = i + 1
	}
	return steps
}

// deletions are in an order in which everything goes before what it needs. What the kernel takes along with its link or namespace has
// no step; but a redirect has, before the device it leads to.
func (p *planner) deletions() (steps []Step) {
	gone := make(map[model.ID]bool)
	for _, f := range p.order {
		if f.have != nil && p.goes(f.item.ID) && f.verdict != InConflict {
			gone[f.item.ID] = true
		}
	}
	needed := make(map[model.ID][]model.ID) // by what is deleted: those deleted that need it
	ids := slices.Sorted(maps.Keys(gone))
	slices.SortStableFunc(ids, func(a, b model.ID) int {
		return slices.Index(model.Kinds, b.Kind()) - slices.Index(model.Kinds, a.Kind())
	})
	for _, id := range ids {
		for _, need := range p.system.Objects[id].Needs(p.system) {
			if gone[need] {
				needed[need] = append(needed[need], id)
			}
		}
	}
	done := make(map[model.ID]bool)
	var visit func(id model.ID)
	visit = func(id model.ID) {
		if done[id] {
			return
		}
		done[id] = true
		for _, n := range needed[id] {
			visit(n)
		}
		o := p.system.Objects[id]
		if p.takenAlong(o, gone, done) {
			return
		}
		steps = append(steps, Step{Op: Delete, ID: id, Type: o.Variant(p.system), Fields: o.Fields, Alias: o.Alias, Index: o.Index, Inode: o.Inode})
	}
	for _, id := range ids {
		visit(id)
	}
	return steps
}

func (p *planner) takenAlong(o *model.Object, gone, done map[model.ID]bool) bool {
	switch o.ID.Kind() {
	case model.KindAddress, model.KindQdisc, model.KindClass:
		if gone[model.LinkID(o.ID.Link())] {
			return true
		}
		if o.ID.Kind() == model.KindAddress || o.ID.Words()[1] == "root" || o.ID.Words()[1] == "ingress" {
			return false
		}
		return gone[model.QdiscID(o.ID.Link(), "root")]
	case model.KindRoute:
		if r := o.Fields["link"].Link(); r != "" && gone[model.LinkID(r)] {
			return true
		}
		return gone[model.NetnsID(o.ID.Netns())]
	case model.KindRule, model.KindNAT, model.KindFirewall, model.KindSysctl:
		return gone[model.NetnsID(o.ID.Netns())]
	case model.KindLink:
		peer := o.Fields["peer"].Link()
		return peer != "" && gone[model.LinkID(peer)] && done[model.LinkID(peer)] && o.Fields["type"] == "veth"
	}
	return false
}

// makings are the steps that create and change.
func (p *planner) makings() []Step {
	g := &graph{nodes: map[nodeKey]*node{}}
	for _, f := range p.order {
		if f.verdict != WillDelete && f.verdict != InConflict {
			p.nodesOf(g, f)
		}
	}
	for _, f := range p.order {
		if f.verdict != WillDelete && f.verdict != InConflict {
			p.edgesOf(g, f)
		}
	}
	return g.sorted()
}

func (p *planner) isLate(f *fate, name model.Field) bool {
	info := model.Describe(f.item.ID.Kind(), f.item.Type, name)
	return info != nil && info.Late
}

// split separates the fields a link is made with from those it gets last.
func (p *planner) split(f *fate) (first, late model.Fields) {
	first, late = model.Fields{}, model.Fields{}
	for name, v := range f.item.Fields {
		if p.isLate(f, name) {
			late[name] = v
		} else {
			first[name] = v
		}
	}
	return first, late
}

func (p *planner) nodesOf(g *graph, f *fate) {
	id := f.item.ID
	step := Step{ID: id, Type: f.item.Type, Owner: f.item.Owner, Foreign: f.foreign}
	if f.have != nil {
		step.Index, step.Inode = f.have.Index, f.have.Inode
	}
	var first, late []FieldChange
	switch {
	case f.verdict == WillCreate || f.verdict == WillRecreate || p.lost[id]:
		if _, made := g.nodes[nodeKey{id, build}]; made {
			late = p.lateOfNew(f) // the second end of a veth
			break
		}
		step.Op, step.Index = Create, 0
		if link := p.system.Objects[model.LinkID(id.Link())]; link != nil && id.Kind() != model.KindLink && !p.goes(link.ID) {
			step.Index = link.Index
		}
		if id.Kind() == model.KindLink || id.Kind() == model.KindNetns {
			step.Inode = 0
		}
		step.Alias = p.alias(f.item)
		step.Fields, _ = p.split(f)
		if link := p.system.Objects[model.LinkID(id.Link())]; id.Kind() == model.KindAttachment && needsDownPorts(f.item.Type) &&
			link != nil && !p.ours(link) && (link.Fields["up"] == model.Bool(false) || p.downs[id.Link()] != "") {
			step.Side = []FieldChange{{"up", model.Bool(false), model.Bool(true)}}
		}
		n := g.add(nodeKey{id, build}, step)
		if peer := p.fates[peerID(f.item)]; peer != nil && id.Kind() == model.KindLink {
			n.step.Peer, _ = p.split(peer)
			n.step.PeerAlias = p.alias(peer.item)
			g.nodes[nodeKey{peer.item.ID, build}] = n
		}
		late = p.lateOfNew(f)
	case f.verdict == WillChange:
		for _, c := range f.changes {
			if p.isLate(f, c.Field) {
				late = append(late, c)
			} else {
				first = append(first, c)
			}
		}
		step.Op, step.Changes = Change, first
		if p.unmarked(f) {
			step.Alias = p.alias(f.item)
		}
		if len(first) > 0 || len(late) == 0 {
			g.add(nodeKey{id, build}, step)
			step.Alias = ""
		}
	}
	if id.Kind() == model.KindLink {
		p.settleNode(g, f, step, late)
	}
}

// lateOfNew lists what a new link, which is down and has no ports, gets last.
func (p *planner) lateOfNew(f *fate) (list []FieldChange) {
	_, late := p.split(f)
	for _, name := range slices.Sorted(maps.Keys(late)) {
		old := model.Value("")
		if name == "up" {
			old = model.Bool(false)
		}
		if late[name] != old {
			list = append(list, FieldChange{name, old, late[name]})
		}
	}
	return list
}

func (p *planner) settleNode(g *graph, f *fate, step Step, late []FieldChange) {
	id := f.item.ID
	r := id.Link()
	step.Op, step.Fields, step.Peer, step.PeerAlias = Change, nil, nil, ""
	if f.verdict == WillCreate || f.verdict == WillRecreate {
		step.Index, step.Alias, step.Inode = 0, "", 0
	}
	up := slices.IndexFunc(late, func(c FieldChange) bool { return c.Field == "up" })
	if why := p.downs[r]; why != "" {
		down := step
		down.Alias = ""
		down.Changes = []FieldChange{{"up", model.Bool(true), model.Bool(false)}}
		g.add(nodeKey{id, lower}, down)
		again := model.Bool(true) // as it was
		if v, ok := f.item.Fields["up"]; ok {
			again = v
		}
		if up >= 0 {
			again = late[up].New
			late = slices.Delete(slices.Clone(late), up, up+1)
		}
		if again == model.Bool(true) || p.joins(r) {
			late = append(late, FieldChange{"up", model.Bool(false), again})
		}
	} else if p.joins(r) && up < 0 {
		// Joining a bond takes the port up.
		if v, ok := f.item.Fields["up"]; ok && v == model.Bool(false) {
			late = append(late, FieldChange{"up", model.Bool(true), v})
		}
	}
	if len(late) > 0 {
		step.Changes = late
		g.add(nodeKey{id, settle}, step)
	}
}

// joins reports whether a link becomes the port of a bond or team.
func (p *planner) joins(r model.Ref) bool {
	a := p.fates[model.AttachmentID(r)]
	return a != nil && needsDownPorts(a.item.Type) && (a.verdict == WillCreate || a.verdict == WillRecreate)
}

func (p *planner) edgesOf(g *graph, f *fate) {
	id := f.item.ID
	n := g.nodes[nodeKey{id, build}]
	up := g.nodes[nodeKey{id, settle}]
	g.edge(g.nodes[nodeKey{id, lower}], n)
	g.edge(g.nodes[nodeKey{id, lower}], up)
	g.edge(n, up)
	for _, need := range f.item.Needs {
		g.edge(g.nodes[nodeKey{need, build}], n)
		if id.Kind() == model.KindLink && need.Kind() == model.KindLink && need != peerID(f.item) {
			g.edge(g.nodes[nodeKey{need, settle}], up) // a vlan cannot be up above a parent that is down
		}
	}
	for _, need := range f.item.NeedsUp {
		g.edge(g.nodes[nodeKey{need, settle}], n)
	}
	switch id.Kind() {
	case model.KindAttachment:
		port, master := model.LinkID(id.Link()), model.LinkID(f.item.Fields["master"].Link())
		g.edge(g.nodes[nodeKey{port, lower}], n)
		g.edge(n, g.nodes[nodeKey{port, settle}])
		g.edge(n, g.nodes[nodeKey{master, settle}])
	case model.KindAddress, model.KindQdisc, model.KindClass:
		if p.lost[id] {
			g.edge(g.nodes[nodeKey{model.LinkID(id.Link()), lower}], n)
		}
		g.edge(n, g.nodes[nodeKey{model.LinkID(id.Link()), settle}])
	}
}

// graph is made of the steps that create and change, and what has to come before what.
type graph struct {
	nodes map[nodeKey]*node
	order []*node
}

func (g *graph) add(key nodeKey, s Step) *node {
	n := &node{key: key, step: s, rank: rankOf(key.id.Kind(), key.phase), seq: len(g.order)}
	g.nodes[key] = n
	g.order = append(g.order, n)
	return n
}

// edge lets a come before b; either may be nil, which is nothing.
func (g *graph) edge(a, b *node) {
	if a == nil || b == nil || a == b {
		return
	}
	a.before = append(a.before, b)
	b.after++
}

// sorted returns the steps in an order along the edges, and by rank where there is a choice.
func (g *graph) sorted() []Step {
	var ready queue
	for _, n := range g.order {
		if n.after == 0 {
			ready = append(ready, n)
		}
	}
	heap.Init(&ready)
	steps := make([]Step, 0, len(g.order))
	for ready.Len() > 0 {
		n := heap.Pop(&ready).(*node)
		steps = append(steps, n.step)
		for _, b := range n.before {
			if b.after--; b.after == 0 {
				heap.Push(&ready, b)
			}
		}
	}
	if len(steps) != len(g.order) {
		// Items that need each other: Validate refuses them.
		var left []string
		for _, n := range g.order {
			if n.after > 0 {
				left = append(left, string(n.step.Op)+" "+string(n.step.ID))
			}
		}
		panic("plan: the items form a cycle: " + strings.Join(left, ", "))
	}
	return steps
}

type queue []*node

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].rank < q[j].rank || q[i].rank == q[j].rank && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*node)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	n := (*q)[last]
	*q = (*q)[:last]
	return n
}
