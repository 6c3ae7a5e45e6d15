package tunnel

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/loopguard"
	"culvert/tunnel/message"
)

// bpdu makes a frame of spanning tree's, of a bridge.
func bpdu(from ethernet.Address, rest ...byte) []byte {
	f := frame(bridgeGroup, from, "\x42\x42\x03\x00\x00\x00"+string(rest))
	f[12], f[13] = 0, byte(len(f)-14)
	return f
}

func TestTopologyChange(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"TCN", bpdu(station(1), 0x80), true},
		{"TCN with a tag", tagged(7, bpdu(station(1), 0x80)), true},
		{"configuration with the flag", bpdu(station(1), 0, 1), true},
		{"configuration with an acknowledgment", bpdu(station(1), 0, 0x80), false},
		{"rapid with the flag", bpdu(station(1), 2, 0x3d), true},
		{"rapid without", bpdu(station(1), 2, 0x3c), false},
		{"unknown type", bpdu(station(1), 1, 1), false},
		{"cut before the flags", bpdu(station(1), 0), false},
		{"cut before the type", bpdu(station(1)), false},
		{"no header of LLC", frame(bridgeGroup, station(1), "\x42\x43\x03\x00\x00\x00\x80"), false},
		{"other protocol", frame(bridgeGroup, station(1), "\x42\x42\x03\x00\x01\x00\x80"), false},
		{"other group", frame(bridgeGroup|2, station(1), "\x42\x42\x03\x00\x00\x00\x80"), false},
	} {
		h, ok := ethernet.Parse(c.frame)
		if !ok {
			t.Fatalf("%s: no frame", c.name)
		}
		if got := topologyChange(c.frame, &h); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A station behind one of two peers is reached behind the other at once when spanning tree has said that its way has changed, though
// it sends nothing.
func TestTopologyChangeForgetsStations(t *testing.T) {
	for _, linkLocal := range []bool{true, false} {
		t.Run(fmt.Sprintf("link local %v", linkLocal), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mesh := newTapMesh(t, transporttest.New(1), 3)
				a, b, c := mesh[0], mesh[1], mesh[2]
				for _, n := range mesh {
					n.configure(Change{Switch: &SwitchChange{LinkLocal: linkLocal}})
				}
				known := func() map[ethernet.Address]string { synctest.Wait(); return c.addresses() }
				learn := func() {
					t.Helper()
					c.frames()
					a.sendFrame(frame(ethernet.Broadcast, station(1), "here"))
					c.expectFrames(frame(ethernet.Broadcast, station(1), "here"))
					b.frames()
					if known()[station(1)] == "" {
						t.Fatalf("c knows %v", known())
					}
				}
				learn()
				time.Sleep(2 * forgetEvery)
				b.sendFrame(bpdu(station(9), 0, 0)) // of no change
				c.frames()
				if known()[station(1)] == "" {
					t.Error("c forgot a station though nothing changed")
				}
				b.sendFrame(bpdu(station(9), 0, 1))
				time.Sleep(time.Millisecond)
				if got := known()[station(1)] == ""; got != linkLocal {
					t.Errorf("after a change c has forgotten the station: %v, want %v", got, linkLocal)
				}
				if !linkLocal {
					return
				}
				a.frames()
				c.frames()
				c.sendFrame(frame(station(1), station(3), "where are you"))
				b.expectFrames(frame(station(1), station(3), "where are you"))
				a.expectFrames(frame(station(1), station(3), "where are you"))
				// More of it is put together.
				learn()
				for range 5 {
					b.sendFrame(bpdu(station(9), 0x80))
				}
				if known()[station(1)] == "" {
					t.Error("c forgot a station again at once")
				}
				time.Sleep(forgetEvery + bridgeEvery)
				if known()[station(1)] != "" {
					t.Error("c did not forget the station again")
				}
				// What its own network tells counts as well.
				learn()
				time.Sleep(2 * forgetEvery)
				c.sendFrame(bpdu(station(9), 2, 1))
				time.Sleep(time.Millisecond)
				if known()[station(1)] != "" {
					t.Error("c did not hear its own network")
				}
			})
		})
	}
}

// segments are two networks with a node on each, which a cable joins or does not.
type segments struct {
	nodes [2]*node

	mu     sync.Mutex
	joined bool
	heard  [2][][]byte // without loop probes
}

func newSegments(nodes ...*node) *segments {
	s := &segments{nodes: [2]*node(nodes)}
	for i, n := range nodes {
		go func() {
			for {
				f, _, ok := n.dev.Queue(0).Next(nil)
				if !ok {
					return
				}
				s.send(f, i, n)
			}
		}()
	}
	return s
}

