package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/lab"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openOn opens a socket in a host's namespace. It is used from the test's own.
func openOn(t *testing.T, h *lab.Host, o Options) *udpSocket {
	t.Helper()
	var s *udpSocket
	h.Must(func() error { s = openUDP(t, o); return nil })
	return s
}

// index returns a device's interface index.
func index(t *testing.T, h *lab.Host, device string) (i int32) {
	t.Helper()
	h.Must(func() error {
		l, err := netlink.LinkByName(device)
		if err == nil {
			i = int32(l.Attrs().Index)
		}
		return err
	})
	return i
}

// addAddr gives a device an address and waits until it is one: for IPv6 a worker of the kernel adds the local route
// after the address is to be seen.
func addAddr(t *testing.T, h *lab.Host, device, prefix string) {
	t.Helper()
	h.AddAddr(device, prefix)
	awaitLocal(t, h, index(t, h, device), netip.MustParsePrefix(prefix).Addr())
}

func awaitLocal(t *testing.T, h *lab.Host, device int32, addr netip.Addr) {
	t.Helper()
	h.Must(func() error {
		q, err := openRouteQueries()
		if err != nil {
			return err
		}
		defer q.close()
		lab.Eventually(t, 10*time.Second, addr.String()+" is local", func() bool {
			route, err := q.get(routeRequest{dst: addr, oif: linkLocalInterface(addr, device)})
			return err == nil && route.kind == unix.RTN_LOCAL
		})
		return nil
	})
}

// link joins two hosts and waits until the addresses of both are to be reached.
func link(t *testing.T, a, b *lab.Host, opts ...lab.LinkOption) lab.Wire {
	t.Helper()
	w := lab.Link(t, a, b, opts...)
	for _, e := range []lab.End{w.A, w.B} {
		for _, p := range []netip.Prefix{e.V4, e.V6} {
			if p.IsValid() {
				awaitLocal(t, e.Host, index(t, e.Host, e.Device), p.Addr())
			}
		}
	}
	return w
}

// ends are the addresses of a wire's ends by family.
func ends(w lab.Wire) [][2]netip.Addr {
	return [][2]netip.Addr{{w.A.V4.Addr(), w.B.V4.Addr()}, {w.A.V6.Addr(), w.B.V6.Addr()}}
}

// bits is the prefix length of the lab's subnets.
func bits(a netip.Addr) string {
	if a.Is4() {
		return "/24"
	}
	return "/64"
}

// exchange sends one datagram and returns what arrives.
func exchange(t *testing.T, from *udpSocket, e Endpoint, ch <-chan arrival) arrival {
	t.Helper()
	trains := []Train{{Buf: []byte("x"), N: 1, Endpoint: e}}
	if from.NewSender().Send(trains) != 0 {
		t.Fatalf("to %+v: %v", e, trains[0].Err)
	}
	return take(t, ch, 1)[0]
}

func to(a netip.Addr, s *udpSocket) Endpoint { return Endpoint{Remote: netip.AddrPortFrom(a, s.port)} }

// awaitChange waits for a route change; the timeout only bounds a failing test.
func awaitChange(t *testing.T, s Socket) {
	t.Helper()
	select {
	case <-s.RouteChanges():
	case <-time.After(10 * time.Second):
		t.Fatal("no route change was signalled")
	}
}

// An answer leaves from the address that was addressed, where routing alone would choose another.
func TestStickySource(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := link(t, ha, hb)
	a, b := openOn(t, ha, Options{}), openOn(t, hb, Options{})
	atA, atB := listen(t, a), listen(t, b)
	for _, family := range ends(w) {
		primary := family[1]
		second := primary.Next().Next()
		prefix := second.String() + bits(second)
		addAddr(t, hb, w.B.Device, prefix)
		if second.Is6() {
			// Source selection would as well take the second; deprecated, it does not.
			hb.Shell("ip", "-6", "addr", "change", prefix, "dev", w.B.Device, "preferred_lft", "0")
		}
		got := exchange(t, a, to(second, b), atB)
		want := Endpoint{Remote: netip.AddrPortFrom(family[0], a.port), Source: second, Interface: index(t, hb, w.B.Device)}
		if got.endpoint != want {
			t.Fatalf("endpoint %+v, want %+v", got.endpoint, want)
		}
		if !b.SourceValid(got.endpoint) {
			t.Error("source not valid")
		}
		if back := exchange(t, b, got.endpoint, atA); back.endpoint.Remote.Addr() != second {
			t.Errorf("answer from %v, want %v", back.endpoint.Remote, second)
		}
		if back := exchange(t, b, got.endpoint.WithoutSource(), atA); back.endpoint.Remote.Addr() != primary {
			t.Errorf("without source from %v, want %v: the test shows nothing", back.endpoint.Remote, primary)
		}
		// The address goes: answers fall back to what routing chooses.
		hb.DelAddr(w.B.Device, prefix)
		awaitChange(t, b)
		if b.SourceValid(got.endpoint) {
			t.Error("a deleted address is a valid source")
		}
		if back := exchange(t, b, got.endpoint, atA); back.endpoint.Remote.Addr() != primary {
			t.Errorf("answer from %v, want %v", back.endpoint.Remote, primary)
		}
	}
	if c := b.Counters(); c.SourceFallbacks != 2 || c.SendErrors != 0 {
		t.Errorf("%+v", c)
	}
}

