package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/message"
)

// A client that does not answer for a while, as between two networks, keeps its addresses: it has a session.
func TestHeldAddressesOutlastSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		hub, victim, thief := heldHub(t, network, true)
		keepalive := 10 * time.Second
		hub.configure(Change{Peers: []PeerChange{{PublicKey: victim.public, Keepalive: &keepalive, UpdateOnly: true}}})
		victim.sendFrame(frame(ethernet.Broadcast, station(2), "here"))
		hub.frames()
		thief.frames()
		time.Sleep(time.Second)
		network.SetLink(hub.host, victim.host, transporttest.Link{Loss: 1})
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if p := hub.tunnelPeer(victim); p.wasReached || !p.current.Load().maySend(hub.clock.now()) {
			t.Fatal("it still answers, or has no session")
		}
		thief.sendFrame(frame(station(1), station(2), "here now"))
		hub.expectFrames()
		if n := hub.dropped(DropInPinned); n != 1 {
			t.Errorf("%d frames dropped for that", n)
		}
	})
}

// heldHub is a hub with two spokes that are held to their MAC addresses, or are not.
func heldHub(t *testing.T, network *transporttest.Network, held bool) (hub, victim, thief *node) {
	hub, victim, thief = newTapNode(t, network, 1), newTapNode(t, network, 2), newTapNode(t, network, 3)
	for _, n := range []*node{victim, thief} {
		joinTap(hub, n)
		hub.configure(Change{Peers: []PeerChange{{PublicKey: n.public, Port: &PortChange{Spoke: true, Held: held, MaxAddresses: 2}}}})
	}
	time.Sleep(time.Second)
	synctest.Wait()
	for _, n := range []*node{hub, victim, thief} {
		n.settled()
	}
	return hub, victim, thief
}

// A spoke sends from another's address: what is for the other goes on to the other, whatever the spoke tries. Without being held
// to its addresses it gets that.
func TestHeldAddressesAreNotTaken(t *testing.T) {
	for _, held := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			hub, victim, thief := heldHub(t, transporttest.New(1), held)
			victim.sendFrame(frame(ethernet.Broadcast, station(2), "here"))
			hub.frames()
			thief.frames()
			time.Sleep(2 * DefaultAgeing) // it is silent for long
			if held {                     // "something has moved" has the hub forget nothing of them
				p := thief.tunnelPeer(hub)
				p.mu.Lock()
				_ = p.native.Load().sender.Queue(message.Moved{Hops: 1}, thief.clock.now())
				p.mu.Unlock()
				thief.attention.add(p)
				time.Sleep(2 * time.Second)
			}
			thief.sendFrame(frame(station(1), station(2), "here now"))
			hub.frames()
			secret := frame(station(2), station(1), "for the victim")
			hub.sendFrame(secret)
			if !held {
				thief.expectFrames(secret)
				return
			}
			victim.expectFrames(secret)
			thief.expectFrames()
			if n := hub.dropped(DropInPinned); n != 1 {
				t.Errorf("%d frames dropped for that", n)
			}
			// It has as many of its own as it may have.
			for i := range 3 {
				thief.sendFrame(frame(station(1), station(30+i), "mine"))
				hub.frames()
			}
			if n := hub.dropped(DropInAddresses); n != 1 {
				t.Errorf("%d frames dropped for too many addresses", n)
			}
			// When the victim takes leave its address is anybody's.
			victim.Close()
			time.Sleep(2 * DefaultAgeing) // when those of the thief have given way as well
			thief.sendFrame(frame(station(1), station(2), "mine now"))
			hub.expectFrames(frame(station(1), station(2), "mine now"))
		})
	}
}
