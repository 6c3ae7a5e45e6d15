package loopguard

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

const nodeID = 0x8000

// reached returns a node that reaches a peer, and its first probe.
func reached(t *testing.T, now time.Duration) (*Guard, []byte) {
	t.Helper()
	g := New(nodeID, rand.New(rand.NewPCG(1, 2)).Uint64)
	g.SetReached(true, now)
	frame, ok := g.Next(now)
	if !ok {
		t.Fatal("no probe at once")
	}
	return g, slices.Clone(frame)
}

// edit returns the frame with the probe in it changed.
func edit(t *testing.T, frame []byte, change func(p *probe)) []byte {
	t.Helper()
	var p probe
	if !p.read(frame) {
		t.Fatalf("not a probe: %x", frame)
	}
	change(&p)
	return slices.Clone(p.put(new([MaxFrame]byte), sourceOf(1)))
}

// via returns the frame as others pass it on.
func via(t *testing.T, frame []byte, hops ...hop) []byte {
	return edit(t, frame, func(p *probe) { p.length = copy(p.path[:], hops) })
}

var across = hop{1, true}

// TestForged: what does not come back as a real probe would does not block.
func TestForged(t *testing.T) {
	const now = time.Second
	for name, forge := range map[string]func(own []byte) ([]byte, time.Duration){
		"another nonce": func(own []byte) ([]byte, time.Duration) {
			return edit(t, via(t, own, across), func(p *probe) { p.nonce++ }), now
		},
		"another origin": func(own []byte) ([]byte, time.Duration) {
			return edit(t, via(t, own, across), func(p *probe) { p.origin++ }), now
		},
		"another VLAN": func(own []byte) ([]byte, time.Duration) {
			return edit(t, via(t, own, across), func(p *probe) { p.tags, p.tagBytes = 0x8100_0007, 4 }), now
		},
		"too late":                 func(own []byte) ([]byte, time.Duration) { return via(t, own, across), now + Lifetime + 1 },
		"no hop":                   func(own []byte) ([]byte, time.Duration) { return own, now },
		"on the wrong side":        func(own []byte) ([]byte, time.Duration) { return via(t, own, across, hop{2, true}), now },
		"cut short":                func(own []byte) ([]byte, time.Duration) { return via(t, own, across)[:40], now },
		"another node's as source": func(own []byte) ([]byte, time.Duration) { return append([]byte{1}, via(t, own, across)...), now },
	} {
		t.Run(name, func(t *testing.T) {
			g, own := reached(t, now)
			frame, at := forge(own)
			g.FromPeer(frame, false, at)
			if g.Blocked() || g.Loops() != 0 {
				t.Error("blocked")
			}
		})
	}
}

// TestReplay: a probe counts once, so a block does not outlast what was recorded.
func TestReplay(t *testing.T) {
	now := time.Second
	g, own := reached(t, now)
	back := via(t, own, across)
	g.FromPeer(back, false, now)
	if !g.Blocked() || g.Loops() != 1 {
		t.Fatal("not blocked by its own probe")
	}
	if d := g.Deadline(); d != now+BlockedInterval {
		t.Errorf("next probe at %v, want %v", d, now+BlockedInterval)
	}
	for end := now + Hold; now < end; now += 50 * time.Millisecond {
		g.FromPeer(back, false, now)
		g.FromPeer(edit(t, back, func(p *probe) { p.bounced = true }), true, now)
		g.Next(now)
	}
	if g.Next(now); g.Blocked() || g.Loops() != 1 {
		t.Errorf("blocked %t, %d loops: a replay counted", g.Blocked(), g.Loops())
	}
}

// TestPriorityTag: VLAN 0 is none.
func TestPriorityTag(t *testing.T) {
	g, own := reached(t, time.Second)
	g.FromPeer(edit(t, via(t, own, across), func(p *probe) { p.tags, p.tagBytes = 0x8100_e000, 4 }), false, time.Second)
	if !g.Blocked() {
		t.Error("not blocked by a probe in VLAN 0")
	}
}