// The remote moves to another of its addresses, and of its families.
func TestRemoteMoves(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	first, second := link(t, ha, hb), link(t, ha, hb)
	a, b := openOn(t, ha, Options{}), openOn(t, hb, Options{})
	atA, atB := listen(t, a), listen(t, b)
	for _, w := range []lab.Wire{first, second, first} {
		for _, family := range ends(w) {
			got := exchange(t, a, to(family[1], b), atB)
			want := Endpoint{Remote: netip.AddrPortFrom(family[0], a.port), Source: family[1], Interface: index(t, hb, w.B.Device)}
			if got.endpoint != want {
				t.Errorf("endpoint %+v, want %+v", got.endpoint, want)
			}
			back := exchange(t, b, got.endpoint, atA)
			if back.endpoint.Remote != netip.AddrPortFrom(family[1], b.port) {
				t.Errorf("answer from %v", back.endpoint.Remote)
			}
		}
	}
}

// Two wires and a remote address reached over either: the route decides whether a source is still good.
func TestRouteChange(t *testing.T) {
	for i, remote := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
		ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
		w := [2]lab.Wire{link(t, ha, hb), link(t, ha, hb)}
		addAddr(t, ha, "lo", remote)
		gateway := [2]string{ends(w[0])[i][0].String(), ends(w[1])[i][0].String()}
		hb.AddRoute(remote, gateway[0], w[0].B.Device)
		s := openOn(t, hb, Options{})
		e := Endpoint{
			Remote:    netip.AddrPortFrom(netip.MustParsePrefix(remote).Addr(), 7),
			Source:    ends(w[0])[i][1],
			Interface: index(t, hb, w[0].B.Device),
		}
		step := func(what string, want bool, change func()) {
			t.Helper()
			select { // what earlier steps left
			case <-s.RouteChanges():
			default:
			}
			if change != nil {
				change()
				awaitChange(t, s)
			}
			if got := s.SourceValid(e); got != want {
				t.Errorf("%s, %s: SourceValid is %v", e, what, got)
			}
		}
		step("as routed", true, nil)
		step("routed elsewhere", false, func() {
			hb.DelRoute(remote, gateway[0], w[0].B.Device)
			hb.AddRoute(remote, gateway[1], w[1].B.Device)
		})
		step("no route", false, func() { hb.DelRoute(remote, gateway[1], w[1].B.Device) })
		step("routed back", true, func() { hb.AddRoute(remote, gateway[0], w[0].B.Device) })
		step("a rule for another mark", true, func() {
			hb.Must(func() error { return otherTable(i, remote, gateway[1], 42) })
		})
		if err := s.SetMark(42); err != nil {
			t.Fatal(err)
		}
		step("a rule for its mark", false, nil)
		if err := s.SetMark(0); err != nil {
			t.Fatal(err)
		}
		step("mark taken back", true, nil)
		step("link down", false, func() { hb.Down(w[0].B.Device) })
		s.Close()
		if !s.SourceValid(e) {
			t.Error("a closed socket says a source is not valid")
		}
	}
}

// otherTable routes prefix via a gateway in a table for datagrams of one mark.
func otherTable(family int, prefix, gateway string, mark uint32) error {
	p := netip.MustParsePrefix(prefix)
	dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	via := netip.MustParseAddr(gateway).AsSlice()
	if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: via, Table: 100}); err != nil {
		return err
	}
	rule := netlink.NewRule()
	rule.Family = []int{unix.AF_INET, unix.AF_INET6}[family]
	rule.Mark = mark
	rule.Table = 100
	return netlink.RuleAdd(rule)
}

