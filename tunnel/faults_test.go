package tunnel

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/access"
)

// faultyNetwork is a network whose sockets refuse what is sent, all of it or every other datagram, and whose ports cannot be opened, as
// long as there is a fault.
type faultyNetwork struct {
	transport.Network
	send  atomic.Pointer[error]
	half  atomic.Bool
	open  atomic.Pointer[error]
	tries atomic.Int32
}

func (n *faultyNetwork) Open(o transport.Options) (transport.Socket, error) {
	n.tries.Add(1)
	if err := n.open.Load(); err != nil {
		return nil, *err
	}
	s, err := n.Network.Open(o)
	if err != nil {
		return nil, err
	}
	return &faultySocket{s, n}, nil
}

type faultySocket struct {
	transport.Socket
	n *faultyNetwork
}

func (s *faultySocket) NewSender() transport.Sender { return s.NewWorkerSender(0) }

func (s *faultySocket) NewWorkerSender(worker int) transport.Sender {
	return &faultySender{s.Socket.NewWorkerSender(worker), s.n, 0}
}

type faultySender struct {
	transport.Sender
	n     *faultyNetwork
	turns int
}

func (s *faultySender) Send(trains []transport.Train) (failed int) {
	err := s.n.send.Load()
	if err == nil {
		return s.Sender.Send(trains)
	}
	for i := range trains {
		if s.turns++; s.n.half.Load() && s.turns%2 == 0 {
			failed += s.Sender.Send(trains[i : i+1])
			continue
		}
		trains[i].Err = *err
		failed++
	}
	return failed
}

// newFaultyPair is a pair of which the first sends through a network with faults.
func newFaultyPair(t *testing.T, wire Wire) (a, b *node, faults *faultyNetwork) {
	network := transporttest.New(1)
	addr := netip.MustParseAddr("192.0.2.1")
	faults = &faultyNetwork{Network: network.Host(addr)}
	a, b = newNodeOver(t, faults, addr, 1, 1), newNode(t, network, 2)
	on := func(c *PeerChange) { c.Wire = &wire }
	a.addPeerNode(b, true, on)
	b.addPeerNode(a, false, on)
	synctest.Wait()
	return a, b, faults
}

// sendErrors are what the kernel says of a datagram that it does not send.
var sendErrors = []error{
	syscall.ENOBUFS, syscall.ENOMEM, syscall.EPERM, syscall.EACCES, syscall.ECONNREFUSED, syscall.ENETUNREACH, syscall.EHOSTUNREACH,
	syscall.ENETDOWN, syscall.EINVAL, syscall.EIO, syscall.ENODEV, syscall.EADDRNOTAVAIL, transport.ErrTooBig,
}

// Whatever the underlay refuses for a while: each datagram is counted, the session outlives a short fault, and after a long one
// it takes no longer than a handshake is repeated.
func TestFaultsOfSending(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		for _, fault := range sendErrors {
			t.Run(fmt.Sprint(wire, " ", fault), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b, faults := newFaultyPair(t, wire)
					a.send(b, "first")
					b.expect("first")
					for _, long := range []time.Duration{5 * time.Second, session.RejectAfterTime + time.Minute} {
						before := a.dropped(DropOutSendFailed) + a.dropped(DropOutTooBig)
						handshakes := a.statistics.completed.Load() + b.statistics.completed.Load()
						faults.send.Store(&fault)
						for range long / time.Second {
							a.send(b, "lost")
							time.Sleep(time.Second)
						}
						synctest.Wait()
						if n := a.dropped(DropOutSendFailed) + a.dropped(DropOutTooBig) - before; n < 5 {
							t.Errorf("%d datagrams counted in %v", n, long)
						}
						faults.send.Store(nil)
						for range 7 { // an initiation is repeated every five seconds
							a.send(b, "again")
							time.Sleep(time.Second)
						}
						got := b.received()
						if len(got) == 0 || got[len(got)-1] != "again" {
							t.Errorf("after %v of it: received %q", long, got)
						}
						if n := a.statistics.completed.Load() + b.statistics.completed.Load() - handshakes; long < session.KeepaliveTimeout && n != 0 {
							t.Errorf("%d handshakes for a fault of %v", n, long)
						}
					}
				})
			})
		}
	}
}

// What goes out in part is delivered in part.
func TestFaultsOfEveryOtherDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, faults := newFaultyPair(t, Culvert)
		a.send(b, "first")
		b.expect("first")
		time.Sleep(10 * time.Second)
		err := error(syscall.ENOBUFS)
		faults.half.Store(true)
		faults.send.Store(&err)
		for range 100 {
			a.send(b, "x")
			synctest.Wait()
		}
		if n := len(b.received()); n != 50 {
			t.Errorf("%d of 100 arrived", n)
		}
		if n := a.dropped(DropOutSendFailed); n != 50 {
			t.Errorf("%d of 50 counted", n)
		}
	})
}

