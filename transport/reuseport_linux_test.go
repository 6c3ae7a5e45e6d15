package transport

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// steering is what the engine steers by: data messages, by the top five bits of the receiver index.
var steering = Steering{First: 4, At: 7, Shift: 3}

func TestSteeringOfDatagrams(t *testing.T) {
	for _, c := range []struct {
		data    []byte
		workers int
		want    int
	}{
		{nil, 4, 0},
		{[]byte{4}, 4, 0},
		{[]byte{4, 0, 0, 0, 0, 0, 0}, 4, 0},
		{[]byte{4, 0, 0, 0, 0xff, 0xff, 0xff, 0x07}, 4, 0},
		{[]byte{4, 0, 0, 0, 0, 0, 0, 0x08}, 4, 1},
		{[]byte{4, 0, 0, 0, 0, 0, 0, 0x1f}, 4, 3},
		{[]byte{4, 0, 0, 0, 0, 0, 0, 0xff}, 4, 3},
		{[]byte{4, 0, 0, 0, 0, 0, 0, 0xff}, 3, 1},
		{[]byte{4, 0, 0, 0, 0, 0, 0, 0xff}, 1, 0},
		{[]byte{4, 0, 0, 0, 0, 0, 0, 0xff}, 0, 0},
		{[]byte{5, 0, 0, 0, 0, 0, 0, 0xff}, 4, 0},
	} {
		if got := steering.Worker(c.data, c.workers); got != c.want {
			t.Errorf("%x among %d: worker %d, want %d", c.data, c.workers, got, c.want)
		}
	}
}

// TestKernelSteersAsSteeringSays sends datagrams of all kinds from one port to a port of several workers: all take one way by
// addresses and ports, so only the program can divide them.
func TestKernelSteersAsSteeringSays(t *testing.T) {
	for _, workers := range []int{2, 3, 4, 16} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			b := openUDP(t, Options{Workers: workers, Steering: steering, Logf: func(format string, args ...any) {
				t.Errorf(format, args...)
			}})
			a := openUDP(t, Options{})
			if len(b.receivers) != workers*len(loopbacks(b)) {
				t.Fatalf("%d receivers", len(b.receivers))
			}
			got := make([]<-chan arrival, workers)
			for i := range got {
				got[i] = listenTo(t, b, i)
			}
			sender := a.NewSender()
			for _, to := range loopbacks(b) {
				for first := range 10 {
					for top := 0; top < 256; top += 5 {
						data := []byte{byte(first), 0, 0, 0, 1, 2, 3, byte(top), 9}
						for _, d := range [][]byte{data, data[:first]} {
							if len(d) == 0 {
								continue
							}
							if sender.Send([]Train{trainTo(to, d, 0)}) != 0 {
								t.Fatal("not sent")
							}
							arrived := take(t, got[steering.Worker(d, workers)], 1)[0]
							if string(arrived.data) != string(d) {
								t.Fatalf("worker %d got %x, want %x", steering.Worker(d, workers), arrived.data, d)
							}
						}
					}
				}
			}
			for i, ch := range got {
				if len(ch) != 0 {
					t.Errorf("worker %d got %d more", i, len(ch))
				}
			}
			if c := b.Counters(); c.ReceivedDatagrams != a.Counters().SentDatagrams {
				t.Errorf("%d received of %d", c.ReceivedDatagrams, a.Counters().SentDatagrams)
			}
		})
	}
}

// listenTo is listen for one worker.
func listenTo(t *testing.T, s *udpSocket, worker int) <-chan arrival {
	some := &udpSocket{closed: s.closed}
	for _, r := range s.receivers {
		if r.Worker() == worker {
			some.receivers = append(some.receivers, r)
		}
	}
	return listen(t, receiversOf{s, some.receivers})
}

// receiversOf is a socket with some of its receivers.
type receiversOf struct {
	Socket
	receivers []Receiver
}

func (s receiversOf) Receivers() []Receiver { return s.receivers }

func TestWorkersSendFromOnePort(t *testing.T) {
	a, b := openUDP(t, Options{Workers: 3, Steering: steering}), openUDP(t, Options{})
	got := listen(t, b)
	for _, to := range loopbacks(b) {
		for i := range 4 { // one more than there are
			if a.NewWorkerSender(i).Send([]Train{trainTo(to, pattern(3000), 1000)}) != 0 {
				t.Fatal("not sent")
			}
			for _, d := range take(t, got, 3) {
				if d.endpoint.Remote.Port() != a.Port() {
					t.Errorf("worker %d sends from port %d, not %d", i, d.endpoint.Remote.Port(), a.Port())
				}
			}
		}
	}
	if c := a.Counters(); c.SentDatagrams != uint64(4*3*len(loopbacks(b))) {
		t.Errorf("counters: %+v", c)
	}
}

// A port is an error where anybody has it, also where both would share it.
func TestPortOfWorkersIsInUse(t *testing.T) {
	for _, first := range []int{1, 4} {
		for _, second := range []int{1, 4} {
			a := openUDP(t, Options{Workers: first, Steering: steering})
			if s, err := (UDP{}).Open(Options{Port: a.Port(), Workers: second, Steering: steering}); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%d workers over %d: %v", second, first, err)
				if err == nil {
					s.Close()
				}
			}
			a.Close()
			s, err := UDP{}.Open(Options{Port: a.Port(), Workers: second, Steering: steering})
			if err != nil {
				t.Fatalf("the port is not free after Close: %v", err)
			}
			s.Close()
		}
	}
}

// Where the kernel refuses the program all that is sent arrives all the same, and it is said once.
func TestWithoutSteeringProgram(t *testing.T) {
	var said []string
	s := &udpSocket{send: sendmmsg, recv: recvmmsg, closed: make(chan struct{}), logf: func(format string, args ...any) {
		said = append(said, fmt.Sprintf(format, args...))
	}}
	s.attach = func(int, *unix.SockFprog) error { return unix.EPERM }
	o := Options{Workers: 4, Steering: steering}
	if err := s.bind(o, openFamily); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.join(o); err != nil {
		t.Fatal(err)
	}
	for i := range o.Workers {
		for _, f := range []*family{s.worker(i).v4, s.worker(i).v6} {
			if f != nil {
				s.receivers = append(s.receivers, newReceiver(s, f, i))
			}
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "4 sockets") || !strings.Contains(said[0], "not permitted") {
		t.Errorf("said %q", said)
	}
	got := listen(t, s)
	for range 20 {
		a := openUDP(t, Options{}) // each another port
		for _, to := range loopbacks(s) {
			if a.NewSender().Send([]Train{trainTo(to, []byte{4, 0, 0, 0, 0, 0, 0, 0xff}, 0)}) != 0 {
				t.Fatal("not sent")
			}
			take(t, got, 1)
		}
	}
}

func TestUnwatchedSocketKnowsNothingOfRoutes(t *testing.T) {
	s := openUDP(t, Options{Unwatched: true})
	if s.RouteChanges() != nil || !s.SourceValid(Endpoint{Source: loopback4, Interface: 99}) {
		t.Error("it asks netlink")
	}
}

// Options changed later hold for all sockets of a port.
func TestOptionsHoldForAllWorkers(t *testing.T) {
	s := openUDP(t, Options{Workers: 3, Steering: steering})
	if err := s.SetDontFragment(true); err != nil {
		t.Fatal(err)
	}
	for _, f := range s.families() {
		want := f.mtuDiscover(true)
		var got int
		var err error
		if e := f.raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), want.level, want.opt) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		if got != want.value {
			t.Errorf("%s is %d", want.name, got)
		}
	}
}
