package tunnel

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport"
	"culvert/transport/transporttest"
)

// What comes over streams is not received while the tunnel is suspended either: it might be relayed under a session that another goes on with.
func TestSuspendStopsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalled(t, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		w.expectOver(true, true)
		state, err := w.server.Suspend()
		if err != nil {
			t.Fatal(err)
		}
		if len(state.Peers) != 1 || state.Peers[0].Keypairs != nil {
			t.Errorf("a session over a stream is handed over: %+v", state.Peers)
		}
		state.Erase()
		for _, text := range []string{"one", "two", "three"} {
			w.client.send(w.server, text)
			time.Sleep(100 * time.Millisecond)
		}
		w.server.expect()
		if err := w.server.Resume(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		w.server.expect("one", "two", "three")
		w.exchange(100 * time.Millisecond)
		w.expectOver(true, true)
	})
}

// From when a tunnel begins to be suspended nothing is opened or changed, and who asks whether it is at work is told.
func TestNothingChangesWhileSuspending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newPair(t, transporttest.New(1))
		a.suspending.Store(true)
		_, suspended := a.Suspend()
		for what, err := range map[string]error{"Configure": a.Configure(Change{}), "lanes": a.openLanePorts(), "again": suspended} {
			if !errors.Is(err, ErrSuspended) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if a.lanePorts.Load() != nil {
			t.Error("ports were opened")
		}
		a.suspending.Store(false)
		s, err := a.Suspend()
		if err != nil {
			t.Fatal(err)
		}
		s.Erase()
		// A context that never ends: they would hang, and the bubble with them.
		if err := a.Responds(context.Background()); !errors.Is(err, ErrSuspended) {
			t.Errorf("responds: %v", err)
		}
		if err := a.Check(context.Background()); !errors.Is(err, ErrSuspended) {
			t.Errorf("check: %v", err)
		}
		if err := a.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.Responds(t.Context()), a.Check(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// The interface goes down and comes up while the tunnel is suspended, and even as that begins.
func TestInterfaceMovesWhileSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		a.send(b, "one")
		b.expect("one")
		a.down()
		a.suspending.Store(true)
		if err := a.up(); !errors.Is(err, ErrSuspended) || a.isUp {
			t.Errorf("up: %v", err)
		}
		a.suspending.Store(false)
		s, err := a.Suspend()
		if err != nil {
			t.Fatal(err)
		}
		s.Erase()
		if err := a.Resume(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		a.send(b, "two")
		time.Sleep(6 * time.Second)
		b.expect("two")
	})
}

// After Restart nothing is sent under the sessions there were, and others are made at once.
func TestRestart(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		synctest.Test(t, func(t *testing.T) {
			network := transporttest.New(1)
			a, b := newNode(t, network, 1), newNode(t, network, 2)
			on := func(c *PeerChange) { c.Wire = &wire }
			a.addPeerNode(b, true, on)
			b.addPeerNode(a, true, on)
			a.send(b, "one")
			b.expect("one")
			time.Sleep(10 * time.Second)
			before, completed := a.tunnelPeer(b).current.Load().LocalIndex, a.Status().Handshakes.Completed
			s, err := a.Suspend()
			if err != nil {
				t.Fatal(err)
			}
			s.Erase()
			if err := a.Restart(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if kp := a.tunnelPeer(b).current.Load(); kp == nil || kp.LocalIndex == before || a.Status().Handshakes.Completed == completed {
				t.Fatalf("%v: session %v after %x", wire, kp, before)
			}
			a.send(b, "two")
			b.send(a, "back")
			synctest.Wait()
			b.expect("two")
			a.expect("back")
		})
	}
}

func TestStateBounds(t *testing.T) {
	for _, now := range []time.Duration{-1, maxNow + 1, 1<<63 - 1} {
		b, err := (&State{Version: StateVersion, Now: now}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeState(b); !errors.Is(err, ErrState) {
			t.Errorf("read at %v: %v", now, err)
		}
	}
	for _, wall := range []int64{-1 << 63, 0, 1<<63 - 1} {
		s := &State{Now: maxNow, Wall: wall}
		for _, at := range []time.Time{time.Unix(0, -1<<63), time.Unix(0, 1<<63-1), time.Unix(1<<40, 0)} {
			if now := s.nowIn(at); now < maxNow || now > maxNow+longestHandover {
				t.Errorf("read at %d, gone on with at %v: %v", wall, at, now)
			}
		}
	}
	remote := netip.MustParseAddrPort
	source := netip.MustParseAddr
	for _, c := range []struct {
		state EndpointState
		want  transport.Endpoint // zero: refused
	}{
		{EndpointState{Remote: remote("[::ffff:192.0.2.1]:5"), Source: source("::ffff:192.0.2.9"), Interface: 3},
			transport.Endpoint{Remote: remote("192.0.2.1:5"), Source: source("192.0.2.9"), Interface: 3}},
		{EndpointState{Remote: remote("[fe80::1%2]:5")}, transport.Endpoint{Remote: remote("[fe80::1%2]:5")}},
		{EndpointState{Remote: remote("192.0.2.1:5"), Source: source("2001:db8::1"), Interface: 3}, transport.Endpoint{Remote: remote("192.0.2.1:5")}},
		{EndpointState{Remote: remote("192.0.2.1:5"), Source: source("192.0.2.9"), Interface: -1}, transport.Endpoint{Remote: remote("192.0.2.1:5")}},
		{EndpointState{}, transport.Endpoint{}},
		{EndpointState{Remote: remote("192.0.2.1:0")}, transport.Endpoint{}},
		{EndpointState{Remote: remote("0.0.0.0:5")}, transport.Endpoint{}},
		{EndpointState{Remote: remote("[ff02::1%2]:5")}, transport.Endpoint{}},
		{EndpointState{Remote: remote("[fe80::1%eth0]:5")}, transport.Endpoint{}},
	} {
		if got, ok := c.state.endpoint(); got != c.want || ok != (c.want != transport.Endpoint{}) {
			t.Errorf("%+v: %+v %v, want %+v", c.state, got, ok, c.want)
		}
	}
}