// A port for which there is no descriptor, or no memory, is opened as soon as there is.
func TestFaultsOfOpeningThePort(t *testing.T) {
	for _, fault := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EACCES} {
		t.Run(fault.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, faults := newFaultyPair(t, Culvert)
				told := a.remarks(t)
				a.dev.SetUp(false)
				synctest.Wait()
				faults.open.Store(&fault)
				faults.tries.Store(0)
				a.dev.SetUp(true)
				time.Sleep(time.Minute)
				if n := faults.tries.Load(); n < 20 || n > 40 {
					t.Errorf("%d tries in a minute", n)
				}
				if lines := told(); len(lines) != 1 || !strings.Contains(lines[0], fault.Error()) {
					t.Errorf("it said %q", lines)
				}
				faults.open.Store(nil)
				time.Sleep(retryPortEvery)
				a.send(b, "open again")
				b.expect("open again")
			})
		})
	}
}

// Whatever the interface refuses for a while is counted, and the session goes on.
func TestFaultsOfTheInterface(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN, syscall.EINVAL, syscall.EBADFD} {
		t.Run(fault.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, _ := newFaultyPair(t, Culvert)
				a.send(b, "first")
				b.expect("first")
				b.dev.Queue(0).FailWrites(fault)
				for range 300 {
					a.send(b, "refused")
					time.Sleep(time.Second)
				}
				if n := b.dropped(DropInDevice); n != 300 {
					t.Errorf("%d of 300 refusals counted", n)
				}
				b.dev.Queue(0).FailWrites(nil)
				b.expect()
				a.send(b, "taken")
				b.expect("taken")
			})
		})
	}
}

// A clock that is set, however far and to and fro, ends no session and no rekeying.
func TestFaultsOfTheClock(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(wire.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, _ := newFaultyPair(t, wire)
				skew := a.setClock()
				told := b.remarks(t)
				const year = 365 * 24 * time.Hour
				for i, s := range []time.Duration{0, -time.Second, -56 * year, 0, 20 * year, -time.Hour, 0} {
					skew.Store(int64(s))
					before := b.statistics.initiationsReceived.Load() + a.statistics.initiationsReceived.Load()
					lost := 0
					for n := range 300 { // two lives of a session
						text := fmt.Sprint(i, " ", n)
						a.send(b, text)
						time.Sleep(time.Second)
						if got := b.received(); len(got) != 1 || got[0] != text {
							lost++
						}
					}
					if now := b.statistics.initiationsReceived.Load() + a.statistics.initiationsReceived.Load(); lost != 0 || now-before < 2 {
						t.Errorf("with the clock %v off %d of 300 packets were lost, and %d sessions begun", s, lost, now-before)
					}
				}
				if lines := told(); len(lines) != 0 {
					t.Errorf("it said %q", lines)
				}
			})
		})
	}
}

// A machine that starts with its clock in the past is refused, which its peer says once; it is let in as soon as the clock is right.
func TestFaultsOfTheClockOverARestart(t *testing.T) {
	for _, wire := range []Wire{WireGuard, Culvert} {
		t.Run(wire.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, faults := newFaultyPair(t, wire)
				told := b.remarks(t)
				a.send(b, "first")
				b.expect("first")
				a.Close()
				again := newNodeOver(t, faults, a.addr, 1, 1)
				again.configure(Change{PrivateKey: &a.key})
				again.key, again.public = a.key, a.public
				skew := again.setClock()
				skew.Store(int64(-300 * 24 * time.Hour))
				again.addPeerNode(b, true, func(c *PeerChange) { c.Wire = &wire })
				for range 600 {
					again.send(b, "refused")
					time.Sleep(time.Second)
				}
				b.expect()
				if lines := told(); len(lines) != 1 || !strings.Contains(lines[0], "clock") || !strings.Contains(lines[0], "7200h") {
					t.Errorf("in ten minutes it said %q", lines)
				}
				skew.Store(0)
				time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
				b.received() // what waited
				again.send(b, "let in")
				b.expect("let in")
			})
		})
	}
}

// What a peer may do by the time of day follows a clock that is set, within half a minute.
func TestFaultsOfTheClockAndAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := newFaultyPair(t, Culvert)
		skew := b.setClock()
		b.restrict(a, access.Spec{Default: access.Allow, Expires: time.Now().Add(24 * time.Hour)})
		for _, c := range []struct {
			skew time.Duration
			in   bool
		}{{0, true}, {25 * time.Hour, false}, {0, true}, {-1000 * time.Hour, true}, {1000 * time.Hour, false}} {
			skew.Store(int64(c.skew))
			time.Sleep(30 * time.Second)
			in := false
			for range 10 {
				a.send(b, "x")
				time.Sleep(time.Second)
				in = len(b.received()) > 0
			}
			if in != c.in {
				t.Errorf("with the clock %v off: in %v", c.skew, in)
			}
		}
	})
}

// setClock lets a test set the node's wall clock, by how far it is off.
func (a *node) setClock() *atomic.Int64 {
	synctest.Wait()
	skew := new(atomic.Int64)
	a.clock.onWall = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	return skew
}

// remarks returns what gives the lines the node has logged since.
func (a *node) remarks(t *testing.T) (told func() []string) {
	synctest.Wait()
	var mu sync.Mutex
	var lines []string
	a.options.Logf = func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, fmt.Sprintf(format, args...))
		t.Logf(format, args...)
	}
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return lines
	}
}
