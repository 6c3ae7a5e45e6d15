package tunnel

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport/transporttest"
)

// wireEvent is a message seen on the underlay.
type wireEvent struct {
	at   time.Duration
	from string // "a" or "b"
	kind uint8
	size int
}

// wireLog records the messages of two nodes from now on.
type wireLog struct {
	start time.Time // changed by reset alone, while nothing is under way

	mu     sync.Mutex
	events []wireEvent
}

func watch(network *transporttest.Network, a *node) *wireLog {
	l := &wireLog{start: time.Now()}
	network.Tap(func(p *transporttest.Packet) {
		from := "b"
		if p.From.Addr() == a.addr {
			from = "a"
		}
		kind, _ := noise.MessageType(p.Data)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, wireEvent{at: time.Since(l.start), from: from, kind: kind, size: len(p.Data)})
	})
	return l
}

// reset starts the log afresh, times too.
func (l *wireLog) reset() {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start, l.events = time.Now(), nil
}

// all returns what was seen, once the bubble has settled.
func (l *wireLog) all() []wireEvent {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// times returns when a sent messages of a kind.
func (l *wireLog) times(from string, kind uint8) (at []time.Duration) {
	for _, e := range l.all() {
		if e.from == from && e.kind == kind {
			at = append(at, e.at)
		}
	}
	return at
}

// expectTimes fails unless a node sent messages of a kind at exactly these times since the log's start.
func (l *wireLog) expectTimes(t *testing.T, from string, kind uint8, want ...time.Duration) {
	t.Helper()
	got := l.times(from, kind)
	if len(got) != len(want) {
		t.Fatalf("%s sent type %d at %v, want %v", from, kind, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s sent type %d at %v, want %v", from, kind, got, want)
		}
	}
}

// established returns a pair with a confirmed session, a its initiator, made at the log's start; nothing is pending
// but what the session's age brings.
func established(t *testing.T) (a, b *node, l *wireLog, network *transporttest.Network) {
	network = transporttest.New(1)
	a, b = newPair(t, network)
	l = watch(network, a)
	l.reset()
	a.send(b, "first")
	b.expect("first")
	b.send(a, "answer") // so that a has heard of b since it sent
	a.expect("answer")
	return a, b, l, network
}

func TestTimerKeepaliveAfterTenSilentSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, l, _ := established(t)
		// a has received data and sent none since: it owes a sign of life. b has not: a's data was answered with data.
		l.reset()
		time.Sleep(session.KeepaliveTimeout - 1)
		l.expectTimes(t, "a", noise.TypeData)
		time.Sleep(time.Nanosecond)
		l.expectTimes(t, "a", noise.TypeData, session.KeepaliveTimeout)
		if e := l.all()[0]; e.size != session.Overhead {
			t.Errorf("a message of %d bytes instead of a keepalive", e.size)
		}
		time.Sleep(time.Minute)
		l.expectTimes(t, "b", noise.TypeData)
		l.expectTimes(t, "a", noise.TypeData, session.KeepaliveTimeout)
	})
}

func TestTimerKeepaliveAgainForDataMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, _ := established(t)
		l.reset()
		time.Sleep(3 * time.Second)
		b.send(a, "more") // while a's keepalive is pending
		a.expect("more")
		time.Sleep(time.Minute)
		l.expectTimes(t, "a", noise.TypeData, session.KeepaliveTimeout, 2*session.KeepaliveTimeout)
	})
}

func TestTimerNewHandshakeAfterFifteenSecondsWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, network := established(t)
		network.SetLink(a.host, b.host, transporttest.Link{Loss: 1})
		time.Sleep(session.KeepaliveTimeout) // past a's keepalive
		l.reset()
		a.send(b, "into the void")
		time.Sleep(5 * time.Second)
		a.send(b, "and again") // does not put the deadline off
		time.Sleep(time.Minute)
		first := session.NoAnswerTimeout
		every := session.RekeyTimeout + 100*time.Millisecond // the nodes' fixed jitter
		got := l.times("a", noise.TypeInitiation)
		for i, at := range got {
			want := first + time.Duration(i)*every
			if at != want {
				t.Fatalf("initiations at %v, the %dth not at %v", got, i, want)
			}
		}
		if len(got) < 9 {
			t.Errorf("only %d initiations: %v", len(got), got)
		}
	})
}

func TestTimerAnswerDisarmsNewHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, _ := established(t)
		l.reset()
		for range 10 {
			a.send(b, "ping")
			time.Sleep(7 * time.Second)
			b.send(a, "pong")
			time.Sleep(4 * time.Second)
		}
		l.expectTimes(t, "a", noise.TypeInitiation)
		l.expectTimes(t, "b", noise.TypeInitiation)
	})
}

func TestTimerInitiationsRepeatAndGiveUpAfterNinetySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		network.SetLink(a.host, b.host, transporttest.Link{Loss: 1})
		l := watch(network, a)
		l.reset()
		a.send(b, "waits")
		synctest.Wait()
		if n := a.Status().Peers[0].StagedBytes; n == 0 {
			t.Fatal("the packet does not wait")
		}
		time.Sleep(session.RekeyAttemptTime - 2)
		got := l.times("a", noise.TypeInitiation)
		if want := int(session.RekeyAttemptTime/(session.RekeyTimeout+100*time.Millisecond)) + 1; len(got) != want {
			t.Errorf("%d initiations, want %d", len(got), want)
		}
		for i := 1; i < len(got); i++ {
			if gap := got[i] - got[i-1]; gap != session.RekeyTimeout+100*time.Millisecond {
				t.Errorf("initiations %v apart", gap)
			}
		}
		if a.dropped(DropOutHandshake) != 0 {
			t.Error("gave up too early")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if a.dropped(DropOutHandshake) != 1 || a.Status().Peers[0].StagedBytes != 0 || a.stagedBytes.Load() != 0 {
			t.Errorf("after 90 s: %d given up, %d bytes wait", a.dropped(DropOutHandshake), a.Status().Peers[0].StagedBytes)
		}
		n := len(l.all())
		time.Sleep(time.Hour)
		if more := len(l.all()) - n; more != 0 {
			t.Errorf("%d messages after giving up", more)
		}
		// New traffic starts anew.
		network.SetLink(a.host, b.host, transporttest.Link{})
		a.send(b, "back")
		b.expect("back")
	})
}

func TestTimerRetryJitterIsWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, transporttest.New(1), 1)
		tun, err := New(a.dev, a.host, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer tun.Close()
		seen := make(map[time.Duration]bool)
		for range 1000 {
			j := tun.jitter()
			if j < 0 || j >= session.MaxRetryJitter {
				t.Fatalf("jitter of %v", j)
			}
			seen[j] = true
		}
		if len(seen) < 900 {
			t.Errorf("only %d different jitters", len(seen))
		}
	})
}

func TestTimerInitiatorRekeysAfterTwoMinutesOnSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, _ := established(t)
		time.Sleep(session.RekeyAfterTime - time.Second)
		a.send(b, "young")
		b.expect("young")
		l.expectTimes(t, "a", noise.TypeInitiation, 0)
		time.Sleep(time.Second)
		b.send(a, "the responder does not rekey")
		a.expect("the responder does not rekey")
		l.expectTimes(t, "b", noise.TypeInitiation)
		l.expectTimes(t, "a", noise.TypeInitiation, 0)
		a.send(b, "old")
		b.expect("old")
		l.expectTimes(t, "a", noise.TypeInitiation, 0, session.RekeyAfterTime)
		a.send(b, "under the new session")
		b.expect("under the new session")
		if n := a.Status().Handshakes.Completed; n != 2 {
			t.Errorf("%d handshakes", n)
		}
	})
}

func TestTimerInitiatorRekeysAt165SecondsOnReceiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, _ := established(t)
		// A stream towards a that owes no answers: no other timer shall make the session anew before this one does.
		stream := func(payload string) {
			b.send(a, payload)
			a.expect(payload)
			a.tunnelPeer(b).timers.stop()
			b.tunnelPeer(a).timers.stop()
		}
		for time.Since(l.start) < session.RekeyOnReceiveAfter-time.Second {
			stream("before")
			time.Sleep(time.Second)
		}
		time.Sleep(session.RekeyOnReceiveAfter - time.Since(l.start) - 1)
		stream("a nanosecond before")
		l.expectTimes(t, "a", noise.TypeInitiation, 0)
		time.Sleep(time.Nanosecond)
		stream("at the time")
		l.expectTimes(t, "a", noise.TypeInitiation, 0, session.RekeyOnReceiveAfter)
		l.expectTimes(t, "b", noise.TypeInitiation)
	})
}

func TestTimerSessionRejectedAfterThreeMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, network := established(t)
		// Keep a message of this session for later.
		var kept []byte
		var from, to = a.addrPort(), b.addrPort()
		remove := network.Tap(func(p *transporttest.Packet) {
			if p.From == from && kept == nil {
				kept = append(kept, p.Data...)
			}
		})
		a.send(b, "in time")
		b.expect("in time")
		remove()
		time.Sleep(session.RejectAfterTime - time.Since(l.start) + 1)
		network.Inject(from, to, kept)
		b.expect()
		if b.dropped(DropInExpired) != 1 {
			t.Errorf("drops: %v", b.Status().Drops)
		}
		// Sending needs a new session, for the responder as well.
		l.reset()
		b.send(a, "needs a handshake")
		a.expect("needs a handshake")
		if got := l.times("b", noise.TypeInitiation); len(got) != 1 {
			t.Errorf("the responder of old sent %d initiations", len(got))
		}
	})
}

func TestTimerKeysErasedAfterNineMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, _ := established(t)
		used := func(n *node) int {
			n.indices.mu.Lock()
			defer n.indices.mu.Unlock()
			return n.indices.used
		}
		kp := a.tunnelPeer(b).current.Load()
		time.Sleep(session.EraseAfter - time.Since(l.start) - 2)
		synctest.Wait()
		if used(a) != 1 || used(b) != 1 {
			t.Fatalf("indices before: %d and %d", used(a), used(b))
		}
		time.Sleep(3 * time.Nanosecond)
		synctest.Wait()
		if used(a) != 0 || used(b) != 0 || a.tunnelPeer(b).current.Load() != nil {
			t.Errorf("indices after: %d and %d", used(a), used(b))
		}
		if _, ok := kp.Reserve(1, noise.TagSize); ok {
			t.Error("the erased session still works")
		}
	})
}

func TestTimerPersistentKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		l := watch(network, a)
		l.reset()
		every := 25 * time.Second
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Keepalive: &every}}})
		// At once a handshake, then a keepalive to confirm it, then one each interval.
		time.Sleep(110 * time.Second)
		l.expectTimes(t, "a", noise.TypeInitiation, 0)
		l.expectTimes(t, "a", noise.TypeData, 0, every, 2*every, 3*every, 4*every)
		off := time.Duration(0)
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Keepalive: &off}}})
		l.reset()
		time.Sleep(10 * time.Minute)
		l.expectTimes(t, "a", noise.TypeData)
	})
}

func TestRekeyAfterManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, _ := established(t)
		time.Sleep(session.RekeyTimeout)
		a.tunnelPeer(b).current.Load().Reserve(session.RekeyAfterMessages, 0)
		l.reset()
		a.send(b, "the last one")
		b.expect("the last one")
		l.expectTimes(t, "a", noise.TypeInitiation, 0)
		// The responder rekeys as well when its counters run out.
		time.Sleep(session.RekeyTimeout)
		b.tunnelPeer(a).current.Load().Reserve(session.RekeyAfterMessages, 0)
		l.reset()
		b.send(a, "from the other end")
		a.expect("from the other end")
		l.expectTimes(t, "b", noise.TypeInitiation, 0)
	})
}

func TestNothingSentOnceCountersAreUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, _ := established(t)
		time.Sleep(session.RekeyTimeout)
		kp := a.tunnelPeer(b).current.Load()
		for left := session.RejectAfterMessages - kp.Sent(); left > 0; left = session.RejectAfterMessages - kp.Sent() {
			kp.Reserve(int(min(left, 1<<62)), 0)
		}
		l.reset()
		a.send(b, "waits for another session")
		b.expect("waits for another session")
		l.expectTimes(t, "a", noise.TypeInitiation, 0)
	})
}
