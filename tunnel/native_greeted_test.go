package tunnel

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/transport/transporttest"
)

// Each session is told of once, with where the peer is, under loss and repetition as well.
func TestNativeGreetedOncePerSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Loss: 0.2, Duplicate: 0.3, Delay: 10 * time.Millisecond})
		var mu sync.Mutex
		var from []netip.AddrPort
		var who []crypto.PublicKey
		a := newNode(t, network, 1)
		plain := newNode(t, transporttest.New(1), 2) // for its addresses
		b := newNodeOn(t, network.Host(plain.addr), plain.addr, 2, func(o *Options) {
			o.Greeted = func(peer crypto.PublicKey, at netip.AddrPort) {
				mu.Lock()
				defer mu.Unlock()
				who, from = append(who, peer), append(from, at)
			}
		})
		knowEachOther(a, b)
		for range 5 * 60 {
			a.send(b, "data")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if sessions := int(b.Status().Handshakes.Completed); len(who) < 3 || len(who) > sessions {
			t.Errorf("told %d times of %d sessions", len(who), sessions)
		}
		for i := range who {
			if who[i] != a.public || from[i].Addr() != a.addr {
				t.Errorf("told of %v at %v", who[i], from[i])
			}
		}
	})
}
