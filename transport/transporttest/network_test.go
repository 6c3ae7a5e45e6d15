package transporttest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport"
)

var (
	addrA  = netip.MustParseAddr("192.0.2.1")
	addrB  = netip.MustParseAddr("192.0.2.2")
	addrA6 = netip.MustParseAddr("2001:db8::1")
	addrB6 = netip.MustParseAddr("2001:db8::2")
	public = netip.MustParseAddr("203.0.113.9")
	inside = netip.MustParseAddr("10.0.0.5")
)

// end is a socket with what it has received.
type end struct {
	t *testing.T
	transport.Socket
	mu  sync.Mutex
	got []arrival
}

type arrival struct {
	at       time.Duration // since the end was made
	data     string
	endpoint transport.Endpoint
	tos      uint8
	train    int
}

// listen opens a port and receives until the test ends.
func listen(t *testing.T, h *Host, port uint16) *end {
	t.Helper()
	s, err := h.Open(transport.Options{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	e := &end{t: t, Socket: s}
	var wg sync.WaitGroup
	start := time.Now()
	for _, r := range s.Receivers() {
		wg.Go(func() {
			trains := newTrains(4)
			for {
				n, err := r.Receive(trains)
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("Receive: %v", err)
					}
					return
				}
				e.mu.Lock()
				for i := range trains[:n] {
					tr := &trains[i]
					for d, next := tr.Next(0); d != nil; d, next = tr.Next(next) {
						e.got = append(e.got, arrival{time.Since(start), string(d), tr.Endpoint, tr.TOS, tr.Datagrams()})
					}
				}
				e.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { s.Close(); wg.Wait() })
	return e
}

func newTrains(n int) []transport.Train {
	trains := make([]transport.Train, n)
	for i := range trains {
		trains[i].Buf = make([]byte, transport.ReceiveBufferSize)
	}
	return trains
}

// send sends one train and fails the test if that fails.
func (e *end) send(tr transport.Train) {
	e.t.Helper()
	if err := e.trySend(tr); err != nil {
		e.t.Fatal(err)
	}
}

func (e *end) trySend(tr transport.Train) error {
	trains := []transport.Train{tr}
	e.NewSender().Send(trains)
	return trains[0].Err
}

func (e *end) dontFragment(on bool) {
	e.t.Helper()
	if err := e.SetDontFragment(on); err != nil {
		e.t.Fatal(err)
	}
}

// say sends one datagram of text.
func (e *end) say(to netip.AddrPort, text string) {
	e.t.Helper()
	e.send(datagramTo(to, text))
}

func datagramTo(to netip.AddrPort, text string) transport.Train {
	return transport.Train{Buf: []byte(text), N: len(text), Endpoint: transport.Endpoint{Remote: to}}
}

// heard returns what arrived since it was last asked, once nothing moves any more at this time.
func (e *end) heard() []arrival {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	got := e.got
	e.got = nil
	return got
}

// texts is the data of arrivals, for comparing.
func texts(got []arrival) string {
	var s []string
	for _, a := range got {
		s = append(s, a.data)
	}
	return strings.Join(s, " ")
}

func (e *end) wantHeard(want string) []arrival {
	e.t.Helper()
	got := e.heard()
	if texts(got) != want {
		e.t.Fatalf("heard %q, want %q", texts(got), want)
	}
	return got
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// pair is two hosts with both families and a socket on each.
func pair(t *testing.T, seed uint64) (n *Network, ha, hb *Host, a, b *end) {
	n = New(seed)
	ha, hb = n.Host(addrA, addrA6), n.Host(addrB, addrB6)
	return n, ha, hb, listen(t, ha, 1), listen(t, hb, 2)
}

func TestDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, _, a, b := pair(t, 1)
		for _, c := range []struct{ from, to netip.Addr }{{addrA, addrB}, {addrA6, addrB6}} {
			tr := datagramTo(at(c.to, 2), "hello")
			tr.TOS = transport.TOSHandshake
			a.send(tr)
			got := b.wantHeard("hello")[0]
			if got.endpoint.Remote != at(c.from, 1) || got.endpoint.Source != c.to || got.tos != transport.TOSHandshake {
				t.Errorf("%+v", got)
			}
			if !b.SourceValid(got.endpoint) {
				t.Error("source not valid")
			}
			b.send(transport.Train{Buf: []byte("yes"), N: 3, Endpoint: got.endpoint})
			a.wantHeard("yes")
		}
	})
}

func TestTrainsStayTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, _, a, b := pair(t, 1)
		buf := bytes.Repeat([]byte("0123456789"), 5)
		a.send(transport.Train{Buf: buf, N: 45, Segment: 10, Endpoint: transport.Endpoint{Remote: at(addrB, 2)}})
		got := b.wantHeard("0123456789 0123456789 0123456789 0123456789 01234")
		if got[0].train != 5 {
			t.Errorf("train of %d, want 5", got[0].train)
		}
		// Sizes that grow, change of TOS or sender and empty datagrams part trains.
		trains := []transport.Train{
			datagramTo(at(addrB, 2), "aa"), datagramTo(at(addrB, 2), "bb"), datagramTo(at(addrB, 2), "c"),
			datagramTo(at(addrB, 2), "dd"), datagramTo(at(addrB, 2), "eee"), datagramTo(at(addrB, 2), "fff"),
		}
		trains[5].TOS = transport.ECNCE
		if a.NewSender().Send(trains) != 0 {
			t.Fatal("Send failed")
		}
		var sizes []int
		for _, g := range b.wantHeard("aa bb c dd eee fff") {
			sizes = append(sizes, g.train)
		}
		if want := []int{3, 3, 3, 1, 1, 1}; !slices.Equal(sizes, want) {
			t.Errorf("trains %v, want %v", sizes, want)
		}
	})
}