// TestPassing: which probes of others go where.
func TestPassing(t *testing.T) {
	const now = time.Second
	probe0 := func(origin uint64, hops ...hop) []byte {
		p := probe{origin: origin, nonce: 99}
		p.length = copy(p.path[:], hops)
		return slices.Clone(p.put(new([MaxFrame]byte), sourceOf(origin)))
	}
	full := make([]hop, MaxPath-1)
	for i := range full {
		full[i] = hop{id: uint64(i + 1), crossed: i == 0}
	}
	bounced := func(frame []byte) []byte { return edit(t, frame, func(p *probe) { p.bounced = true }) }
	for _, c := range []struct {
		name                  string
		frame                 []byte
		device, spoke         bool
		relay, bounces, write bool
	}{
		{"from the network, higher", probe0(nodeID + 1), true, false, true, false, false},
		{"from the network, lower", probe0(nodeID - 1), true, false, false, false, false},
		{"from the network, bounced", bounced(probe0(nodeID + 1)), true, false, false, false, false},
		{"from the network, as if from a peer", probe0(nodeID+1, across), true, false, false, false, false},
		{"higher", probe0(nodeID+1, across), false, false, true, true, true},
		{"higher, of a spoke", probe0(nodeID+1, across), false, true, true, false, true},
		{"lower", probe0(nodeID-1, across), false, false, true, true, false},
		{"as if from the network", probe0(nodeID + 1), false, false, false, false, false},
		{"bounced", bounced(probe0(nodeID+1, across)), false, false, false, false, false},
		{"was here", probe0(nodeID+1, across, hop{nodeID, false}), false, false, false, false, false},
		{"last hop", probe0(nodeID+1, full...), false, false, true, true, true},
		{"path full", probe0(nodeID+1, append(slices.Clone(full), hop{77, false})...), false, false, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, blocked := range []bool{false, true} {
				g, own := reached(t, now)
				if blocked {
					g.FromPeer(via(t, own, across), false, now)
				}
				if g.Blocked() != blocked {
					t.Fatalf("blocked %t", g.Blocked())
				}
				var v Verdict
				if c.device {
					v = g.FromDevice(c.frame, now)
				} else {
					v = g.FromPeer(c.frame, c.spoke, now)
				}
				if (v.Relay != nil) != c.relay || (v.Bounce != nil) != c.bounces || (v.Write != nil) != c.write {
					t.Fatalf("blocked %t: relay %t, bounce %t, write %t", blocked, v.Relay != nil, v.Bounce != nil, v.Write != nil)
				}
				var before, after probe
				before.read(c.frame)
				for what, out := range map[string][]byte{"relay": v.Relay, "bounce": v.Bounce, "write": v.Write} {
					if out == nil {
						continue
					}
					if !after.read(out) || after.origin != before.origin || after.nonce != before.nonce || after.length != before.length+1 ||
						!slices.Equal(after.path[:before.length], before.path[:before.length]) {
						t.Fatalf("%s: %+v became %+v", what, before, after)
					}
					crossed := c.device || what == "write"
					if last := after.path[before.length]; last != (hop{nodeID, crossed}) || after.bounced != (what == "bounce") {
						t.Errorf("%s: last hop %+v, bounced %t", what, last, after.bounced)
					}
				}
				// The same again goes nowhere.
				if c.device {
					v = g.FromDevice(c.frame, now)
				} else {
					v = g.FromPeer(c.frame, c.spoke, now)
				}
				if v.Relay != nil || v.Bounce != nil || v.Write != nil {
					t.Error("passed on twice")
				}
			}
		})
	}
}

// TestPathFilledUp: whoever is first with a probe cannot have it die early by a long path.
func TestPathFilledUp(t *testing.T) {
	g, _ := reached(t, time.Second)
	p := probe{origin: nodeID + 1, nonce: 5, length: MaxPath - 1}
	for i := range p.length {
		p.path[i] = hop{id: uint64(i + 1), crossed: i == 0}
	}
	long := slices.Clone(p.put(new([MaxFrame]byte), sourceOf(1)))
	g.FromPeer(long, false, time.Second)
	if v := g.FromPeer(via(t, long, across), false, time.Second); v.Relay == nil || v.Bounce == nil || v.Write == nil {
		t.Error("the true probe is not passed on")
	}
}

