package loopguard

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is a network of networks under a simulated clock. Networks are hubs: what one node writes all others read. Peers are
// joined by links with delay and loss.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Duration
	queue  arrivals
	serial int
	nodes  []*node
	links  []*link
	loss   float64 // of each link, 0 to 1

	carried int // probes that crossed a link
}

type node struct {
	*Guard
	network int
	tunnel  int
	dead    bool
	peers   []*link
	events  []Event
}

// link joins two nodes of one tunnel.
type link struct {
	ends  [2]*node
	spoke [2]bool // whether ends[i] treats the other end as a spoke
	delay time.Duration
	cut   bool
}

func (l *link) index(n *node) int {
	if l.ends[0] == n {
		return 0
	}
	return 1
}

func (l *link) other(n *node) *node { return l.ends[1-l.index(n)] }

func (l *link) up() bool { return !l.cut && !l.ends[0].dead && !l.ends[1].dead }

// arrival is a probe that reaches a node, over a link or, without one, at its interface.
type arrival struct {
	at     time.Duration
	serial int
	to     *node
	over   *link
	frame  []byte
}

type arrivals []arrival

func (a arrivals) Len() int { return len(a) }
func (a arrivals) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].serial < a[j].serial
}
func (a arrivals) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *arrivals) Push(x any)   { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), now: time.Second}
}

// add adds a node with the id to a network.
func (w *world) add(network, tunnel int, id uint64) *node {
	n := &node{Guard: New(id, w.rng.Uint64), network: network, tunnel: tunnel}
	w.nodes = append(w.nodes, n)
	return n
}

// join adds a link. aSpoke says that a treats b as a spoke.
func (w *world) join(a, b *node, aSpoke, bSpoke bool) *link {
	l := &link{ends: [2]*node{a, b}, spoke: [2]bool{aSpoke, bSpoke}, delay: time.Duration(1+w.rng.IntN(40)) * time.Millisecond}
	a.peers, b.peers = append(a.peers, l), append(b.peers, l)
	w.links = append(w.links, l)
	return l
}

// mesh joins all to all.
func (w *world) mesh(nodes ...*node) {
	for i, a := range nodes {
		for _, b := range nodes[:i] {
			w.join(a, b, false, false)
		}
	}
}

// star joins all to the first, which relays between them.
func (w *world) star(nodes ...*node) {
	for _, n := range nodes[1:] {
		w.join(nodes[0], n, true, false)
	}
}

func (w *world) send(to *node, over *link, delay time.Duration, frame []byte) {
	if !IsProbe(frame) || len(frame) < minFrame || len(frame) > MaxFrame {
		w.t.Fatalf("%d bytes sent that are no probe: %x", len(frame), frame)
	}
	w.serial++
	heap.Push(&w.queue, arrival{w.now + delay, w.serial, to, over, slices.Clone(frame)})
}

// write puts a frame into the node's network.
func (w *world) write(from *node, frame []byte) {
	for _, n := range w.nodes {
		if n != from && n.network == from.network && !n.dead {
			w.send(n, nil, time.Duration(w.rng.IntN(int(time.Millisecond))), frame)
		}
	}
}

func (w *world) forward(from *node, over *link, frame []byte) {
	if !over.up() || w.rng.Float64() < w.loss {
		return
	}
	w.carried++
	w.send(over.other(from), over, over.delay, frame)
}

// relays reports whether the node sends a broadcast that came over one link on over the other.
func relays(n *node, from, to *link) bool {
	return from != to && (from.spoke[from.index(n)] || to.spoke[to.index(n)])
}

// deliver gives an arrival to its node.
func (w *world) deliver(a arrival) {
	n := a.to
	if n.dead || a.over != nil && !a.over.up() {
		return
	}
	if a.over == nil {
		v := n.FromDevice(a.frame, w.now)
		if v.Bounce != nil || v.Write != nil {
			w.t.Fatal("a probe from the interface was to be bounced or written")
		}
		if v.Relay != nil {
			for _, l := range n.peers {
				w.forward(n, l, v.Relay)
			}
		}
		return
	}
	v := n.FromPeer(a.frame, a.over.spoke[a.over.index(n)], w.now)
	if v.Write != nil {
		w.write(n, v.Write)
	}
	for _, l := range n.peers {
		switch {
		case l == a.over:
		case relays(n, a.over, l):
			if v.Relay != nil {
				w.forward(n, l, v.Relay)
			}
		case v.Bounce != nil:
			w.forward(n, l, v.Bounce)
		}
	}
}

