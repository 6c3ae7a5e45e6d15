package tunnel

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
)

// This end's own address changes: its path is another as well, and larger sizes are to be tried anew.
func TestNativeOwnAddressChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		l := newLedger(t, a, b, 1350)
		l.allArrive(20, 100*time.Millisecond)
		b.send(a, "so that a's source address is known")
		a.expect("so that a's source address is known")
		time.Sleep(5 * time.Second)
		a.addr = netip.MustParseAddr("198.51.100.9")
		a.host.SetAddrs(a.addr)
		network.SetLink(a.host, b.host, transporttest.Link{MTU: 1280, Delay: 10 * time.Millisecond})
		time.Sleep(2 * time.Second) // route changes are looked at once a second
		l.allArrive(50, 100*time.Millisecond)
	})
}
