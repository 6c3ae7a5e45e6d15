package tunnel

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// A peer is seen to come, to move, and to be lost: after 180 s of silence, and sooner where it leaves this end without an answer.
func TestSightings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := actorScene(t)
		see := func(connected bool, at netip.AddrPort) {
			t.Helper()
			synctest.Wait()
			list := a.node.Sightings(nil)
			if len(list) != 1 || list[0].Connected != connected || list[0].Endpoint != at || list[0].TCP || list[0].PublicKey != a.peer().public {
				t.Fatalf("seen %+v, want connected %v at %v", list, connected, at)
			}
		}
		if !a.node.IsUp() {
			t.Error("not up")
		}
		a.join(a.at)
		see(false, a.addr)
		a.handshake()
		a.say("confirms it")
		see(true, a.addr)
		a.move(elsewhere)
		a.say("from elsewhere")
		see(true, elsewhere)
		time.Sleep(lostAfter - time.Second)
		see(true, elsewhere)
		time.Sleep(2 * time.Second)
		see(false, elsewhere)

		a.got() // keepalives, and its own initiation
		a.handshake()
		a.say("again")
		see(true, elsewhere)
		a.sendTo("is not answered") // at 15 s it begins to ask, every 5 s
		time.Sleep(19 * time.Second)
		see(true, elsewhere)
		time.Sleep(21 * time.Second)
		see(false, elsewhere)
	})
}
