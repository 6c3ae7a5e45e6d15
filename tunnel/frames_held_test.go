package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/message"
)

// heldHub is a hub with two spokes that are held to their MAC addresses, or are not.
func heldHub(t *testing.T, held bool) (hub, victim, thief *node) {
	network := transporttest.New(1)
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
			hub, victim, thief := heldHub(t, held)
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
