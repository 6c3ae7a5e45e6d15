package tunnel

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
	"culvert/tunnel/device"
)

// A packet too large for the path waits for a handshake while the path's MTU is known from the session before.
func TestNativeStagedPacketLargerThanThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{MTU: 1280})
		a, b := newNativePair(t, network)
		big := udpPacket(a.inner, b.inner, []byte(strings.Repeat("x", 1350)))
		big[6] = 0x40 // don't fragment
		a.send(b, "one")
		b.expect("one")
		time.Sleep(20 * time.Second)
		if s := a.Status().Peers[0].Native; !s.PathSettled || s.PathMTU > 1252 {
			t.Fatalf("%+v", s)
		}
		time.Sleep(4 * time.Minute) // the session is over, what is known of the path is not
		a.dev.Queue(0).Push(big, device.Offload{})
		b.expect(string(big[28:]))
	})
}

// A peer goes away without a word, and packets to it go on: past RejectAfterTime the control loop has deadlines in the past.
func TestNativePeerVanishesUnderTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		a.send(b, "x")
		b.expect("x")
		network.SetDefaultLink(transporttest.Link{Loss: 1})
		for range 300 {
			a.send(b, "y")
			time.Sleep(time.Second)
		}
	})
}

func TestNativePushToAVanishedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		a.send(b, "x")
		b.expect("x")
		network.SetDefaultLink(transporttest.Link{Loss: 1})
		if err := a.Push(b.public, "subject", []byte("document")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
	})
}

func TestNativeKeyChangesWhileMessagesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		key := newNode(t, network, 9).key
		a.send(b, "x")
		b.expect("x")
		if err := a.Push(b.public, "subject", []byte("document")); err != nil {
			t.Fatal(err)
		}
		a.configure(Change{PrivateKey: &key})
		time.Sleep(time.Minute)
	})
}