// send has a frame appear on a network; from is the node it came through, or nil.
func (s *segments) send(f []byte, at int, from *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range s.nodes {
		if i != at && !s.joined {
			continue
		}
		if !loopguard.IsProbe(f) && len(s.heard[i]) < 1<<16 {
			s.heard[i] = append(s.heard[i], f)
		}
		if n != from {
			n.sendFrame(f)
		}
	}
}

func (s *segments) join(joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joined = joined
}

// count returns how many copies of a frame a network has heard since it was last asked.
func (s *segments) count(f []byte, at int) (n int) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.heard[at] {
		if bytes.Equal(h, f) {
			n++
		}
	}
	s.heard = [2][][]byte{}
	return n
}

// Where an end blocks its interface because of a loop, or opens it again, stations are behind other ends. Everybody finds them
// there at once, though they send nothing: the hub, and the other spoke through the hub.
func TestBlockedEndHasStationsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: time.Millisecond})
		hub, a, b := newTapNode(t, network, 1), newTapNode(t, network, 2), newTapNode(t, network, 3)
		for _, n := range []*node{a, b} {
			keepalive := tapKeepalive
			common := func(c *PeerChange) {
				onNativeWire(c)
				c.AllowedIPs, c.Keepalive = nil, &keepalive
			}
			hub.addPeerNode(n, true, common, func(c *PeerChange) { c.Port = &PortChange{Spoke: true} })
			n.addPeerNode(hub, true, func(c *PeerChange) {
				common(c)
				c.Port = &PortChange{Broadcast: 1000} // no wire: it learns
			})
		}
		lans := newSegments(a, b)
		time.Sleep(time.Second)
		hub.sendFrame(frame(ethernet.Broadcast, station(9), "the hub's"))
		everybodySpeaks := func() {
			for i := range 2 {
				lans.send(frame(ethernet.Broadcast, station(1+i), "here"), i, nil)
			}
			time.Sleep(time.Second)
		}
		everybodySpeaks()
		for _, n := range []*node{hub, a, b} {
			if got := n.addresses(); len(got) != 3 {
				t.Fatalf("%v knows %v", n.addr, got)
			}
		}

		lans.join(true)
		time.Sleep(3 * time.Second)
		blocked := 0
		for _, n := range []*node{a, b} {
			if n.Status().Switch.Blocked {
				blocked++
			}
		}
		if blocked != 1 {
			t.Fatalf("%d ends are blocked", blocked)
		}
		for i := range 2 {
			f := frame(station(1+i), station(9), "from the hub")
			lans.count(f, i)
			hub.sendFrame(f)
			time.Sleep(time.Second)
			if n := lans.count(f, i); n != 1 {
				t.Errorf("while the loop lasts %d frames arrive at the station that was behind spoke %d, want 1", n, i)
			}
		}

		everybodySpeaks() // so that all are on the side of the spoke that is open
		lans.join(false)
		time.Sleep(10 * time.Second)
		for i := range 2 {
			f := frame(station(1+i), station(2-i), "from the other network")
			lans.count(f, i)
			lans.send(f, 1-i, nil)
			time.Sleep(time.Second)
			if n := lans.count(f, i); n != 1 {
				t.Errorf("after the loop %d frames arrive at network %d from the other, want 1", n, i)
			}
		}
	})
}

// What was behind a peer that does not answer any more is sent to all.
func TestSilentPeerHasStationsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTapMesh(t, transporttest.New(1), 3)
		a, b, c := all[0], all[1], all[2]
		b.sendFrame(frame(ethernet.Broadcast, station(2), "here"))
		a.frames()
		c.frames()
		b.Close()
		time.Sleep(4 * bridgeEvery)
		f := frame(station(2), station(1), "where are you")
		a.sendFrame(f)
		c.expectFrames(f)
	})
}

// Ends that all relay to each other send it round no longer than it has hops.
func TestMovedIsNotSentRoundForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		all := newTapMesh(t, network, 3, func(c *PeerChange) { c.Port = &PortChange{Spoke: true} })
		a, b := all[0], all[1]
		learn := func() {
			t.Helper()
			a.dev.Queue(0).Push(frame(station(9), station(1), "here"), noOffload)
			synctest.Wait()
			if a.addresses()[station(1)] == "" {
				t.Fatal("a learned nothing")
			}
		}
		learn()
		told := sealedBy(t, b.tunnelPeer(a).current.Load(), controlPlaintext(t, 0, message.Moved{Hops: message.MaxHops}))
		network.Inject(b.addrPort(), a.addrPort(), told)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if a.addresses()[station(1)] != "" {
			t.Error("a has forgotten nothing")
		}
		time.Sleep((movedHops + 2) * forgetEvery)
		learn()
		time.Sleep(5 * forgetEvery)
		synctest.Wait()
		if a.addresses()[station(1)] == "" {
			t.Error("a is still told to forget")
		}
	})
}
