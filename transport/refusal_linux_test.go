package transport

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/lab"
)

// refuse puts errors in front of the kernel: calls of sendmmsg whose first message is refused by errno, until that
// returns 0.
func refuse(s *udpSocket, errno func(h *mmsghdr) unix.Errno) (calls *int) {
	calls = new(int)
	s.send = func(fd uintptr, first *mmsghdr, n int) (int, unix.Errno) {
		*calls++
		if e := errno(first); e != 0 {
			return -1, e
		}
		return sendmmsg(fd, first, 1) // one by one, so that each message is looked at
	}
	return calls
}

// carriesSegment tells whether a message has an UDP_SEGMENT control message; carriesSource, packet info.
func carriesSegment(h *mmsghdr) bool { return carries(h, unix.IPPROTO_UDP, unix.UDP_SEGMENT) }

func carriesSource(h *mmsghdr) bool {
	return carries(h, unix.IPPROTO_IP, unix.IP_PKTINFO) || carries(h, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO)
}

func carries(h *mmsghdr, level, kind int32) bool {
	b := (*controlBuffer)(ptr(h.hdr.Control))[:h.hdr.Controllen]
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		panic(err)
	}
	return slices.ContainsFunc(messages, func(m unix.SocketControlMessage) bool {
		return m.Header.Level == level && m.Header.Type == kind
	})
}

func TestSegmentRefusedByDevice(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.EOPNOTSUPP} {
		t.Run(errno.Error(), func(t *testing.T) {
			var logged []string
			a := openUDP(t, Options{Logf: func(f string, args ...any) { logged = append(logged, fmt.Sprintf(f, args...)) }})
			b := openUDP(t, Options{})
			arrivals := listen(t, b)
			refuse(a, func(h *mmsghdr) unix.Errno {
				if carriesSegment(h) {
					return errno
				}
				return 0
			})
			sender, other := a.NewSender(), a.NewSender()
			for _, to := range loopbacks(b) {
				for round := range 3 {
					trains := []Train{trainTo(to, pattern(10), 0), trainTo(to, pattern(64*100), 100), trainTo(to, pattern(250), 100)}
					trains[1].Endpoint.Source, trains[1].Endpoint.Interface = to.Addr(), 1
					if sender.Send(trains) != 0 {
						t.Fatal(trains[1].Err)
					}
					got := take(t, arrivals, 1+64+3)
					wantDatagrams(t, got[1:], &trains[1])
					wantDatagrams(t, got[65:], &trains[2])
					if round == 1 {
						other.Send(trains[2:])
						take(t, arrivals, 3)
					}
				}
			}
			c := a.Counters()
			if want := uint64(len(loopbacks(b)) * (3*2 + 1)); c.SegmentFallbacks != want {
				t.Errorf("%d fallbacks, want %d", c.SegmentFallbacks, want)
			}
			if c.SegmentOffload || c.SourceFallbacks != 0 || c.SendErrors != 0 {
				t.Errorf("%+v", c)
			}
			if len(logged) != 1 || !strings.Contains(logged[0], errno.Error()) {
				t.Errorf("logged %q, want one line", logged)
			}
		})
	}
}

// EINVAL is remembered only when it keeps coming, EMSGSIZE never.
func TestSegmentRefusedForOther(t *testing.T) {
	a, b := openUDP(t, Options{}), openUDP(t, Options{})
	arrivals := listen(t, b)
	to := loopbacks(b)[0]
	sender := a.NewSender()
	refusal := unix.Errno(0)
	refuse(a, func(h *mmsghdr) unix.Errno {
		if carriesSegment(h) {
			return refusal
		}
		return 0
	})
	send := func(errno unix.Errno, times int) {
		t.Helper()
		refusal = errno
		for range times {
			tr := []Train{trainTo(to, pattern(250), 100)}
			if sender.Send(tr) != 0 {
				t.Fatal(tr[0].Err)
			}
			wantDatagrams(t, take(t, arrivals, 3), &tr[0])
		}
	}
	send(unix.EMSGSIZE, 3*refusalsRemembered)
	send(unix.EINVAL, refusalsRemembered-1)
	send(0, 1)
	send(unix.EINVAL, refusalsRemembered-1)
	if !a.Counters().SegmentOffload {
		t.Fatal("given up too early")
	}
	send(unix.EINVAL, 1)
	if a.Counters().SegmentOffload {
		t.Error("not given up")
	}
}

