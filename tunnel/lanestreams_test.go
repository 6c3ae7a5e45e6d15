package tunnel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
)

// onLanes returns how many messages an end has sent on lanes from 1 on.
func (a *node) onLanes(b *node) (sent uint64) {
	for _, l := range a.lanes(b) {
		if l.Number > 0 {
			sent += l.SentPackets
		}
	}
	return sent
}

// use has a packet go each way on every queue each second, whether it arrives or not.
func (w *walled) use(seconds int) {
	for range seconds {
		for range w.queues {
			w.client.send(w.server, "perhaps")
			w.server.send(w.client, "perhaps")
		}
		time.Sleep(time.Second)
		w.client.received()
		w.server.received()
	}
}

// expectLanes is node.expectLanes for both ends.
func (w *walled) expectLanes(want, open int) {
	w.t.Helper()
	w.client.expectLanes(w.server, want, open)
	w.server.expectLanes(w.client, want, open)
}

// usesNoLanes has both ends exchange packets over their stream for so long, and fails if any is lost or anything goes on a lane.
func (w *walled) usesNoLanes(seconds int) {
	w.t.Helper()
	client, server := w.client.onLanes(w.server), w.server.onLanes(w.client)
	port := w.client.addrPort().String()
	others := 0
	remove := w.udp.Tap(func(p *transporttest.Packet) {
		if kind, _ := noise.MessageType(p.Data); kind == noise.TypeData && p.From.String() != port && p.From != w.server.addrPort() {
			others++
		}
	})
	defer remove()
	keepsUsing(w.t, w.client, w.server, seconds)
	w.expectOver(true, true)
	w.expectLanes(4, 1)
	if c, s := w.client.onLanes(w.server), w.server.onLanes(w.client); c != client || s != server || others != 0 {
		w.t.Errorf("%d and %d messages on lanes, %d datagrams from their ports, beside a stream", c-client, s-server, others)
	}
	for _, a := range []*node{w.client, w.server} {
		for _, l := range a.Status().Peers[0].Native.Lanes[1:] {
			if l.Endpoint != "" {
				w.t.Errorf("lane %d leads to %v beside a stream", l.Number, l.Endpoint)
			}
		}
	}
}

// usesLanes is usesNoLanes for datagrams, which are to go on lanes as well.
func (w *walled) usesLanes(seconds int) {
	w.t.Helper()
	client, server := w.client.onLanes(w.server), w.server.onLanes(w.client)
	keepsUsing(w.t, w.client, w.server, seconds)
	w.expectOver(false, false)
	w.expectLanes(4, 4)
	want := uint64(3 * seconds) // three of four packets a second
	if c, s := w.client.onLanes(w.server), w.server.onLanes(w.client); c-client < want || s-server < want {
		w.t.Errorf("%d and %d messages on lanes, want at least %d", c-client, s-server, want)
	}
}

// A peer with lanes is reached over a stream while UDP is blocked, on lane 0 alone, and on all of them afterwards.
func TestLanesGiveWayToAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalledQueues(t, 4, nil)
		w.exchange(time.Second)
		w.use(3)
		w.usesLanes(10)
		for round := range 2 {
			w.block(true, true)
			w.use(30)             // 15 s of silence, and two initiations
			w.usesNoLanes(130)    // a rekey is in it
			w.block(false, false) // and the next probe finds out
			w.use(45)
			w.usesLanes(10)
			if n := w.client.Status().Transport.Streams.Dialled; n != uint64(round+1) {
				t.Errorf("%d streams dialled by round %d", n, round)
			}
		}
		w.use(130) // and another
		w.usesLanes(10)
	})
}

// The first session is made over the stream: its lanes are opened when UDP gets through.
func TestLanesBeginBehindAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalledQueues(t, 4, nil)
		w.block(true, true)
		w.exchange(4 * time.Second)
		w.usesNoLanes(10)
		if w.client.lanePorts.Load() != nil || w.server.lanePorts.Load() != nil {
			t.Error("ports for lanes are open")
		}
		w.block(false, false)
		w.use(45)
		w.usesLanes(10)
	})
}

// Where UDP of lanes still arrives after the peer has moved to the stream, nothing of it counts.
func TestLanesOneWayBlocked(t *testing.T) {
	for _, way := range []struct{ toServer, toClient bool }{{true, false}, {false, true}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWalledQueues(t, 4, nil)
			w.exchange(time.Second)
			w.use(3)
			w.expectLanes(4, 4)
			w.block(way.toServer, way.toClient)
			w.use(150) // the end that still hears the other finds out when it rekeys
			w.usesNoLanes(60)
			w.block(false, false)
			w.use(60)
			w.usesLanes(10)
		})
	}
}

