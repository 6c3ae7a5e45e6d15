package loopguard

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// converge is how long the longest way may take, and the probes that are due meanwhile.
const converge = 3 * time.Second

// random fills a world with meshes and stars between networks and returns how many networks there are.
func random(w *world) (networks int) {
	networks = 2 + w.rng.IntN(4)
	for tunnel := range 1 + w.rng.IntN(4) {
		var nodes []*node
		for range 2 + w.rng.IntN(3) {
			nodes = append(nodes, w.add(w.rng.IntN(networks), tunnel, w.rng.Uint64()))
		}
		if w.rng.IntN(2) == 0 {
			w.mesh(nodes...)
		} else {
			w.star(nodes...)
		}
	}
	return networks
}

// TestRandomTopologies: just the nodes outside the minimum spanning forest block, once and for good; after a node has died, and
// after it is back, those of the new one.
func TestRandomTopologies(t *testing.T) {
	cycles, trees := 0, 0
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			networks := random(w)
			w.run(converge)
			w.check(networks)
			w.run(20 * time.Second)
			w.check(networks)
			open, _ := w.forest()
			for n, stays := range open {
				if want := uint64(1); stays && n.Loops() != 0 || !stays && n.Loops() != want {
					t.Errorf("node %016x: found %d loops, in the forest %t", n.id, n.Loops(), stays)
				}
				if stays {
					trees++
				} else {
					cycles++
				}
				if n.LocalLoops() != 0 {
					t.Errorf("node %016x: a loop of its own network", n.id)
				}
			}
			if t.Failed() {
				return
			}

			dead := w.nodes[w.rng.IntN(len(w.nodes))]
			dead.dead = true
			w.run(Hold + converge)
			w.check(networks)
			dead.dead = false
			dead.Guard = New(w.rng.Uint64(), w.rng.Uint64)
			w.run(Hold + converge) // Hold too: others may block no longer
			w.check(networks)
		})
	}
	if cycles < 200 || trees < 500 {
		t.Errorf("%d nodes blocked and %d open: the topologies are not worth much", cycles, trees)
	}
}

// named topologies, with the ids in order of addition unless reversed.
func TestTopologies(t *testing.T) {
	for _, c := range []struct {
		name     string
		networks int
		build    func(w *world, add func(network, tunnel int) *node)
	}{
		{"full mesh of sites", 4, func(w *world, add func(int, int) *node) { w.mesh(add(0, 0), add(1, 0), add(2, 0), add(3, 0)) }},
		{"hub and spokes", 4, func(w *world, add func(int, int) *node) { w.star(add(0, 0), add(1, 0), add(2, 0), add(3, 0)) }},
		{"chain of tunnels", 4, func(w *world, add func(int, int) *node) {
			for i := range 3 {
				w.mesh(add(i, i), add(i+1, i))
			}
		}},
		{"two gateways in a mesh", 2, func(w *world, add func(int, int) *node) { w.mesh(add(0, 0), add(0, 0), add(1, 0)) }},
		{"two gateways as spokes", 2, func(w *world, add func(int, int) *node) { w.star(add(1, 0), add(0, 0), add(0, 0)) }},
		{"gateway beside the hub", 2, func(w *world, add func(int, int) *node) { w.star(add(0, 0), add(0, 0), add(1, 0)) }},
		{"two parallel tunnels", 2, func(w *world, add func(int, int) *node) {
			w.mesh(add(0, 0), add(1, 0))
			w.mesh(add(1, 1), add(0, 1))
		}},
		{"five parallel tunnels", 2, func(w *world, add func(int, int) *node) {
			for i := range 5 {
				w.mesh(add(0, i), add(1, i))
			}
		}},
		{"ring of seven sites", 7, func(w *world, add func(int, int) *node) {
			for i := range 7 {
				w.mesh(add(i, i), add((i+1)%7, i))
			}
		}},
		{"a tunnel into the same network", 1, func(w *world, add func(int, int) *node) { w.mesh(add(0, 0), add(0, 0)) }},
		{"tunnels apart", 5, func(w *world, add func(int, int) *node) {
			w.mesh(add(0, 0), add(1, 0))
			w.mesh(add(2, 1), add(3, 1), add(4, 1), add(3, 1))
		}},
		{"tunnels apart in one network", 3, func(w *world, add func(int, int) *node) {
			w.mesh(add(0, 0), add(1, 0))
			w.mesh(add(0, 1), add(2, 1))
		}},
	} {
		for _, reversed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/reversed=%t", c.name, reversed), func(t *testing.T) {
				w := newWorld(t, 1)
				var id uint64 = 100
				c.build(w, func(network, tunnel int) *node {
					if id++; reversed {
						return w.add(network, tunnel, 1000-id)
					}
					return w.add(network, tunnel, id)
				})
				w.run(converge)
				w.check(c.networks)
				w.run(time.Minute)
				w.check(c.networks)
			})
		}
	}
}