// Source and segment are both wrong, whichever the kernel says first.
func TestSourceAndSegmentRefused(t *testing.T) {
	for _, segmentErr := range []unix.Errno{unix.EIO, unix.EINVAL} {
		a, b := openUDP(t, Options{}), openUDP(t, Options{})
		arrivals := listen(t, b)
		for _, sourceFirst := range []bool{true, false} {
			a.segmentOff.Store(false)
			refuse(a, func(h *mmsghdr) unix.Errno {
				switch {
				case carriesSource(h) && (sourceFirst || !carriesSegment(h)):
					return unix.EINVAL
				case carriesSegment(h):
					return segmentErr
				}
				return 0
			})
			tr := []Train{trainTo(loopbacks(b)[0], pattern(250), 100)}
			tr[0].Endpoint.Source = loopback4
			if a.NewSender().Send(tr) != 0 {
				t.Fatal(tr[0].Err)
			}
			wantDatagrams(t, take(t, arrivals, 3), &tr[0])
		}
		if c := a.Counters(); c.SegmentFallbacks != 2 || c.SourceFallbacks == 0 || c.SendErrors != 0 {
			t.Errorf("%+v", c)
		}
	}
}

// Only the segment is refused, by the errno a stale source has too: the source must survive.
func TestSegmentRefusedKeepsSource(t *testing.T) {
	a, b := openUDP(t, Options{}), openUDP(t, Options{})
	arrivals := listen(t, b)
	refuse(a, func(h *mmsghdr) unix.Errno {
		if carriesSegment(h) {
			return unix.EINVAL
		}
		return 0
	})
	tr := []Train{trainTo(loopbacks(b)[0], pattern(250), 100)}
	tr[0].Endpoint.Source = loopback4.Next() // 127.0.0.2
	if a.NewSender().Send(tr) != 0 {
		t.Fatal(tr[0].Err)
	}
	for _, got := range take(t, arrivals, 3) {
		if got.endpoint.Remote.Addr() != tr[0].Endpoint.Source {
			t.Errorf("came from %v", got.endpoint.Remote)
		}
	}
	if c := a.Counters(); c.SourceFallbacks != 0 {
		t.Errorf("%+v", c)
	}
}

// SO_NO_CHECK makes a real kernel refuse segments.
func TestSegmentRefusedByKernel(t *testing.T) {
	a, b := openUDP(t, Options{}), openUDP(t, Options{})
	if !a.Counters().SegmentOffload {
		lab.Skip(t, "the kernel lacks UDP_SEGMENT")
	}
	if err := a.v4.raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	arrivals := listen(t, b)
	sender := a.NewSender()
	for range refusalsRemembered + 1 {
		tr := []Train{trainTo(loopbacks(b)[0], pattern(5*1000+1), 1000)}
		tr[0].Endpoint.Source = loopback4
		if sender.Send(tr) != 0 {
			t.Fatal(tr[0].Err)
		}
		wantDatagrams(t, take(t, arrivals, 6), &tr[0])
	}
	c := a.Counters()
	if c.SegmentFallbacks != refusalsRemembered+1 || c.SegmentOffload || c.SourceFallbacks != 0 {
		t.Errorf("%+v", c)
	}
}