// A mark decides, through a rule, over which wire a datagram leaves.
func TestMark(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := [2]lab.Wire{link(t, ha, hb), link(t, ha, hb)}
	b := openOn(t, hb, Options{})
	atB := listen(t, b)
	for i, remote := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
		addAddr(t, hb, "lo", remote)
		ha.AddRoute(remote, ends(w[0])[i][1].String(), w[0].A.Device)
		ha.Must(func() error { return otherTable(i, remote, ends(w[1])[i][1].String(), 0xca6c) })
		addr := netip.MustParsePrefix(remote).Addr()
		over := func(s *udpSocket) int32 { return exchange(t, s, to(addr, b), atB).endpoint.Interface }

		s := openOn(t, ha, Options{Mark: 0xca6c})
		if got, want := over(s), index(t, hb, w[1].B.Device); got != want {
			t.Errorf("%v: marked at opening, over interface %d, want %d", addr, got, want)
		}
		for _, c := range []struct {
			mark uint32
			wire int
		}{{0, 0}, {0xca6c, 1}, {0xca6d, 0}} {
			if err := s.SetMark(c.mark); err != nil {
				t.Fatal(err)
			}
			if got, want := over(s), index(t, hb, w[c.wire].B.Device); got != want {
				t.Errorf("%v: mark %#x, over interface %d, want %d", addr, c.mark, got, want)
			}
		}
	}
}

// The TOS byte crosses a wire both ways; whole trains as they are.
func TestTOSOverWire(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := link(t, ha, hb)
	s := [2]*udpSocket{openOn(t, ha, Options{}), openOn(t, hb, Options{})}
	arrivals := [2]<-chan arrival{listen(t, s[0]), listen(t, s[1])}
	for _, family := range ends(w) {
		for way := range 2 {
			for _, tos := range []uint8{0, ECNECT0, ECNECT1, ECNCE, TOSHandshake | ECNECT0} {
				tr := []Train{trainTo(to(family[1-way], s[1-way]).Remote, pattern(301), 100)}
				tr[0].TOS = tos
				if s[way].NewSender().Send(tr) != 0 {
					t.Fatal(tr[0].Err)
				}
				for _, got := range take(t, arrivals[1-way], 4) {
					if got.tos != tos {
						t.Errorf("%v: TOS %#x arrived as %#x", family[1-way], tos, got.tos)
					}
				}
			}
		}
	}
}

// Trains cross a veth whole, cut by the kernel's software where the device does not take them, and with all offloads
// off: what arrives is the same.
func TestTrainsOverWire(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(t *testing.T, w lab.Wire)
		whole bool
	}{
		{"whole", func(*testing.T, lab.Wire) {}, true},
		{"cut by software", func(t *testing.T, w lab.Wire) {
			w.A.Host.Shell("ip", "link", "set", w.A.Device, "gso_max_segs", "1")
		}, false},
		{"no offloads", func(t *testing.T, w lab.Wire) {
			w.A.Host.SetOffloads(w.A.Device, false)
			w.B.Host.SetOffloads(w.B.Device, false)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			w := link(t, ha, hb)
			c.setup(t, w)
			a, b := openOn(t, ha, Options{}), openOn(t, hb, Options{})
			if !a.Counters().SegmentOffload || !b.Counters().ReceiveOffload {
				lab.Skip(t, "the kernel lacks UDP_SEGMENT or UDP_GRO")
			}
			arrivals := listen(t, b)
			sender := a.NewSender()
			for _, family := range ends(w) {
				for _, size := range []int{40*1400 + 99, 1400*2 + 1, 64 * 500, 1400} {
					tr := []Train{trainTo(to(family[1], b).Remote, pattern(size), 1400)}
					if size == 64*500 {
						tr[0].Segment = 500
					}
					if sender.Send(tr) != 0 {
						t.Fatal(tr[0].Err)
					}
					got := take(t, arrivals, tr[0].Datagrams())
					wantDatagrams(t, got, &tr[0])
					if c.whole && got[0].train != tr[0].Datagrams() {
						t.Errorf("%v: %d datagrams, the first train of %d", family[1], tr[0].Datagrams(), got[0].train)
					}
				}
			}
			t.Logf("%+v", a.Counters())
		})
	}
}