// TestLongestRing: a cycle of MaxPath nodes besides the one that blocks.
func TestLongestRing(t *testing.T) {
	w := newWorld(t, 1)
	for i := range 8 {
		w.mesh(w.add(i, i, uint64(2*i+1)), w.add((i+1)%8, i, uint64(2*i+2)))
	}
	w.run(converge)
	w.check(8)
	if !w.nodes[15].Blocked() {
		t.Error("the highest is not blocked")
	}
}

// TestBounce: two gateways of network 0 at a hub that does not relay. Its own broadcasts would come back to it.
func TestBounce(t *testing.T) {
	for _, ids := range [][3]uint64{{1, 2, 3}, {1, 3, 2}, {2, 3, 1}} {
		w := newWorld(t, 1)
		a, c, hub := w.add(0, 0, ids[0]), w.add(0, 0, ids[1]), w.add(1, 0, ids[2])
		ac := [...]*link{w.join(a, hub, false, false), w.join(c, hub, false, false)}
		if got := w.broadcast(1); got[1] != 2 {
			t.Fatalf("without blocks the hub's network gets its own broadcast %d times, want 2", got[1])
		}
		w.run(converge)
		if a.Blocked() || hub.Blocked() || !c.Blocked() {
			t.Errorf("ids %v: blocked %t %t, hub %t", ids, a.Blocked(), c.Blocked(), hub.Blocked())
		}
		w.check(2)
		ac[0].cut = true
		w.run(Hold + Interval)
		if c.Blocked() {
			t.Error("still blocked after the other gateway lost its tunnel")
		}
		w.check(2)
	}
}

// TestNoBounceWithoutWayBack: in a chain of peers that do not relay, between two gateways of one network, nothing comes back
// to where it started, and a block would cut off a site.
func TestNoBounceWithoutWayBack(t *testing.T) {
	w := newWorld(t, 1)
	a, b, c, d := w.add(0, 0, 1), w.add(1, 0, 2), w.add(2, 0, 3), w.add(0, 0, 4)
	w.join(a, b, false, false)
	w.join(b, c, false, false)
	w.join(c, d, false, false)
	w.run(time.Minute)
	for _, n := range w.nodes {
		if n.Blocked() || n.Loops() != 0 {
			t.Errorf("node %d blocked", n.id)
		}
	}
	for from := range 3 {
		if got := w.broadcast(from); got[from] != 0 {
			t.Errorf("network %d gets its own broadcast back", from)
		}
	}
}

// TestTimes: a loop is broken as soon as the first probe is round, and its end shows within Hold and a probe.
func TestTimes(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.add(0, 0, 1), w.add(1, 0, 2)
	w.mesh(a, b)
	w.run(10*time.Second + 123*time.Millisecond)
	c, d := w.add(0, 1, 3), w.add(1, 1, 4)
	w.mesh(c, d)
	w.run(200 * time.Millisecond)
	if !d.Blocked() {
		t.Error("not blocked after one way round")
	}
	w.run(17*time.Second + 77*time.Millisecond)
	b.dead = true
	cut := w.now
	for d.Blocked() && w.now-cut < time.Minute {
		w.run(10 * time.Millisecond)
	}
	if took := w.now - cut; took > Hold+200*time.Millisecond || took < Hold-BlockedInterval-200*time.Millisecond {
		t.Errorf("opened after %v, want about %v", took, Hold)
	}
	var kinds []EventKind
	for _, e := range d.events {
		kinds = append(kinds, e.Kind)
		if e.Kind == Blocked && !slices.Equal(e.Others, []uint64{2, 1, 3}) {
			t.Errorf("loop through %v", e.Others)
		}
	}
	if !slices.Equal(kinds, []EventKind{Blocked, Released}) {
		t.Errorf("events %v", d.events)
	}
}

