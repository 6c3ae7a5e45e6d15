package tunnel

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/transport/transporttest"
)

func TestExpectedParts(t *testing.T) {
	e := newExpectedParts()
	key := slotKey{netip.MustParseAddrPort("[2001:db8::1]:5"), 7}
	others := []slotKey{{key.remote, 8}, {netip.MustParseAddrPort("[2001:db8::1]:6"), 7}, {}}
	if e.take(key) {
		t.Error("nothing was noted")
	}
	e.note(key)
	for _, o := range others {
		if e.take(o) {
			t.Errorf("%v was not noted", o)
		}
	}
	if !e.take(key) || e.take(key) {
		t.Error("one second part follows one first")
	}
	if n := testing.AllocsPerRun(100, func() { e.note(key); e.take(key) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A queue full of messages that anybody can make has places left for those who hold a cookie, and for both their parts.
func TestCookieHoldersGetThroughACrowdedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		n := newLoadable(t, network, 1)
		a := newNativeActor(n.node, network, 1)
		stock := newActor(n.node, network, 2).join()
		synctest.Wait()
		first, _, _ := a.parts(time.Now())
		stockFirst, _ := stock.initiation(time.Now())
		n.underLoad(func() {
			a.inject(first)
			stock.inject(stockFirst)
		})
		for _, x := range []*actor{a.actor, stock} {
			if err := x.stamper.ConsumeReply(x.one(noise.TypeCookieReply), x.now()); err != nil {
				t.Fatal(err)
			}
		}
		first, second, pending := a.parts(time.Now().Add(time.Second))
		stockFirst, stockPending := stock.initiation(time.Now().Add(time.Second))
		junk := newActor(n.node, network, 3)
		release := n.hold()
		for range 10 {
			n.flood()
		}
		for range handshakeQueue { // second parts alone are junk that costs nothing to make
			junk.inject(a.remac(append([]byte{noise.TypeKEM, 0, 0, 0}, make([]byte, noise.KEMSize-4)...)))
		}
		a.inject(first)
		a.inject(second)
		stock.inject(stockFirst)
		synctest.Wait()
		release()
		a.complete(pending, a.one(noise.TypeHybridResponse))
		stock.consume(stockPending, stock.one(noise.TypeResponse))
	})
}