// A message that fails for good does not hold back the others, and costs a bounded number of calls.
func TestSendErrnos(t *testing.T) {
	for _, c := range []struct {
		errno unix.Errno
		times int // how often it is met
		calls int // that the failing train costs
		fails bool
	}{
		{unix.ENOBUFS, 1000, 1, true},
		{unix.ENOMEM, 1000, 1, true},
		{unix.EPERM, 1000, 1, true},
		{unix.ECONNREFUSED, 1, 2, false},
		{unix.ECONNREFUSED, 1000, 2, true},
		{unix.EINTR, 5, 6, false},
		{unix.ENETUNREACH, 1000, 2, true}, // with its source, and without
		{unix.EINVAL, 1000, 2, true},
	} {
		t.Run(fmt.Sprint(c.errno, c.times), func(t *testing.T) {
			a, b := openUDP(t, Options{}), openUDP(t, Options{})
			arrivals := listen(t, b)
			to := loopbacks(b)[0]
			times := c.times
			calls := refuse(a, func(h *mmsghdr) unix.Errno {
				if h.hdr.Iov.Len == 77 && times > 0 {
					times--
					return c.errno
				}
				return 0
			})
			trains := []Train{trainTo(to, pattern(10), 0), trainTo(to, pattern(77), 0), trainTo(to, pattern(20), 0)}
			trains[1].Endpoint.Source = loopback4
			failed := a.NewSender().Send(trains)
			if (failed == 1) != c.fails || c.fails && !errors.Is(trains[1].Err, c.errno) {
				t.Errorf("%d failed: %v", failed, trains[1].Err)
			}
			take(t, arrivals, 3-failed)
			if *calls != c.calls+2 {
				t.Errorf("%d calls, want %d", *calls-2, c.calls)
			}
			if n := a.Counters().SendErrors; n != uint64(failed) {
				t.Errorf("%d errors counted", n)
			}
		})
	}
}

// One bad datagram of a train sent singly fails the train and no other.
func TestSingleOfTrainFails(t *testing.T) {
	a, b := openUDP(t, Options{}), openUDP(t, Options{})
	arrivals := listen(t, b)
	to := loopbacks(b)[0]
	a.segmentOff.Store(true)
	refuse(a, func(h *mmsghdr) unix.Errno {
		if h.hdr.Iov.Len == 77 {
			return unix.EPERM
		}
		return 0
	})
	trains := []Train{trainTo(to, pattern(277), 100), trainTo(to, pattern(300), 100)}
	if failed := a.NewSender().Send(trains); failed != 1 || !errors.Is(trains[0].Err, unix.EPERM) {
		t.Errorf("%d failed: %v", failed, trains[0].Err)
	}
	take(t, arrivals, 5)
}

// Kernels that corrupt trains without a shorter tail get none.
func TestEqualTrainsAvoided(t *testing.T) {
	a, b := openUDP(t, Options{}), openUDP(t, Options{})
	if !a.Counters().SegmentOffload {
		lab.Skip(t, "the kernel lacks UDP_SEGMENT")
	}
	a.corruptsEqualTrains = true
	a.send = func(fd uintptr, first *mmsghdr, n int) (int, unix.Errno) {
		if carriesSegment(first) && first.hdr.Iov.Len%100 == 0 {
			t.Error("an equal train was handed to the kernel")
		}
		return sendmmsg(fd, first, 1)
	}
	arrivals := listen(t, b)
	sender := a.NewSender()
	for n, whole := range map[int]bool{500: false, 501: true, 499: true, 100: false} {
		tr := []Train{trainTo(loopbacks(b)[0], pattern(n), 100)}
		if sender.Send(tr) != 0 {
			t.Fatal(tr[0].Err)
		}
		got := take(t, arrivals, tr[0].Datagrams())
		wantDatagrams(t, got, &tr[0])
		if (got[0].train > 1) != whole {
			t.Errorf("%d bytes: first came in a train of %d", n, got[0].train)
		}
	}
	if c := a.Counters(); c.SegmentFallbacks != 0 {
		t.Errorf("counted as refused: %+v", c)
	}
}