func TestTrainsAreBounded(t *testing.T) {
	n := New(1)
	a, _ := n.Host(addrA).Open(transport.Options{})
	b, _ := n.Host(addrB).Open(transport.Options{})
	defer a.Close()
	defer b.Close()
	for _, size := range []int{1, 1000, 40000} {
		sender := a.NewSender()
		for range 100 {
			trains := []transport.Train{datagramTo(at(addrB, b.Port()), strings.Repeat("x", size))}
			if sender.Send(trains) != 0 {
				t.Fatal(trains[0].Err)
			}
		}
		trains := newTrains(100)
		count, err := b.Receivers()[0].Receive(trains)
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for i := range trains[:count] {
			tr := &trains[i]
			total += tr.Datagrams()
			if tr.Datagrams() > transport.MaxTrainSegments || tr.N > transport.MaxTrainBytes {
				t.Errorf("size %d: a train of %d datagrams, %d bytes", size, tr.Datagrams(), tr.N)
			}
		}
		if total != 100 {
			t.Errorf("size %d: %d datagrams", size, total)
		}
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, hb, a, b := pair(t, 1)
		n.SetLinkOneWay(ha, hb, Link{Delay: 30 * time.Millisecond})
		a.say(at(addrB, 2), "slow")
		b.say(at(addrA, 1), "fast")
		if got := a.wantHeard("fast")[0]; got.at != 0 {
			t.Errorf("the undelayed way took %v", got.at)
		}
		time.Sleep(30*time.Millisecond - 1)
		b.wantHeard("")
		time.Sleep(time.Nanosecond)
		if got := b.wantHeard("slow")[0]; got.at != 30*time.Millisecond {
			t.Errorf("took %v", got.at)
		}
	})
}

func TestJitterKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, hb, a, b := pair(t, 7)
		n.SetLink(ha, hb, Link{Delay: 10 * time.Millisecond, Jitter: 20 * time.Millisecond})
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprint(i))
			a.say(at(addrB, 2), want[i])
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		got := b.wantHeard(strings.Join(want, " "))
		different := map[time.Duration]bool{}
		for i, g := range got {
			took := g.at - time.Duration(i)*time.Millisecond
			different[took] = true
			if took < 10*time.Millisecond || took > 30*time.Millisecond {
				t.Errorf("datagram %d took %v", i, took)
			}
		}
		if len(different) < 20 {
			t.Errorf("only %d different delays", len(different))
		}
	})
}

func TestReorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, hb, a, b := pair(t, 7)
		n.SetLink(ha, hb, Link{Delay: time.Millisecond, Reorder: 1, ReorderDelay: 5 * time.Millisecond})
		a.say(at(addrB, 2), "first")
		n.SetLink(ha, hb, Link{Delay: time.Millisecond})
		a.say(at(addrB, 2), "second")
		time.Sleep(time.Second)
		got := b.wantHeard("second first")
		if got[0].at != time.Millisecond || got[1].at != 6*time.Millisecond {
			t.Errorf("at %v and %v", got[0].at, got[1].at)
		}
		if c := n.Counters(); c.Reordered != 1 || c.Delivered != 2 {
			t.Errorf("%+v", c)
		}
	})
}

// Chances come out near what was asked for, and counted.
func TestChances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, hb, a, b := pair(t, 3)
		n.SetLink(ha, hb, Link{Loss: 0.3, Duplicate: 0.2, CE: 0.5})
		const sent = 2000
		for i := range sent {
			tr := datagramTo(at(addrB, 2), "x")
			if i%2 == 0 {
				tr.TOS = transport.TOSHandshake | transport.ECNECT0
			}
			a.send(tr)
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		got := b.heard()
		c := n.Counters()
		if c.Sent != sent || uint64(len(got)) != c.Delivered || c.Delivered != c.Sent-c.Lost+c.Duplicated {
			t.Errorf("%d heard, %+v", len(got), c)
		}
		near := func(what string, got uint64, want float64) {
			if f := float64(got); f < want*0.85 || f > want*1.15 {
				t.Errorf("%s: %d, want about %.0f", what, got, want)
			}
		}
		near("lost", c.Lost, sent*0.3)
		near("duplicated", c.Duplicated, sent*0.7*0.2)
		near("marked", c.Marked, sent*0.7*0.5/2)
		for _, g := range got {
			switch g.tos {
			case 0, transport.TOSHandshake | transport.ECNECT0, transport.TOSHandshake | transport.ECNCE:
			default:
				t.Fatalf("TOS %#x", g.tos)
			}
		}
	})
}

func TestSeedDecides(t *testing.T) {
	run := func(seed uint64) (trace string) {
		synctest.Test(t, func(t *testing.T) {
			n, _, _, a, b := pair(t, seed)
			n.SetDefaultLink(Link{Loss: 0.1, Duplicate: 0.1, Reorder: 0.2, Delay: 5 * time.Millisecond, Jitter: time.Millisecond})
			for i := range 200 {
				a.say(at(addrB, 2), fmt.Sprint(i))
				b.say(at(addrA6, 1), fmt.Sprint(-i))
				time.Sleep(300 * time.Microsecond)
			}
			time.Sleep(time.Second)
			trace = fmt.Sprint(a.heard(), b.heard())
		})
		return trace
	}
	first := run(42)
	if run(42) != first {
		t.Error("one seed, two outcomes")
	}
	if run(43) == first {
		t.Error("two seeds, one outcome")
	}
}

// A link's MTU swallows without a word what may not be fragmented.
func TestLinkMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, hb, a, b := pair(t, 1)
		n.SetLink(ha, hb, Link{MTU: 100})
		for _, c := range []struct {
			to  netip.Addr
			fit int
		}{{addrB, 72}, {addrB6, 52}} {
			fits, large := strings.Repeat("x", c.fit), strings.Repeat("x", c.fit+1)
			for _, whole := range []bool{false, true, false} {
				a.dontFragment(whole)
				a.say(at(c.to, 2), large)
				if whole {
					b.wantHeard("")
				} else {
					b.wantHeard(large)
				}
				a.say(at(c.to, 2), fits)
				b.wantHeard(fits)
			}
		}
		if c := n.Counters(); c.TooLarge != 2 || c.Fragmented != 4 {
			t.Errorf("%+v", c)
		}
	})
}

