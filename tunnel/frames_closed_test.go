package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
	"culvert/tunnel/ethernet"
)

// No frame crosses a closed port in either direction, whatever it is and whatever else the port is told; nor is anything learned there.
func TestClosedPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		hub := newTapNode(t, network, 100)
		other := newTapNode(t, network, 1)
		joinTap(hub, other)
		hub.configure(Change{Peers: []PeerChange{{PublicKey: other.public, Port: &PortChange{Spoke: true}}}})
		a := newTapActor(hub, network, 2, withPort(PortChange{Spoke: true, Closed: true, PVID: 10, VLANs: []uint16{20}}))
		a.connect()
		time.Sleep(time.Second)
		hub.frames()
		other.frames()
		a.got()
		for _, to := range []ethernet.Address{ethernet.Broadcast, station(60), station(100)} {
			plain := frame(to, station(50), "closed")
			for _, f := range [][]byte{plain, tagged(10, plain), tagged(20, plain), tagged(0, plain), tagged(4095, plain)} {
				a.sends(f)
				tick()
				if got := append(hub.frames(), other.frames()...); len(got) != 0 {
					t.Errorf("%x came through: %x", f, got)
				}
				for _, from := range []*node{hub, other} {
					from.sendFrame(tagged(20, frame(to, station(60), "to all")))
					from.sendFrame(frame(station(50), station(60), "to who claimed it"))
				}
				tick()
				if got := a.frames(); len(got) != 0 {
					t.Errorf("the closed port is sent %x", got)
				}
				hub.frames()
				other.frames()
			}
		}
		// Opened, the same crosses.
		hub.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Port: &PortChange{Spoke: true}}}})
		a.sends(frame(ethernet.Broadcast, station(50), "open"))
		tick()
		if len(hub.frames()) != 1 || len(other.frames()) != 1 {
			t.Error("an open port is closed")
		}
	})
}