// The ports of lanes take no streams, and not the place of the socket that does.
func TestStreamsComeToTheSocketBesideLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWalledQueues(t, 4, func(_, server *PeerChange) {
			server.Endpoint = &transport.Endpoint{Remote: netip.MustParseAddrPort("192.0.2.1:51820")}
		})
		w.server.send(w.client, "first") // so that the end which accepts streams has the ports
		time.Sleep(time.Second)
		w.client.expect("first")
		w.use(3)
		w.expectLanes(4, 4)
		if w.server.lanePorts.Load() == nil {
			t.Fatal("no ports for lanes")
		}
		_ = w.server.lanePorts.Load().each(func(s transport.Socket) error {
			if _, ok := s.(transport.Streamer); ok {
				t.Error("a port for lanes has streams")
			}
			return nil
		})
		w.block(true, true)
		w.use(30)
		w.usesNoLanes(10)
	})
}

// What a peer that does not keep to the rules sends on lanes over a stream is dropped, and so are probes of another path on lanes.
func TestLanesTakeNothingOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		n := newQueues(t, network, 1, 4)
		a := newNativeActor(n, network, 1)
		a.offer.Lanes = 255
		synctest.Wait()
		lanes := a.connectLanes(4)
		kp := a.peer().current.Load()
		at := a.peer().endpoint.Load()

		// Straight to a receiving worker, as the network here has no streams.
		w := newInbound(n.Tunnel, nil, 0)
		train := &transport.Train{Endpoint: transport.Endpoint{Remote: netip.MustParseAddrPort("203.0.113.9:443"), Stream: 7}}
		for k, l := range lanes[1:] {
			w.data(l.sealed(payload.IP, udpPacket(a.inner, n.inner, fmt.Append(nil, "on lane ", k+1))), train, n.clock.now())
			w.noteArrivals(n.clock.now())
			_, _ = w.coalescer.Flush()
		}
		if got := n.received(); len(got) != 0 {
			t.Errorf("%q was taken", got)
		}
		if d := n.dropped(DropInIndex); d != 3 {
			t.Errorf("%d dropped", d)
		}
		probe, err := message.EncodeProbe(nil, 1, message.MinProbe)
		if err != nil {
			t.Fatal(err)
		}
		before := n.dropped(DropInKind)
		a.inject(lanes[1].sealed(payload.Path, probe))
		synctest.Wait()
		if d := n.dropped(DropInKind) - before; d != 1 {
			t.Errorf("%d probes of another path dropped on a lane", d)
		}
		for _, l := range kp.lanes {
			if ep := l.endpoint.Load(); streamOf(ep) != 0 {
				t.Errorf("lane %d leads over a stream", l.number)
			}
		}
		if now := a.peer().endpoint.Load(); *now != *at {
			t.Errorf("the peer has moved from %v to %v", at, now)
		}
		// The same on lane 0 moves it, and lanes lead nowhere from then on.
		kp.lanes[0].until.Store(int64(time.Hour))
		used := 0
		for worker := range 4 {
			if kp.wayOf(worker, at, n.clock.now()).lane == kp.lanes[0] {
				used++
			}
		}
		if used != 1 {
			t.Errorf("lane 1 is used by %d workers by datagrams", used)
		}
		w.data(lanes[0].sealed(payload.IP, udpPacket(a.inner, n.inner, []byte("over the stream"))), train, n.clock.now())
		w.noteArrivals(n.clock.now())
		_, _ = w.coalescer.Flush()
		if got := n.received(); len(got) != 1 || got[0] != "over the stream" {
			t.Errorf("received %q", got)
		}
		ep := a.peer().endpoint.Load()
		if !strings.HasSuffix(ep.String(), "over TCP") {
			t.Fatalf("the peer is at %v", ep)
		}
		if l := kp.lanes[0]; l.until.Load() != 0 || l.endpoint.Load() != nil || !l.moved.Load() {
			t.Error("what was known of lane 1 outlives the move")
		}
		kp.lanes[0].until.Store(int64(time.Hour)) // as a worker may see it that read the endpoint a moment before
		for worker := range 4 {
			if to := kp.wayOf(worker, ep, n.clock.now()); to.lane != nil || to.via != 0 || to.endpoint != ep {
				t.Errorf("worker %d sends on %+v", worker, to)
			}
		}
	})
}