// A host's MTU refuses it at once, the whole train.
func TestHostMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, _, a, b := pair(t, 1)
		ha.SetMTU(100)
		for _, c := range []struct {
			to  netip.Addr
			fit int
		}{{addrB, 72}, {addrB6, 52}} {
			train := func(segment int) transport.Train {
				return transport.Train{Buf: make([]byte, 2*segment+1), N: 2*segment + 1, Segment: segment,
					Endpoint: transport.Endpoint{Remote: at(c.to, 2)}}
			}
			for _, whole := range []bool{false, true, false} {
				a.dontFragment(whole)
				for _, segment := range []int{c.fit, c.fit + 1} {
					want, arrive := error(nil), 3
					if whole && segment > c.fit {
						want, arrive = transport.ErrTooBig, 0
					}
					if err := a.trySend(train(segment)); !errors.Is(err, want) {
						t.Errorf("to %v in segments of %d, whole %v: %v", c.to, segment, whole, err)
					}
					if got := b.heard(); len(got) != arrive {
						t.Errorf("to %v in segments of %d, whole %v: %d arrived", c.to, segment, whole, len(got))
					}
				}
			}
		}
		b.dontFragment(true)
		b.say(at(addrA, 1), strings.Repeat("x", 5000)) // another host's interface
		ha.SetMTU(0)
		a.dontFragment(true)
		a.say(at(addrB, 2), strings.Repeat("x", 5000))
		if c := n.Counters(); c.TooBig != 2 || c.TooLarge != 0 || c.Delivered != 10*3+2 {
			t.Errorf("%+v", c)
		}
		if c := a.Counters(); c.SendErrors != 2 {
			t.Errorf("%+v", c)
		}
	})
}

// Options and taps know it too.
func TestDontFragmentIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, _, _, _ := pair(t, 1)
		s, err := ha.Open(transport.Options{DontFragment: true})
		if err != nil {
			t.Fatal(err)
		}
		var seen []bool
		n.Tap(func(p *Packet) { seen = append(seen, p.DontFragment) })
		sender := s.NewSender()
		for _, whole := range []bool{true, false, true} {
			if err := s.SetDontFragment(whole); err != nil {
				t.Fatal(err)
			}
			sender.Send([]transport.Train{datagramTo(at(addrB, 2), "x")})
		}
		if !slices.Equal(seen, []bool{true, false, true}) {
			t.Errorf("seen %v", seen)
		}
		s.Close()
		if err := s.SetDontFragment(true); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, hb, a, b := pair(t, 1)
		n.SetLinkOneWay(ha, hb, Link{Unreachable: true})
		if err := a.trySend(datagramTo(at(addrB, 2), "x")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("Send: %v", err)
		}
		b.say(at(addrA, 1), "other way")
		a.wantHeard("other way")
		n.SetLinkOneWay(ha, hb, Link{})
		a.say(at(addrB, 2), "again")
		b.wantHeard("again")

		only4 := listen(t, n.Host(netip.MustParseAddr("192.0.2.3")), 3)
		if err := only4.trySend(datagramTo(at(addrB6, 2), "x")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("Send to a family the host lacks: %v", err)
		}
		a.say(at(netip.MustParseAddr("198.51.100.1"), 2), "nobody there")
		a.say(at(addrB, 999), "nothing open")
		if c := n.Counters(); c.NoHost != 1 || c.NoSocket != 1 || c.Unreachable != 2 {
			t.Errorf("%+v", c)
		}
		if c := a.Counters(); c.SendErrors != 1 {
			t.Errorf("%+v", c)
		}
	})
}

func TestTrainErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, _, a, b := pair(t, 1)
		long := make([]byte, 100)
		trains := []transport.Train{
			{Buf: long, N: 101, Endpoint: transport.Endpoint{Remote: at(addrB, 2)}},
			{Buf: long, N: 100, Segment: 1, Endpoint: transport.Endpoint{Remote: at(addrB, 2)}},
			{Buf: long, N: 100},
			datagramTo(at(addrB, 2), "fine"),
		}
		if failed := a.NewSender().Send(trains); failed != 3 || trains[3].Err != nil {
			t.Errorf("%d failed", failed)
		}
		b.wantHeard("fine")
	})
}