// TestFlood: invented probes are passed on at the rate, and those from peers do not crowd out those from the interface.
func TestFlood(t *testing.T) {
	now := time.Second
	g, _ := reached(t, now)
	passed := 0
	for i := range 100_000 {
		p := probe{origin: nodeID + 1, nonce: uint64(i), length: 1, path: [MaxPath]hop{across}}
		if v := g.FromPeer(p.put(new([MaxFrame]byte), sourceOf(1)), false, now); v.Write != nil {
			passed++
		}
		now += 100 * time.Microsecond
	}
	if passed < 10*Rate || passed > 10*Rate+Burst {
		t.Errorf("%d of a flood passed on in 10 s", passed)
	}
	p := probe{origin: nodeID + 1, nonce: 1 << 40}
	if v := g.FromDevice(p.put(new([MaxFrame]byte), sourceOf(1)), now); v.Relay == nil {
		t.Error("a probe from the interface found no token")
	}
}

// TestLocalLoop: a loop of the network itself is told, once, and does not hide one through a peer.
func TestLocalLoop(t *testing.T) {
	now := time.Second
	g, own := reached(t, now)
	told := 0
	for range 30 {
		g.FromDevice(own, now)
		g.FromDevice(own, now)
		for e, ok := g.Event(); ok; e, ok = g.Event() {
			if e.Kind != LocalLoop || !strings.Contains(e.String(), "0000000000008000") {
				t.Errorf("event %v", e)
			}
			told++
		}
		now = g.Deadline()
		next, ok := g.Next(now)
		if !ok {
			t.Fatal("no probe when due")
		}
		own = slices.Clone(next)
	}
	if told != 1 || g.LocalLoops() != 30 || g.Blocked() {
		t.Errorf("told %d times, counted %d, blocked %t", told, g.LocalLoops(), g.Blocked())
	}
	g.FromDevice(own, now)
	g.FromPeer(via(t, own, across), false, now)
	if !g.Blocked() {
		t.Error("the loop through a peer was not seen")
	}
	// One that crossed other nodes is their affair.
	before := g.LocalLoops()
	own, _ = g.Next(g.Deadline())
	if g.FromDevice(via(t, own, across, hop{2, true}), now); g.LocalLoops() != before {
		t.Error("a loop through other nodes counted as one of the network")
	}
}

func TestEvents(t *testing.T) {
	g, own := reached(t, time.Second)
	g.FromPeer(via(t, own, hop{0xa, true}, hop{0xb, false}, hop{0xc, true}, hop{0xd, true}), false, time.Second)
	e, ok := g.Event()
	if !ok || e.Kind != Blocked || e.Node != nodeID || !slices.Equal(e.Others, []uint64{0xa, 0xc, 0xd}) {
		t.Errorf("event %+v", e)
	}
	const want = "loop found: frames come back to node 0000000000008000 by 000000000000000a, 000000000000000c, " +
		"000000000000000d; it forwards none until the loop is gone"
	if e.String() != want {
		t.Errorf("%q", e)
	}
	// Events that nobody takes do not add up.
	now := time.Second
	for range 100 {
		g.SetEnabled(false, now)
		g.SetEnabled(true, now)
		now += time.Second
		own, _ := g.Next(now)
		g.FromPeer(via(t, own, across), false, now)
	}
	n := 0
	for e, ok = g.Event(); ok; e, ok = g.Event() {
		n++
	}
	if n != maxEvents {
		t.Errorf("%d events kept, want the last %d", n, maxEvents)
	}
}

func TestMemory(t *testing.T) {
	if size := unsafe.Sizeof(Guard{}); size > 24<<10 {
		t.Errorf("a Guard takes %d bytes; doc.go says 20 KiB", size)
	} else {
		t.Logf("%d bytes", size)
	}
}

func TestNoAllocations(t *testing.T) {
	now := time.Second
	g, own := reached(t, now)
	data := make([]byte, 1514)
	other := probe{origin: nodeID + 1, length: 1, path: [MaxPath]hop{across}}
	var buf [MaxFrame]byte
	if n := testing.AllocsPerRun(1000, func() {
		now += 20 * time.Millisecond
		if IsProbe(data) || !IsProbe(own) {
			t.Fatal("told wrong")
		}
		other.nonce++
		if v := g.FromPeer(other.put(&buf, sourceOf(1)), false, now); v.Write == nil {
			t.Fatal("not passed on")
		}
		g.FromDevice(own, now)
		g.Next(now)
		g.Suspect(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkIsProbe(b *testing.B) {
	frame := make([]byte, 1514)
	binary.BigEndian.PutUint64(frame, 0x5254_0012_3456_5254)
	for b.Loop() {
		if IsProbe(frame) {
			b.Fatal("data taken for a probe")
		}
	}
}
