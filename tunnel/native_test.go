package tunnel

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport/transporttest"
)

// onNativeWire is for addPeerNode.
func onNativeWire(c *PeerChange) {
	w := Culvert
	c.Wire = &w
}

// newNativePair is newPair on the native wire.
func newNativePair(t testing.TB, network *transporttest.Network) (a, b *node) {
	a, b = newNode(t, network, 1), newNode(t, network, 2)
	a.addPeerNode(b, true, onNativeWire)
	b.addPeerNode(a, false, onNativeWire)
	synctest.Wait()
	return a, b
}

func TestNativePair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		l := watch(network, a)
		a.send(b, "one")
		a.send(b, "two")
		b.expect("one", "two")
		b.send(a, "three")
		a.expect("three")
		l.expectTimes(t, "a", noise.TypeHybridInitiation, 0)
		l.expectTimes(t, "a", noise.TypeKEM, 0)
		l.expectTimes(t, "b", noise.TypeHybridResponse, 0)
		for _, e := range l.all() {
			if e.kind == noise.TypeInitiation || e.kind == noise.TypeResponse {
				t.Errorf("a message of type %d on the native wire", e.kind)
			}
		}
		time.Sleep(3 * time.Second)
		for _, n := range []*node{a, b} {
			s := n.Status()
			if !s.Up || len(s.Peers) != 1 || s.Peers[0].LastHandshake.IsZero() || s.Handshakes.Completed != 1 || len(s.Drops) != 0 {
				t.Errorf("status: %+v", s)
			}
			p := s.Peers[0]
			if p.Wire != "culvert" || p.Suite != "AES-256-GCM" || !p.PostQuantum || p.Native == nil {
				t.Fatalf("peer: %+v", p)
			}
			if !p.Native.PathSettled || p.Native.InnerMTU != testMTU || p.Native.PeerMTU != testMTU {
				t.Errorf("native: %+v", p.Native)
			}
		}
	})
}

func TestNativePacketsOfEverySize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNativePair(t, transporttest.New(1))
		for size := 1; size <= testMTU-28; size += 13 {
			text := strings.Repeat("x", size)
			a.send(b, text)
			b.expect(text)
		}
		if s := b.Status(); len(s.Drops) != 0 {
			t.Errorf("drops: %v", s.Drops)
		}
	})
}

func TestNativeIdleIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		a.send(b, "one")
		b.expect("one")
		b.send(a, "two")
		a.expect("two")
		time.Sleep(30 * time.Second)
		l := watch(network, a)
		time.Sleep(session.EraseAfter)
		if got := l.all(); len(got) != 0 {
			t.Errorf("an idle tunnel sends: %v", got)
		}
	})
}