func TestNATFiltersAndTranslates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		server := listen(t, n.Host(addrB), 2)
		other := listen(t, n.Host(addrA), 2)
		nat := n.NAT(0, public)
		client := listen(t, nat.Host(inside), 7)
		neighbour := listen(t, nat.Host(netip.MustParseAddr("10.0.0.6")), 7)

		client.say(at(addrB, 2), "out")
		mapped := server.wantHeard("out")[0].endpoint.Remote
		if mapped.Addr() != public || mapped.Port() == 7 {
			t.Errorf("seen as %v", mapped)
		}
		server.say(mapped, "back")
		if got := client.wantHeard("back")[0]; got.endpoint.Remote != at(addrB, 2) || got.endpoint.Source != inside {
			t.Errorf("%+v", got.endpoint)
		}
		// Nobody else gets in, not even from the same host, until sent to; the mapping stays the same then.
		other.say(mapped, "uninvited")
		n.Inject(at(addrB, 3), mapped, []byte("other port"))
		client.wantHeard("")
		if c := n.Counters(); c.Filtered != 2 {
			t.Errorf("%+v", c)
		}
		client.say(at(addrA, 2), "hi")
		if got := other.wantHeard("hi")[0].endpoint.Remote; got != mapped {
			t.Errorf("mapped to %v towards another remote, was %v", got, mapped)
		}
		other.say(mapped, "invited")
		client.wantHeard("invited")

		neighbour.say(at(addrB, 2), "me too")
		if got := server.wantHeard("me too")[0].endpoint.Remote; got == mapped || got.Addr() != public {
			t.Errorf("two hosts on %v", got)
		}
		client.say(at(netip.MustParseAddr("10.0.0.6"), 7), "local")
		if got := neighbour.wantHeard("local")[0].endpoint.Remote; got != at(inside, 7) {
			t.Errorf("translated inside: %v", got)
		}
		server.say(at(inside, 7), "private address")
		if c := n.Counters(); c.NoHost != 1 {
			t.Errorf("a private address was reached from outside: %+v", c)
		}
		if err := client.trySend(datagramTo(at(addrB6, 2), "x")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("IPv6 through an IPv4 NAT: %v", err)
		}
	})
}

func TestNATTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		server := listen(t, n.Host(addrB), 2)
		client := listen(t, n.NAT(30*time.Second, public).Host(inside), 7)
		client.say(at(addrB, 2), "open")
		mapped := server.wantHeard("open")[0].endpoint.Remote
		for range 5 { // keepalives of 25 s keep it
			time.Sleep(25 * time.Second)
			client.say(at(addrB, 2), "keep")
			if got := server.wantHeard("keep")[0].endpoint.Remote; got != mapped {
				t.Fatalf("moved to %v", got)
			}
		}
		time.Sleep(30*time.Second - 1)
		server.say(mapped, "just in time")
		client.wantHeard("just in time")
		time.Sleep(time.Nanosecond)
		server.say(mapped, "late")
		client.wantHeard("")
		client.say(at(addrB, 2), "anew")
		if got := server.wantHeard("anew")[0].endpoint.Remote; got == mapped {
			t.Error("an expired mapping was used again")
		}
	})
}

func TestNATRebind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		server := listen(t, n.Host(addrB), 2)
		nat := n.NAT(0, public)
		client := listen(t, nat.Host(inside), 7)
		exchange := func() netip.AddrPort {
			client.say(at(addrB, 2), "x")
			return server.wantHeard("x")[0].endpoint.Remote
		}
		first := exchange()
		nat.Rebind()
		server.say(first, "lost")
		client.wantHeard("")
		second := exchange()
		if second == first || second.Addr() != public {
			t.Errorf("%v, then %v", first, second)
		}
		moved := netip.MustParseAddr("203.0.113.77")
		nat.SetPublic(moved)
		if third := exchange(); third.Addr() != moved {
			t.Errorf("after SetPublic: %v", third)
		}
	})
}

func TestRoaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, ha, _, a, b := pair(t, 1)
		moved := netip.MustParseAddr("192.0.2.99")
		b.say(at(addrA, 1), "x")
		e := a.wantHeard("x")[0].endpoint
		select {
		case <-a.RouteChanges():
			t.Error("route change out of nothing")
		default:
		}
		ha.SetAddrs(moved, addrA6)
		ha.ChangeRoutes() // coalesces
		<-a.RouteChanges()
		select {
		case <-a.RouteChanges():
			t.Error("two signals for one look")
		default:
		}
		if a.SourceValid(e) || !a.SourceValid(e.WithoutSource()) {
			t.Error("SourceValid")
		}
		b.say(at(addrA, 1), "to the old address")
		if c := n.Counters(); c.NoHost != 1 {
			t.Errorf("%+v", c)
		}
		a.send(transport.Train{Buf: []byte("y"), N: 1, Endpoint: e})
		if got := b.wantHeard("y")[0].endpoint.Remote; got != at(moved, 1) {
			t.Errorf("from %v", got)
		}
		if c := a.Counters(); c.SourceFallbacks != 1 {
			t.Errorf("%+v", c)
		}
		ha.Move(n.NAT(0, public), inside)
		a.say(at(addrB, 2), "z")
		if got := b.wantHeard("z")[0].endpoint.Remote; got.Addr() != public {
			t.Errorf("behind the NAT from %v", got)
		}
	})
}

// What is on its way when a host moves is lost.
func TestMovedWhileOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, hb, a, b := pair(t, 1)
		n.SetDefaultLink(Link{Delay: time.Second})
		a.say(at(addrB, 2), "x")
		hb.SetAddrs(netip.MustParseAddr("192.0.2.50"))
		time.Sleep(time.Second)
		b.wantHeard("")
	})
}

func TestTap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, _, a, b := pair(t, 1)
		var seen []string
		remove := n.Tap(func(p *Packet) {
			seen = append(seen, fmt.Sprintf("%v>%v %s", p.From, p.To, p.Data))
			switch string(p.Data) {
			case "drop":
				p.Drop = true
			case "flip":
				p.Data[0] ^= 0x20
			case "grow":
				p.Data = append(p.Data, " more"...)
				p.TOS = transport.ECNCE
			case "answer":
				n.Inject(p.To, p.From, []byte("forged"))
			}
		})
		for _, s := range []string{"drop", "flip", "grow", "answer"} {
			a.say(at(addrB, 2), s)
		}
		got := b.wantHeard("Flip grow more answer")
		if got[1].tos != transport.ECNCE {
			t.Errorf("TOS %#x", got[1].tos)
		}
		a.wantHeard("forged")
		want := []string{"192.0.2.1:1>192.0.2.2:2 drop", "192.0.2.1:1>192.0.2.2:2 flip",
			"192.0.2.1:1>192.0.2.2:2 grow", "192.0.2.1:1>192.0.2.2:2 answer"}
		if !slices.Equal(seen, want) {
			t.Errorf("seen %q", seen)
		}
		remove()
		a.say(at(addrB, 2), "drop")
		b.wantHeard("drop")
		if c := n.Counters(); c.Tapped != 1 {
			t.Errorf("%+v", c)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	n := New(1)
	hb := n.Host(addrB)
	hb.SetQueue(1000)
	a, _ := n.Host(addrA).Open(transport.Options{})
	b, _ := hb.Open(transport.Options{Port: 2})
	defer a.Close()
	defer b.Close()
	sender := a.NewSender()
	for range 50 {
		sender.Send([]transport.Train{datagramTo(at(addrB, 2), strings.Repeat("x", 100))})
	}
	if c := n.Counters(); c.Delivered != 10 || c.QueueFull != 40 {
		t.Errorf("%+v", c)
	}
}

