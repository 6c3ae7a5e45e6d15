package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"culvert/internal/lab"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// narrow is the MTU of the narrow wires in these tests.
const narrow = 1280

// fit is the largest datagram to a that a wire of that MTU takes whole.
func fit(mtu int, a netip.Addr) int {
	if a.Is4() {
		return mtu - 20 - 8
	}
	return mtu - 40 - 8
}

// capture sees every packet that a host receives or sends.
type capture struct {
	t  *testing.T
	fd int
}

func newCapture(t *testing.T, h *lab.Host) capture {
	t.Helper()
	c := capture{t: t}
	h.Must(func() (err error) {
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		if err != nil {
			return err
		}
		return unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
	t.Cleanup(func() { unix.Close(c.fd) })
	return c
}

// seen is what passed of UDP since the last call: a packet is captured before its datagram is received.
type seen struct {
	packets    [2]int // by family
	fragments  [2]int
	fragmentOK int // IPv4 packets that routers may fragment
}

func (c capture) seen() (s seen) {
	c.t.Helper()
	for b := make([]byte, 1<<16); ; {
		n, _, err := unix.Recvfrom(c.fd, b, 0)
		if errors.Is(err, unix.EAGAIN) {
			return s
		}
		if err != nil {
			c.t.Fatal(err)
		}
		switch p := b[:n]; {
		case n >= 20 && p[0]>>4 == 4 && p[9] == unix.IPPROTO_UDP:
			s.packets[0]++
			flags := binary.BigEndian.Uint16(p[6:])
			if flags&0x4000 == 0 {
				s.fragmentOK++
			}
			if flags&0x3fff != 0 {
				s.fragments[0]++
			}
		case n >= 40 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_UDP:
			s.packets[1]++
		case n >= 40 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_FRAGMENT:
			s.packets[1]++
			s.fragments[1]++
		}
	}
}

// wantWhole checks that packets of both families passed, none of them a fragment or one that might become some.
func (c capture) wantWhole() {
	c.t.Helper()
	if s := c.seen(); s.packets[0] == 0 || s.packets[1] == 0 || s.fragments != [2]int{} || s.fragmentOK != 0 {
		c.t.Errorf("captured %+v", s)
	}
}

// What is larger than the interface's MTU fails alone, single or in trains, and everything else goes out whole.
func TestDontFragmentOverNarrowWire(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []lab.LinkOption
		gso  bool
	}{
		{"offloads", nil, true},
		{"no device offloads", []lab.LinkOption{lab.NoOffloads()}, true},
		{"no segment offload", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
			w := link(t, ha, hb, append(c.opts, lab.MTU(narrow))...)
			s := [2]*udpSocket{openOn(t, ha, Options{DontFragment: true}), openOn(t, hb, Options{DontFragment: true})}
			arrivals := [2]<-chan arrival{listen(t, s[0]), listen(t, s[1])}
			wire := newCapture(t, hb)
			const rounds = refusalsRemembered + 1
			for way := range 2 {
				s[way].segmentOff.Store(!c.gso)
				sender := s[way].NewSender()
				for _, family := range ends(w) {
					remote := to(family[1-way], s[1-way])
					most := fit(narrow, remote.Remote.Addr())
					for range rounds {
						trains := []Train{
							trainTo(remote.Remote, pattern(most), 0),
							trainTo(remote.Remote, pattern(most+1), 0),
							trainTo(remote.Remote, pattern(5*most-7), most),
							trainTo(remote.Remote, pattern(3*(most+1)+10), most+1),
							trainTo(remote.Remote, pattern(20000), 0),
							trainTo(remote.Remote, pattern(4*most), most),
							trainTo(remote.Remote, pattern(2*1400), 1400),
							trainTo(remote.Remote, pattern(10), 0),
						}
						large := []int{1, 3, 4, 6}
						trains[3].Endpoint.Source, trains[3].Endpoint.Interface = family[way], 1
						if failed := sender.Send(trains); failed != len(large) {
							t.Errorf("%d trains failed", failed)
						}
						for i := range trains {
							tr := &trains[i]
							if slices.Contains(large, i) {
								if !errors.Is(tr.Err, ErrTooBig) {
									t.Errorf("%v, %d bytes in segments of %d: %v", family[1-way], tr.N, tr.Segment, tr.Err)
								}
								continue
							}
							if tr.Err != nil {
								t.Fatalf("%v, %d bytes in segments of %d: %v", family[1-way], tr.N, tr.Segment, tr.Err)
							}
							wantDatagrams(t, take(t, arrivals[1-way], tr.Datagrams()), tr)
						}
					}
				}
				want := uint64(2 * rounds * 4)
				if n := s[way].Counters(); n.SegmentOffload != c.gso || n.SendErrors != want || n.SourceFallbacks != 0 ||
					c.gso && n.SegmentFallbacks != 0 {
					t.Errorf("%+v", n)
				}
			}
			wire.wantWhole()
			for _, ch := range arrivals {
				if len(ch) != 0 {
					t.Error("more arrived than was sent")
				}
			}
		})
	}
}