// Segments larger than the path takes are sent singly, as fragments, and the offload stays on for other paths.
func TestSegmentsLargerThanMTU(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := link(t, ha, hb, lab.MTU(1300))
	a, b := openOn(t, ha, Options{}), openOn(t, hb, Options{})
	arrivals := listen(t, b)
	sender := a.NewSender()
	for _, family := range ends(w) {
		for range 2 {
			tr := []Train{trainTo(to(family[1], b).Remote, pattern(4*1400), 1400), trainTo(to(family[1], b).Remote, pattern(1000), 0)}
			if sender.Send(tr) != 0 {
				t.Fatal(tr[0].Err)
			}
			wantDatagrams(t, take(t, arrivals, 5), &tr[0])
		}
	}
	c := a.Counters()
	if c.SegmentFallbacks != 4 || !c.SegmentOffload || c.SendErrors != 0 {
		t.Errorf("%+v", c)
	}
}

// Datagrams leave without DF, so that a narrower path fragments them.
func TestNoDontFragment(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := link(t, ha, hb)
	a, b := openOn(t, ha, Options{}), openOn(t, hb, Options{})
	var capture *os.File
	hb.Must(func() error {
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		capture = os.NewFile(uintptr(fd), "packet")
		return err
	})
	defer capture.Close()
	arrivals := listen(t, b)
	for _, family := range ends(w) {
		tr := []Train{trainTo(to(family[1], b).Remote, pattern(3000), 0)}
		if a.NewSender().Send(tr) != 0 {
			t.Fatal(tr[0].Err)
		}
		wantDatagrams(t, take(t, arrivals, 1), &tr[0])
	}
	exchange(t, a, to(w.B.V4.Addr(), b), arrivals)
	if err := capture.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	whole := false
	for packet := make([]byte, 2000); !whole; {
		n, err := capture.Read(packet)
		if err != nil {
			t.Fatal(err)
		}
		if n < 20 || packet[9] != unix.IPPROTO_UDP {
			continue
		}
		flags := binary.BigEndian.Uint16(packet[6:])
		if flags&0x4000 != 0 {
			t.Errorf("a packet of %d bytes with DF", n)
		}
		whole = flags&0x3fff == 0 // the one that was not fragmented came last
	}
}

// Link-local peers: the zone is a number, and the answer finds the way back over the right wire.
func TestLinkLocal(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	wires := []lab.Wire{link(t, ha, hb, lab.Addresses("fe80::1:1/64", "fe80::1:2/64")),
		link(t, ha, hb, lab.Addresses("fe80::1:1/64", "fe80::1:2/64"))}
	a, b := openOn(t, ha, Options{}), openOn(t, hb, Options{})
	atA, atB := listen(t, a), listen(t, b)
	for _, w := range wires {
		ia, ib := index(t, ha, w.A.Device), index(t, hb, w.B.Device)
		e, err := ParseEndpoint(fmt.Sprintf("[fe80::1:2%%%d]:%d", ia, b.port))
		if err != nil {
			t.Fatal(err)
		}
		got := exchange(t, a, e, atB)
		if got.endpoint.Remote.Addr().Zone() != fmt.Sprint(ib) || got.endpoint.Interface != ib ||
			got.endpoint.Source != netip.MustParseAddr("fe80::1:2") {
			t.Errorf("endpoint %+v, want interface %d", got.endpoint, ib)
		}
		if !b.SourceValid(got.endpoint) {
			t.Error("source not valid")
		}
		if back := exchange(t, b, got.endpoint, atA); back.endpoint.Remote != e.Remote {
			t.Errorf("answer from %v, want %v", back.endpoint.Remote, e.Remote)
		}
		hb.Down(w.B.Device)
		if b.SourceValid(got.endpoint) {
			t.Error("the source is valid with its link down")
		}
		hb.DeleteLink(w.B.Device)
		trains := []Train{{Buf: []byte("x"), N: 1, Endpoint: got.endpoint}}
		if b.NewSender().Send(trains) != 1 || !errors.Is(trains[0].Err, unix.ENODEV) && !errors.Is(trains[0].Err, unix.EINVAL) &&
			!errors.Is(trains[0].Err, unix.ENETUNREACH) && !errors.Is(trains[0].Err, unix.ENXIO) {
			t.Errorf("over a deleted link: %v", trains[0].Err)
		}
	}
}