func TestPorts(t *testing.T) {
	n := New(1)
	h := n.Host(addrA)
	a, err := h.Open(transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Open(transport.Options{})
	if err != nil || a.Port() == b.Port() || a.Port() == 0 {
		t.Fatalf("ports %d and %d, %v", a.Port(), b.Port(), err)
	}
	if _, err := h.Open(transport.Options{Port: a.Port()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("port taken: %v", err)
	}
	a.Close()
	a.Close()
	if err := a.SetMark(1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetMark after Close: %v", err)
	}
	if _, err = h.Open(transport.Options{Port: a.Port()}); err != nil {
		t.Errorf("port given back: %v", err)
	}
}

func TestCloseUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := New(1).Host(addrA).Open(transport.Options{})
		done := make(chan error)
		go func() {
			_, err := s.Receivers()[0].Receive(newTrains(1))
			done <- err
		}()
		synctest.Wait()
		s.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Receive: %v", err)
		}
		trains := []transport.Train{datagramTo(at(addrB, 1), "x")}
		if s.NewSender().Send(trains) != 1 || !errors.Is(trains[0].Err, net.ErrClosed) {
			t.Errorf("Send: %v", trains[0].Err)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	n := New(1)
	ha, hb := n.Host(addrA), n.Host(addrB)
	n.SetLink(ha, hb, Link{Duplicate: 0.1, CE: 0.1})
	a, _ := ha.Open(transport.Options{})
	b, _ := hb.Open(transport.Options{Port: 2})
	sender, receiver := a.NewSender(), b.Receivers()[0]
	out := []transport.Train{{Buf: make([]byte, 5000), N: 5000, Segment: 1400, TOS: 2,
		Endpoint: transport.Endpoint{Remote: at(addrB, 2)}}}
	in := newTrains(64)
	step := func() {
		if sender.Send(out) != 0 {
			t.Fatal(out[0].Err)
		}
		if _, err := receiver.Receive(in); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		step()
	}
	if allocs := testing.AllocsPerRun(500, step); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// Everything at once from many goroutines in real time, for the race detector.
func TestConcurrentUse(t *testing.T) {
	n := New(9)
	n.SetDefaultLink(Link{Loss: 0.1, Duplicate: 0.1, Delay: time.Microsecond, Jitter: 50 * time.Microsecond, Reorder: 0.1})
	n.Tap(func(p *Packet) { p.Drop = len(p.Data) > 90 })
	nat := n.NAT(time.Millisecond, public)
	hosts := []*Host{n.Host(addrA), n.Host(addrB), nat.Host(inside)}
	var sockets []transport.Socket
	var receivers, senders sync.WaitGroup
	for _, h := range hosts {
		s, err := h.Open(transport.Options{Port: 5})
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, s)
		receivers.Go(func() {
			for trains := newTrains(3); ; {
				if _, err := s.Receivers()[0].Receive(trains); err != nil {
					return
				}
			}
		})
	}
	for i, s := range sockets {
		for range 2 {
			senders.Go(func() {
				sender := s.NewSender()
				for j := range 300 {
					sender.Send([]transport.Train{
						{Buf: make([]byte, 100), N: j % 100, Segment: 30, Endpoint: transport.Endpoint{Remote: at(addrA, 5)}},
						{Buf: make([]byte, 100), N: j % 100, Endpoint: transport.Endpoint{Remote: at(addrB, 5)}},
					})
					switch {
					case i == 0 && j%50 == 0:
						nat.Rebind()
					case i == 1 && j%50 == 0:
						n.SetLink(hosts[0], hosts[2], Link{Loss: 0.5})
					case i == 2 && j%50 == 0:
						hosts[2].SetAddrs(inside)
						s.SourceValid(transport.Endpoint{Source: inside, Interface: 1})
						s.Counters()
					}
				}
			})
		}
	}
	senders.Wait()
	for _, s := range sockets {
		s.Close()
	}
	receivers.Wait()
	if n.Counters().Sent == 0 {
		t.Error("nothing was sent")
	}
}