// The switch works on an open socket, both ways, and so does the device's MTU.
func TestDontFragmentChanges(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := link(t, ha, hb, lab.NoOffloads())
	a, b := openOn(t, ha, Options{}), openOn(t, hb, Options{})
	arrivals := listen(t, b)
	wire := newCapture(t, hb)
	sender := a.NewSender()
	send := func(size int, tooBig bool) {
		t.Helper()
		for _, family := range ends(w) {
			for _, n := range []int{1, 4} {
				tr := []Train{trainTo(to(family[1], b).Remote, pattern(n*size), size)}
				failed := sender.Send(tr)
				switch {
				case tooBig && !errors.Is(tr[0].Err, ErrTooBig):
					t.Errorf("%v, %d of %d bytes: %v", family[1], n, size, tr[0].Err)
				case !tooBig && failed != 0:
					t.Fatalf("%v, %d of %d bytes: %v", family[1], n, size, tr[0].Err)
				case !tooBig:
					wantDatagrams(t, take(t, arrivals, n), &tr[0])
				}
			}
		}
	}
	set := func(on bool) {
		t.Helper()
		if err := a.SetDontFragment(on); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		send(1600, false)
		if s := wire.seen(); s.fragments[0] == 0 || s.fragments[1] == 0 || s.fragmentOK != s.packets[0] {
			t.Errorf("off, captured %+v", s)
		}
		set(true)
		send(1600, true)
		send(1400, false)
		wire.wantWhole()
		ha.SetMTU(w.A.Device, narrow)
		send(1400, true)
		ha.SetMTU(w.A.Device, 1500)
		send(1400, false)
		wire.wantWhole()
		set(false)
	}
	a.Close()
	if err := a.SetDontFragment(true); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Behind a narrow wire in the middle datagrams vanish, and the path MTU that its router tells of changes nothing.
func TestDontFragmentThroughNarrowPath(t *testing.T) {
	ha, hb := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	r1, r2 := lab.NewHost(t, "r1"), lab.NewHost(t, "r2")
	first, middle, last := link(t, ha, r1), link(t, r1, r2, lab.MTU(narrow)), link(t, r2, hb)
	r1.Forward()
	r2.Forward()
	for i, all := range []string{"default4", "default6"} {
		ha.AddRoute(all, ends(first)[i][1].String(), first.A.Device)
		hb.AddRoute(all, ends(last)[i][0].String(), last.B.Device)
		r1.AddRoute(all, ends(middle)[i][1].String(), middle.A.Device)
		r2.AddRoute(all, ends(middle)[i][0].String(), middle.B.Device)
	}
	hosts := [2]*lab.Host{ha, hb}
	s := [2]*udpSocket{openOn(t, ha, Options{DontFragment: true}), openOn(t, hb, Options{DontFragment: true})}
	arrivals := [2]<-chan arrival{listen(t, s[0]), listen(t, s[1])}
	captures := [2]capture{newCapture(t, ha), newCapture(t, hb)}
	for way := range 2 {
		sender := s[way].NewSender()
		for i := range 2 {
			addr := [2]netip.Addr{ends(first)[i][0], ends(last)[i][1]}[1-way]
			most := fit(narrow, addr)
			send := func(size, n int) {
				t.Helper()
				tr := []Train{trainTo(to(addr, s[1-way]).Remote, pattern(n*size), size)}
				if sender.Send(tr) != 0 {
					t.Fatalf("%v, %d of %d bytes: %v", addr, n, size, tr[0].Err)
				}
				if size <= most {
					wantDatagrams(t, take(t, arrivals[1-way], n), &tr[0])
				}
			}
			send(10, 1) // the neighbours find each other
			send(most+1, 1)
			lab.Eventually(t, 10*time.Second, fmt.Sprintf("the path MTU to %v is learned", addr), func() bool {
				return pathMTU(hosts[way], addr) == narrow
			})
			send(most+1, 1)
			send(most+1, 5)
			send(fit(1500, addr), 1)
			send(fit(1500, addr), 5)
			send(most, 1)
			send(most, 5) // behind the large ones: they did not arrive before it
			if len(arrivals[1-way]) != 0 {
				t.Errorf("%v: a datagram larger than the path arrived", addr)
			}
		}
		if c := s[way].Counters(); c.SendErrors != 0 || c.SegmentFallbacks != 0 || !c.SegmentOffload {
			t.Errorf("%+v", c)
		}
	}
	for _, c := range captures {
		c.wantWhole()
	}
}

// pathMTU is what a host has learned of the way to an address, 0 where it has learned nothing.
func pathMTU(h *lab.Host, a netip.Addr) (mtu int) {
	h.Must(func() error {
		routes, err := netlink.RouteGet(a.AsSlice())
		if len(routes) > 0 {
			mtu = routes[0].MTU
		}
		return err
	})
	return mtu
}

// A kernel that says EINVAL of segments that are too large is taken no other way, and costs few calls.
func TestTooBigSegmentsByEINVAL(t *testing.T) {
	a, b := openUDP(t, Options{DontFragment: true}), openUDP(t, Options{})
	arrivals := listen(t, b)
	calls := refuse(a, func(h *mmsghdr) unix.Errno {
		switch {
		case carriesSegment(h) && h.hdr.Iov.Len > 500:
			return unix.EINVAL
		case h.hdr.Iov.Len > 500/5:
			return unix.EMSGSIZE
		}
		return 0
	})
	sender := a.NewSender()
	for _, remote := range loopbacks(b) {
		for range refusalsRemembered + 1 {
			trains := []Train{trainTo(remote, pattern(20*150+7), 150), trainTo(remote, pattern(30), 0)}
			*calls = 0
			if sender.Send(trains) != 1 || !errors.Is(trains[0].Err, ErrTooBig) {
				t.Fatal(trains[0].Err)
			}
			wantDatagrams(t, take(t, arrivals, 1), &trains[1])
			if *calls != 3 {
				t.Errorf("%d calls", *calls)
			}
		}
	}
	if c := a.Counters(); !c.SegmentOffload || c.SegmentFallbacks != 0 {
		t.Errorf("%+v", c)
	}
}

// A probe that is too large is no reason to allocate.
func TestTooBigAllocatesNothing(t *testing.T) {
	a := openUDP(t, Options{DontFragment: true})
	refuse(a, func(*mmsghdr) unix.Errno { return unix.EMSGSIZE })
	sender := a.NewSender()
	trains := []Train{trainTo(netip.AddrPortFrom(loopback4, 9), pattern(4000), 1000), trainTo(netip.AddrPortFrom(loopback4, 9), pattern(2000), 0)}
	if n := testing.AllocsPerRun(100, func() { sender.Send(trains) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if !errors.Is(trains[0].Err, ErrTooBig) || !errors.Is(trains[1].Err, ErrTooBig) {
		t.Errorf("%v, %v", trains[0].Err, trains[1].Err)
	}
}
