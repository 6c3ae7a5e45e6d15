package tunnel

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport/transporttest"
	"culvert/tunnel/exchange"
	"culvert/tunnel/message"
)

// newPushPair is newNativePair of which the second notes what the first pushes.
func newPushPair(t *testing.T, network *transporttest.Network) (a, b *node, pushed *notes) {
	pushed = new(notes)
	a = newNode(t, network, 1)
	b = newNoting(t, network, pushed)
	knowEachOther(a, b)
	return a, b, pushed
}

// newNoting is a node that notes what is pushed to it.
func newNoting(t *testing.T, network *transporttest.Network, pushed *notes) *node {
	plain := newNode(t, transporttest.New(1), 2) // for its addresses
	return newNodeOn(t, network.Host(plain.addr), plain.addr, 2, notePushes(pushed))
}

func (a *node) push(to *node, document string) {
	a.t.Helper()
	if err := a.Push(to.public, "subject", []byte(document)); err != nil {
		a.t.Fatal(err)
	}
}

// inOrder fails unless documents are all those from 0 to count-1, in order; with again some may come a second time where a
// session was replaced, but nothing older than what has been seen twice.
func inOrder(t *testing.T, documents []string, count int, again bool) {
	t.Helper()
	next := 0
	for _, d := range documents {
		switch {
		case d == fmt.Sprint(next):
			next++
		case again && next > 0 && d == fmt.Sprint(next-1):
		default:
			t.Fatalf("%s came where %d was due: %v", d, next, documents)
		}
	}
	if next != count {
		t.Fatalf("%d of %d documents arrived: %v", next, count, documents)
	}
}

func TestNativePushUnderLoss(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(seed)
				a, b, pushed := newPushPair(t, network)
				network.SetDefaultLink(transporttest.Link{Loss: 0.3, Duplicate: 0.3, Reorder: 0.3, ReorderDelay: 100 * time.Millisecond,
					Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond})
				count := 0
				for range 8 * 60 { // through several rekeys, with traffic so that there are some
					if err := a.Push(b.public, "subject", fmt.Append(nil, count)); err == nil {
						count++
					} else if !errors.Is(err, exchange.ErrFull) {
						t.Fatal(err)
					}
					a.send(b, "data")
					time.Sleep(time.Second)
				}
				network.SetDefaultLink(transporttest.Link{})
				for range 60 {
					a.send(b, "data")
					time.Sleep(time.Second)
				}
				inOrder(t, pushed.seen(), count, true)
				if count < 100 || a.Status().Handshakes.Completed < 4 {
					t.Errorf("%d documents, %d handshakes: the test tests nothing", count, a.Status().Handshakes.Completed)
				}
			})
		})
	}
}

// On a clean network no document comes twice, not even across sessions.
func TestNativePushAcrossRekey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: 10 * time.Millisecond})
		a, b, pushed := newPushPair(t, network)
		count := 0
		for range 5 * 60 * 4 {
			a.push(b, fmt.Sprint(count))
			count++
			a.send(b, "data")
			b.send(a, "data")
			time.Sleep(250 * time.Millisecond)
		}
		time.Sleep(time.Second)
		inOrder(t, pushed.seen(), count, false)
		if n := a.Status().Handshakes.Completed; n < 3 {
			t.Errorf("%d handshakes", n)
		}
	})
}

// What was pushed before there is a session, or while the peer is away, arrives with the next.
func TestNativePushWaitsForASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		network.SetDefaultLink(transporttest.Link{Delay: 10 * time.Millisecond}) // none comes up before the test waits
		a, b, pushed := newPushPair(t, network)
		for i := range exchange.MaxMessages {
			a.push(b, fmt.Sprint(i))
		}
		if err := a.Push(b.public, "subject", nil); !errors.Is(err, exchange.ErrFull) {
			t.Errorf("one more than may wait: %v", err)
		}
		a.send(b, "data")
		time.Sleep(time.Second)
		b.expect("data")
		inOrder(t, pushed.seen(), exchange.MaxMessages, false)
		time.Sleep(session.EraseAfter + session.RekeyAttemptTime)
		for i := range 3 {
			a.push(b, fmt.Sprint(exchange.MaxMessages+i))
		}
		a.send(b, "data")
		time.Sleep(time.Second)
		b.expect("data")
		inOrder(t, pushed.seen(), exchange.MaxMessages+3, false)
	})
}

func TestNativePushIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		c := newNode(t, network, 3)
		if err := a.Push(c.public, "subject", nil); !errors.Is(err, ErrNoPeer) {
			t.Errorf("to nobody: %v", err)
		}
		if err := a.Push(b.public, "subject", nil); !errors.Is(err, ErrNoPeer) {
			t.Errorf("on WireGuard's wire: %v", err)
		}
		a.addPeerNode(c, true, onNativeWire)
		for _, bad := range []message.Push{{Subject: ""}, {Subject: "\x1b"}, {Subject: "x", Document: make([]byte, message.MaxDocument+1)}} {
			if err := a.Push(c.public, bad.Subject, bad.Document); err == nil {
				t.Errorf("%q with %d bytes was taken", bad.Subject, len(bad.Document))
			}
		}
	})
}