// settle tells the nodes what they reach, and takes their events.
func (w *world) settle(n *node) {
	if n.dead {
		return
	}
	n.SetReached(slices.ContainsFunc(n.peers, (*link).up), w.now)
	for e, ok := n.Event(); ok; e, ok = n.Event() {
		n.events = append(n.events, e)
	}
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	for end := w.now + d; ; {
		next := end
		if len(w.queue) > 0 {
			next = min(next, w.queue[0].at)
		}
		for _, n := range w.nodes {
			w.settle(n)
			if at := n.Deadline(); at != 0 && !n.dead {
				next = min(next, max(at, w.now))
			}
		}
		w.now = next
		if next == end {
			return
		}
		for len(w.queue) > 0 && w.queue[0].at <= w.now {
			w.deliver(heap.Pop(&w.queue).(arrival))
		}
		for _, n := range w.nodes {
			if at := n.Deadline(); at != 0 && at <= w.now && !n.dead {
				if frame, ok := n.Next(w.now); ok {
					w.write(n, frame)
				}
				if at = n.Deadline(); at != 0 && at <= w.now {
					w.t.Fatalf("deadline %v still due at %v after Next", at, w.now)
				}
			}
		}
	}
}

// broadcast floods a frame from a station of the network, as nodes forward frames, and returns how often each network gets it
// back from a node. It ends the test where the frame goes round.
func (w *world) broadcast(network int) map[int]int {
	type turn struct {
		at   *node
		over *link // nil: at the interface
	}
	got := map[int]int{}
	var turns []turn
	read := func(network int, but *node) {
		for _, n := range w.nodes {
			if n.network == network && n != but && !n.dead && !n.Blocked() {
				turns = append(turns, turn{n, nil})
			}
		}
	}
	cross := func(from *node, l *link) {
		if l.up() {
			turns = append(turns, turn{l.other(from), l})
		}
	}
	read(network, nil)
	for steps := 0; len(turns) > 0; steps++ {
		if steps > 10000 {
			w.t.Fatalf("a broadcast from network %d goes round for ever", network)
		}
		at := turns[0]
		turns = turns[1:]
		n := at.at
		for _, l := range n.peers {
			if at.over == nil || relays(n, at.over, l) {
				cross(n, l)
			}
		}
		if at.over != nil && !n.Blocked() {
			got[n.network]++
			read(n.network, n)
		}
	}
	return got
}

// forest returns which nodes are open in the minimum spanning forest over networks and tunnels (Kruskal's algorithm), which
// holds where each tunnel carries everything to all its nodes.
func (w *world) forest() (open map[*node]bool, component func(network int) int) {
	parent := map[int]int{}
	var find func(int) int
	find = func(v int) int {
		if p, ok := parent[v]; ok {
			return find(p)
		}
		return v
	}
	open = map[*node]bool{}
	sorted := slices.Clone(w.nodes)
	slices.SortFunc(sorted, func(a, b *node) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	for _, n := range sorted {
		if n.dead || !slices.ContainsFunc(n.peers, (*link).up) {
			continue
		}
		a, b := find(n.network), find(-1-n.tunnel)
		if open[n] = a != b; a != b {
			parent[a] = b
		}
	}
	return open, find
}

// check compares with the forest: just the nodes that are not in it are blocked, and each network that can be reached gets each
// broadcast once.
func (w *world) check(networks int) {
	w.t.Helper()
	open, component := w.forest()
	for n, want := range open {
		if n.Blocked() == want {
			w.t.Errorf("node %016x (network %d, tunnel %d): blocked %t", n.id, n.network, n.tunnel, n.Blocked())
		}
	}
	for from := range networks {
		got := w.broadcast(from)
		for to := range networks {
			want := 0
			if from != to && component(from) == component(to) {
				want = 1
			}
			if got[to] != want {
				w.t.Errorf("a broadcast from network %d reaches network %d %d times, want %d", from, to, got[to], want)
			}
		}
	}
}
