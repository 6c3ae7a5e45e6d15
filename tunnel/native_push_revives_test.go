package tunnel

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
)

// The peer has lost the session without a word; nothing but the document is to be sent to it.
func TestNativePushRevivesASession(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprint("pushed before ", before), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b, pushed := newPushPair(t, network)
				b.send(a, "data") // a is the responder
				a.expect("data")
				time.Sleep(15 * time.Second)
				network.SetDefaultLink(transporttest.Link{Loss: 1})
				b.Close()
				if before {
					a.push(b, "0")
				}
				time.Sleep(time.Second)
				network.SetDefaultLink(transporttest.Link{})
				again := newNodeOn(t, b.host, b.addr, 2, notePushes(pushed))
				again.configure(Change{PrivateKey: &b.key})
				again.public = b.public
				again.addPeerNode(a, true, onNativeWire)
				if !before {
					a.push(b, "0")
				}
				start := time.Now()
				for len(pushed.seen()) == 0 && time.Since(start) < time.Minute {
					time.Sleep(time.Second)
					synctest.Wait()
				}
				t.Logf("arrived after %v", time.Since(start))
				inOrder(t, pushed.seen(), 1, false)
			})
		})
	}
}