// The peer restarts while documents wait: those not acknowledged are sent to its next life.
func TestNativePushAcrossRestart(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint("goodbye ", clean), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b, pushed := newPushPair(t, network)
				every := 5 * time.Second
				a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Keepalive: &every}}})
				a.send(b, "data")
				b.expect("data")
				a.push(b, "0")
				time.Sleep(time.Second)
				if !clean {
					network.SetDefaultLink(transporttest.Link{Loss: 1})
				}
				b.Close()
				network.SetDefaultLink(transporttest.Link{})
				a.push(b, "1")
				a.push(b, "2")
				time.Sleep(20 * time.Second)

				again := newNodeOn(t, b.host, b.addr, 2, notePushes(pushed))
				again.configure(Change{PrivateKey: &b.key})
				again.public = b.public
				again.addPeerNode(a, true, onNativeWire)
				for range 30 {
					a.send(again, "data")
					time.Sleep(time.Second)
				}
				inOrder(t, pushed.seen(), 3, true)
			})
		})
	}
}

// A document alone is reason enough for a session.
func TestNativePushAsksForASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b, pushed := newPushPair(t, network)
		for i := range 5 {
			a.push(b, fmt.Sprint(i))
			time.Sleep(session.EraseAfter)
			inOrder(t, pushed.seen(), i+1, false)
		}
	})
}

// forgotten reports whether a node has nothing of any session.
func forgotten(n *node) bool {
	synctest.Wait()
	for _, p := range n.snapshotPeers() {
		if p.current.Load() != nil {
			return false
		}
	}
	return n.usedIndices() == 0
}

func TestNativeGoodbye(t *testing.T) {
	for name, end := range map[string]func(a, b *node){
		"closed":  func(a, b *node) { a.Close() },
		"down":    func(a, b *node) { a.dev.SetUp(false) },
		"removed": func(a, b *node) { a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Remove: true}}}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newNativePair(t, network)
				a.send(b, "one")
				b.expect("one")
				time.Sleep(20 * time.Second) // and nothing more to say
				l := watch(network, a)
				end(a, b)
				if !forgotten(b) {
					t.Error("the far end still has the session")
				}
				time.Sleep(time.Hour) // nothing asks for another
				if got := len(l.times("b", noise.TypeHybridInitiation)); got != 0 {
					t.Errorf("%d initiations to a peer that has gone", got)
				}
				if got := len(l.times("a", noise.TypeData)); got != 1 {
					t.Errorf("%d messages said goodbye", got)
				}
			})
		})
	}
}

// A peer that is to be kept in touch with is looked for, and found within seconds of its coming back, without any packet.
func TestNativeKeepalivePeerComesBackAfterARestart(t *testing.T) {
	for _, away := range []time.Duration{0, 500 * time.Millisecond, 3 * time.Second, 30 * time.Second, 80 * time.Second, 10 * time.Minute} {
		t.Run(away.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(1)
				a, b := newNativePair(t, network)
				every := 25 * time.Second
				a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Keepalive: &every}}})
				a.send(b, "one")
				b.expect("one")
				time.Sleep(3 * time.Second)
				b.Close()
				if !forgotten(a) {
					t.Fatal("the session is still there")
				}
				time.Sleep(away)
				again := newNodeOn(t, b.host, b.addr, 2)
				again.configure(Change{PrivateKey: &b.key})
				again.public = b.public
				again.addPeerNode(a, false, onNativeWire)
				// Retries end at one each 5 s and a bit; after 90 s of them the next keepalive begins anew.
				limit := session.RekeyTimeout + time.Second
				if away > session.RekeyAttemptTime {
					limit = every + session.RekeyTimeout
				}
				time.Sleep(limit)
				synctest.Wait()
				if again.Status().Handshakes.Completed != 1 {
					t.Fatalf("not back after %v: %+v, drops %v", limit, a.Status().Handshakes, again.Status().Drops)
				}
				again.send(a, "back")
				a.expect("back")
			})
		})
	}
}

// What waits for a session when the goodbye comes is not lost.
func TestNativeInterfaceGoesDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newNativePair(t, network)
		a.send(b, "one")
		b.expect("one")
		for i := range 5 {
			time.Sleep(2 * time.Second)
			n := []*node{a, b}[i%2]
			n.dev.SetUp(false)
			synctest.Wait()
			time.Sleep(time.Second)
			if !forgotten(a) || !forgotten(b) {
				t.Error("a session outlives its end")
			}
			n.dev.SetUp(true)
			synctest.Wait()
			a.send(b, "there")
			b.expect("there")
			b.send(a, "back")
			a.expect("back")
		}
	})
}