func TestReceiveSurvives(t *testing.T) {
	a, b := openUDP(t, Options{}), openUDP(t, Options{})
	passing := []unix.Errno{unix.ENOMEM, unix.ENOBUFS, unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETDOWN}
	// The receiver of IPv4 alone goes through this: one goroutine at a time.
	left := slices.Clone(passing)
	b.recv = func(fd uintptr, first *mmsghdr, n int) (int, unix.Errno) {
		if len(left) > 0 {
			errno := left[0]
			left = left[1:]
			return -1, errno
		}
		return recvmmsg(fd, first, n)
	}
	a.NewSender().Send([]Train{trainTo(loopbacks(b)[0], pattern(10), 0)})
	trains := newTrains(1)
	start := time.Now()
	if n, err := b.Receivers()[0].Receive(trains); n != 1 || err != nil || trains[0].N != 10 {
		t.Fatalf("%d, %v", n, err)
	}
	if len(left) != 0 {
		t.Errorf("not met: %v", left)
	}
	// Five errors that count, the first tried again at once: 1, 2, 4 and 8 ms. Less would be spinning.
	if waited := time.Since(start); waited < 15*time.Millisecond {
		t.Errorf("waited %v", waited)
	}

	for _, errno := range []unix.Errno{unix.EBADF, unix.EFAULT} {
		left = []unix.Errno{errno}
		if _, err := b.Receivers()[0].Receive(trains); !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

// Close ends a receiver that is waiting for a lasting shortage to pass.
func TestCloseEndsPause(t *testing.T) {
	b := openUDP(t, Options{})
	met := make(chan struct{}, 1)
	b.recv = func(uintptr, *mmsghdr, int) (int, unix.Errno) {
		select {
		case met <- struct{}{}:
		default:
		}
		return -1, unix.ENOMEM
	}
	done := make(chan error)
	go func() {
		_, err := b.Receivers()[0].Receive(newTrains(1))
		done <- err
	}()
	<-met
	b.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive: %v", err)
	}
}

func TestTruncatedIsDropped(t *testing.T) {
	a, b := openUDP(t, Options{}), openUDP(t, Options{})
	b.recv = func(fd uintptr, first *mmsghdr, n int) (int, unix.Errno) {
		got, errno := recvmmsg(fd, first, 1)
		if errno == 0 && first.len == 77 {
			first.hdr.Flags |= unix.MSG_TRUNC
		}
		return got, errno
	}
	arrivals := listen(t, b)
	to := loopbacks(b)[0]
	a.NewSender().Send([]Train{trainTo(to, pattern(77), 0), trainTo(to, pattern(10), 0)})
	if got := take(t, arrivals, 1)[0]; len(got.data) != 10 {
		t.Errorf("got %d bytes", len(got.data))
	}
	if c := b.Counters(); c.Truncated != 1 || c.ReceivedDatagrams != 1 {
		t.Errorf("%+v", c)
	}
}

func TestSmallReceiveBuffer(t *testing.T) {
	b := openUDP(t, Options{})
	if _, err := b.Receivers()[0].Receive([]Train{{}}); err == nil {
		t.Error("a train without a buffer was taken")
	}
}

// Hosts without a family, which a test cannot have, and a port that is free on one family only.
func TestBind(t *testing.T) {
	missing := func(which ...bool) openFunc {
		return func(v6 bool, o Options) (*family, error) {
			if slices.Contains(which, v6) {
				return nil, fmt.Errorf("open: %w", unix.EAFNOSUPPORT)
			}
			return openFamily(v6, o)
		}
	}
	open := func(f openFunc, port uint16) (*udpSocket, error) {
		s := &udpSocket{send: sendmmsg, recv: recvmmsg, closed: make(chan struct{})}
		t.Cleanup(func() { s.Close() })
		return s, s.bind(Options{Port: port}, f)
	}
	for _, lacking := range []bool{false, true} {
		s, err := open(missing(lacking), 0)
		if err != nil || s.port == 0 || (s.v6 == nil) != lacking || (s.v4 == nil) == lacking {
			t.Fatalf("without v6=%v: %+v, %v", lacking, s, err)
		}
		to := trainTo(loopbacks(&udpSocket{v4: s.v6, v6: s.v4, port: 9})[0], pattern(1), 0)
		trains := []Train{to}
		if s.NewSender().Send(trains) != 1 || !errors.Is(trains[0].Err, unix.EAFNOSUPPORT) {
			t.Errorf("sent to %v: %v", to.Endpoint, trains[0].Err)
		}
	}
	if _, err := open(missing(true, false), 0); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("no family at all: %v", err)
	}

	taken := 0
	busyFor := func(n int) openFunc {
		taken = 0
		return func(v6 bool, o Options) (*family, error) {
			if v6 && taken < n {
				taken++
				return nil, fmt.Errorf("open: %w", unix.EADDRINUSE)
			}
			return openFamily(v6, o)
		}
	}
	if s, err := open(busyFor(5), 0); err != nil || taken != 5 || s.v4 == nil || s.v6 == nil {
		t.Errorf("port free on one family: %v after %d", err, taken)
	}
	if _, err := open(busyFor(1<<30), 0); !errors.Is(err, unix.EADDRINUSE) || taken != portTries {
		t.Errorf("no port free: %v after %d", err, taken)
	}
}