// TestLoss: a fifth of what each link carries is lost, for half an hour.
func TestLoss(t *testing.T) {
	w := newWorld(t, 7)
	for i := range 2 {
		w.mesh(w.add(0, i, uint64(10+i)), w.add(1, i, uint64(20+i)))
	}
	w.loss = 0.2
	w.run(10 * time.Second)
	w.check(2)
	w.run(30 * time.Minute)
	w.check(2)
	if n := w.nodes[3].Loops(); n != 1 {
		t.Errorf("blocked %d times", n)
	}
}

// TestDense: all of a mesh of 20 in one network. Only the lowest stays open, and what probes cost stays bounded.
func TestDense(t *testing.T) {
	const size = 20
	w := newWorld(t, 1)
	for i := range size {
		w.add(0, 0, uint64(1+i))
	}
	w.mesh(w.nodes...)
	w.run(converge)
	w.check(1)
	before := w.carried
	w.run(10 * time.Second)
	w.check(1)
	// Of each of two probes a second of an origin, every other node floods one from its interface and bounces one.
	if perSecond, most := (w.carried-before)/10, 2*(size-1)*2*(size-1)*(size-1); perSecond > most {
		t.Errorf("%d probes a second over all links, want at most %d", perSecond, most)
	} else {
		t.Logf("%d probes a second over all links, of at most %d", perSecond, most)
	}
	for _, n := range w.nodes {
		if n.Loops() > 1 {
			t.Errorf("node %d blocked %d times", n.id, n.Loops())
		}
	}
}

// TestDisabled: a node that does not look for loops passes all probes and does not block; another does.
func TestDisabled(t *testing.T) {
	w := newWorld(t, 1)
	a, b, c := w.add(0, 0, 30), w.add(0, 0, 20), w.add(1, 0, 10)
	w.mesh(a, b, c)
	a.SetEnabled(false, w.now)
	w.run(converge)
	if a.Blocked() || !b.Blocked() || c.Blocked() {
		t.Errorf("blocked: %t %t %t", a.Blocked(), b.Blocked(), c.Blocked())
	}
	if got := w.broadcast(1); got[0] != 1 || got[1] != 0 {
		t.Errorf("broadcast: %v", got)
	}
	a.SetEnabled(true, w.now)
	w.run(Hold + converge)
	w.check(2)
	a.SetEnabled(false, w.now)
	if a.Blocked() || a.Deadline() != 0 {
		t.Error("blocked or due although off")
	}
}

// TestReconnect: what was blocked when it lost its peers is still blocked when it has them again, for long enough to look.
func TestReconnect(t *testing.T) {
	w := newWorld(t, 1)
	a, b, c := w.add(0, 0, 1), w.add(0, 0, 2), w.add(1, 0, 0)
	w.mesh(a, b, c)
	w.run(converge)
	cut := func(is bool) {
		for _, l := range b.peers {
			l.cut = is
		}
	}
	cut(true)
	w.run(time.Minute)
	if !b.Blocked() || b.Deadline() != 0 {
		t.Errorf("blocked %t, deadline %v", b.Blocked(), b.Deadline())
	}
	cut(false)
	for range 100 {
		w.run(10 * time.Millisecond)
		if !b.Blocked() {
			t.Fatal("open although the loop is back")
		}
	}
	w.check(2)
	cut(true)
	a.dead = true
	w.run(time.Second)
	cut(false)
	w.run(Hold + Interval)
	if b.Blocked() {
		t.Error("blocked without a loop")
	}
}

// TestSuspect: the hint brings probes forward, to at most ten a second.
func TestSuspect(t *testing.T) {
	w := newWorld(t, 1)
	g := w.add(0, 0, 1).Guard
	now := time.Second
	g.Suspect(now)
	if _, ok := g.Next(now); ok || g.Deadline() != 0 {
		t.Error("a probe without a peer")
	}
	g.SetReached(true, now)
	probes := 0
	for end := now + 10*time.Second; now < end; now += time.Millisecond {
		g.Suspect(now)
		if g.Deadline() <= now {
			if _, ok := g.Next(now); ok {
				probes++
			}
		}
	}
	if probes != 100 {
		t.Errorf("%d probes in 10 s, want 100", probes)
	}
}