// A full send buffer makes the sender wait, not fail: an unresolved neighbour holds the datagrams back.
func TestSendWaitsForRoom(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := link(t, ha, hb)
	a, b := openOn(t, ha, Options{}), openOn(t, hb, Options{})
	arrivals := listen(t, b)
	for i, f := range a.families() {
		remote := ends(w)[i][1].Next().Next()
		if err := f.raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		var full atomic.Bool
		a.send = func(fd uintptr, first *mmsghdr, n int) (int, unix.Errno) {
			done, errno := sendmmsg(fd, first, n)
			if errno == unix.EAGAIN {
				full.Store(true)
			}
			return done, errno
		}
		var trains []Train
		for range 60 {
			trains = append(trains, trainTo(netip.AddrPortFrom(remote, b.port), pattern(1400), 0))
		}
		failed := make(chan int)
		go func() { failed <- a.NewSender().Send(trains) }()
		lab.Eventually(t, 10*time.Second, "send buffer full", full.Load)
		// The neighbour comes up: what is held back goes out, and then the rest.
		mac := ""
		hb.Must(func() error {
			l, err := netlink.LinkByName(w.B.Device)
			if err == nil {
				mac = l.Attrs().HardwareAddr.String()
			}
			return err
		})
		addAddr(t, hb, w.B.Device, remote.String()+bits(remote))
		ha.Shell("ip", "neigh", "replace", remote.String(), "lladdr", mac, "dev", w.A.Device)
		if n := <-failed; n != 0 {
			t.Errorf("%d trains failed", n)
		}
		// The kernel keeps a bounded number for an unresolved neighbour; all that was sent after that arrives.
		if got := take(t, arrivals, 10)[0]; len(got.data) != 1400 {
			t.Errorf("%d bytes", len(got.data))
		}
		for range trains { // whatever else arrived belongs to this family
			select {
			case <-arrivals:
			default:
			}
		}
	}
}

// Close ends a sender that waits for room.
func TestCloseUnblocksSender(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := link(t, ha, hb)
	a := openOn(t, ha, Options{})
	if err := a.v4.raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	var full atomic.Bool
	a.send = func(fd uintptr, first *mmsghdr, n int) (int, unix.Errno) {
		done, errno := sendmmsg(fd, first, n)
		if errno == unix.EAGAIN {
			full.Store(true)
		}
		return done, errno
	}
	var trains []Train
	for range 60 {
		trains = append(trains, trainTo(netip.AddrPortFrom(w.B.V4.Addr().Next().Next(), 9), pattern(1400), 0))
	}
	failed := make(chan int)
	go func() { failed <- a.NewSender().Send(trains) }()
	lab.Eventually(t, 10*time.Second, "send buffer full", full.Load)
	a.Close()
	if n := <-failed; n == 0 || !errors.Is(trains[len(trains)-1].Err, net.ErrClosed) {
		t.Errorf("%d trains failed, the last: %v", n, trains[len(trains)-1].Err)
	}
}

// Changes in the namespace the socket was opened in are told, whatever namespace the process is in.
func TestRouteChangesOfNamespace(t *testing.T) {
	ha := lab.NewHost(t, "a") // with a loopback device only, where nothing happens by itself
	s := openOn(t, ha, Options{})
	for _, c := range []struct {
		what   string
		change func()
	}{
		{"rule", func() { ha.Shell("ip", "rule", "add", "fwmark", "9", "table", "9") }},
		{"IPv6 rule", func() { ha.Shell("ip", "-6", "rule", "add", "fwmark", "9", "table", "9") }},
		{"nexthop", func() { ha.Shell("ip", "nexthop", "add", "id", "1", "dev", "lo") }},
		{"route", func() { ha.AddRoute("198.51.100.0/24", "", "lo") }},
		{"IPv6 route", func() { ha.AddRoute("2001:db8:1::/64", "", "lo") }},
		{"address", func() { addAddr(t, ha, "lo", "192.0.2.1/32") }},
		{"IPv6 address", func() { addAddr(t, ha, "lo", "2001:db8::1/128") }},
		{"link", func() { ha.Down("lo") }},
	} {
		for len(s.RouteChanges()) > 0 {
			<-s.RouteChanges()
		}
		c.change()
		select {
		case <-s.RouteChanges():
		case <-time.After(10 * time.Second):
			t.Errorf("%s: no change was signalled", c.what)
		}
	}
}
