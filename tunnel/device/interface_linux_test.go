package device

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernelLayers are the kinds of interfaces the kernel has.
var kernelLayers = []Layer{LayerIP, LayerEthernet}

// open opens a tun or tap with what both have in common.
func open(layer Layer, o TunOptions) (Device, error) {
	if layer == LayerEthernet {
		return OpenTap(TapOptions{Name: o.Name, MTU: o.MTU, Queues: o.Queues, Persist: o.Persist})
	}
	return OpenTun(o)
}

// openIn opens a tun or tap in a host's namespace, on a thread that is gone afterwards.
func openIn(t testing.TB, h *lab.Host, layer Layer, o TunOptions) Device {
	t.Helper()
	var d Device
	h.Must(func() (err error) {
		d, err = open(layer, o)
		return err
	})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// configure sets an interface up with addresses, and waits until the engine would know.
func configure(t testing.TB, h *lab.Host, d Device, addresses ...string) {
	t.Helper()
	name, err := d.Name()
	if err != nil {
		t.Fatal(err)
	}
	h.Must(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		for _, a := range addresses {
			address, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			address.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, address); err != nil {
				return err
			}
		}
		return nil
	})
	for _, a := range addresses {
		// The kernel puts the route of an IPv6 address up some time after the address; until then it drops.
		lab.Eventually(t, 30*time.Second, "the route of "+a, func() bool {
			local := false
			h.Must(func() error {
				routes, err := netlink.RouteGet(net.IP(netip.MustParsePrefix(a).Addr().AsSlice()))
				local = err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
				return nil
			})
			return local
		})
	}
	expect(t, d, EventUp)
}

// expect waits for an event, past others.
func expect(t testing.TB, d Device, want Event) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case e, ok := <-d.Events():
			if !ok {
				t.Fatalf("events closed instead of event %d", want)
			}
			if e == want {
				return
			}
		case <-deadline:
			t.Fatalf("no event %d", want)
		}
	}
}

func expectClosed(t *testing.T, d Device) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case _, ok := <-d.Events():
			if !ok {
				return
			}
		case <-deadline:
			t.Fatal("events not closed")
		}
	}
}

func TestInterfaceLife(t *testing.T) {
	lab.NeedTun(t)
	for _, layer := range kernelLayers {
		t.Run(layer.kind(), func(t *testing.T) {
			h := lab.NewHost(t, "tun")
			d := openIn(t, h, layer, TunOptions{Name: "culvert%d", MTU: 1380})
			if name, err := d.Name(); name != "culvert0" || err != nil {
				t.Fatalf("name %q: %v", name, err)
			}
			if mtu, err := d.MTU(); mtu != 1380 || err != nil {
				t.Fatalf("MTU %d: %v", mtu, err)
			}
			if e := <-d.Events(); e != EventDown {
				t.Errorf("the first event is %d, want down", e)
			}
			q := d.Queues()[0]
			if d.Layer() != layer {
				t.Errorf("layer %d", d.Layer())
			}
			if len(d.Queues()) != 1 {
				t.Errorf("%d queues", len(d.Queues()))
			}
			if o := q.(Offloader).Offloads(); !o.TCP || !o.Checksum {
				t.Errorf("offloads %+v", o)
			}

			buf := make([]byte, BufferSize)
			b := framings[layer].wrap(packet{udp: true, payload: []byte("hello")}.build())
			copy(buf[Headroom:], b)
			if err := q.Write(buf, Headroom, Headroom+len(b), Offload{}); !errors.Is(err, unix.EIO) {
				t.Errorf("write while down: %v, want EIO", err)
			}
			if _, _, _, err := q.Read(buf, false); err != ErrWouldBlock {
				t.Errorf("read of nothing: %v", err)
			}
			configure(t, h, d, "10.9.0.1/24")
			if err := q.Write(buf, Headroom, Headroom+len(b), Offload{}); err != nil {
				t.Errorf("write while up: %v", err)
			}
			if err := d.(MTUSetter).SetMTU(1400); err != nil {
				t.Fatal(err)
			}
			expect(t, d, EventMTU)
			if mtu, err := d.MTU(); mtu != 1400 || err != nil {
				t.Errorf("MTU %d: %v", mtu, err)
			}
			for _, mtu := range []int{0, 67, layer.maxMTU() + 1, -1} {
				if err := d.(MTUSetter).SetMTU(mtu); !errors.Is(err, unix.EINVAL) {
					t.Errorf("MTU of %d: %v", mtu, err)
				}
			}
			for _, mtu := range []int{layer.maxMTU(), 1400} {
				if err := d.(MTUSetter).SetMTU(mtu); err != nil {
					t.Error(err)
				}
			}
			h.Must(func() error {
				link, err := netlink.LinkByName("culvert0")
				if err != nil {
					return err
				}
				if err := netlink.LinkSetDown(link); err != nil {
					return err
				}
				return netlink.LinkSetName(link, "renamed")
			})
			expect(t, d, EventDown)
			if name, err := d.Name(); name != "renamed" || err != nil {
				t.Errorf("name %q: %v", name, err)
			}
			if mtu, err := d.MTU(); mtu != 1400 || err != nil {
				t.Errorf("MTU after renaming %d: %v", mtu, err)
			}

			ended := make(chan error)
			go func() {
				for {
					if _, _, _, err := q.Read(buf, true); err != nil {
						ended <- err
						return
					}
				}
			}()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != os.ErrClosed {
				t.Errorf("read ended with %v", err)
			}
			expectClosed(t, d)
			for what, err := range map[string]error{
				"write": q.Write(make([]byte, 100), 50, 80, Offload{}),
				"name":  func() error { _, err := d.Name(); return err }(),
				"mtu":   func() error { _, err := d.MTU(); return err }(),
				"read":  func() error { _, _, _, err := q.Read(buf, false); return err }(),
			} {
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("%s after Close: %v", what, err)
				}
			}
			h.Must(func() error {
				if _, err := netlink.LinkByName("renamed"); err == nil {
					return errors.New("the interface is still there")
				}
				return nil
			})
		})
	}
}

func TestInterfaceDeleted(t *testing.T) {
	lab.NeedTun(t)
	for _, layer := range kernelLayers {
		t.Run(layer.kind(), func(t *testing.T) {
			h := lab.NewHost(t, "tun")
			for _, queues := range []int{1, 3} {
				d := openIn(t, h, layer, TunOptions{Name: "culvert0", Queues: queues})
				if len(d.Queues()) != queues {
					t.Fatalf("%d queues", len(d.Queues()))
				}
				ended := make(chan error)
				for _, q := range d.Queues() {
					go func() {
						_, _, _, err := q.Read(make([]byte, BufferSize), true)
						ended <- err
					}()
				}
				h.Must(func() error {
					link, err := netlink.LinkByName("culvert0")
					if err != nil {
						return err
					}
					return netlink.LinkDel(link)
				})
				for range queues {
					if err := <-ended; err != ErrGone {
						t.Errorf("read ended with %v", err)
					}
				}
				expectClosed(t, d)
				if _, err := d.Name(); !errors.Is(err, ErrGone) {
					t.Errorf("name: %v", err)
				}
				for _, q := range d.Queues() {
					if _, _, _, err := q.Read(make([]byte, BufferSize), false); err != ErrGone {
						t.Errorf("read: %v", err)
					}
					if err := q.Write(make([]byte, 100), 50, 80, Offload{}); err != ErrGone {
						t.Errorf("write: %v", err)
					}
				}
			}
		})
	}
}

// A WireGuard interface is made in one namespace and moved to another, where its traffic is.
func TestInterfaceMoved(t *testing.T) {
	lab.NeedTun(t)
	for _, layer := range kernelLayers {
		t.Run(layer.kind(), func(t *testing.T) {
			birthplace, home := lab.NewHost(t, "birthplace"), lab.NewHost(t, "home")
			d := openIn(t, birthplace, layer, TunOptions{Name: "culvert0", MTU: 1300})
			configure(t, birthplace, d)
			birthplace.Must(func() error {
				link, err := netlink.LinkByName("culvert0")
				if err != nil {
					return err
				}
				namespace, err := os.Open(home.NetnsPath())
				if err != nil {
					return err
				}
				defer namespace.Close()
				return netlink.LinkSetNsFd(link, int(namespace.Fd()))
			})
			expect(t, d, EventDown)
			configure(t, home, d, "10.9.0.1/24")
			if err := d.(MTUSetter).SetMTU(1310); err != nil {
				t.Fatal(err)
			}
			expect(t, d, EventMTU)
			if mtu, err := d.MTU(); mtu != 1310 || err != nil {
				t.Errorf("MTU %d: %v", mtu, err)
			}
			home.Must(func() error {
				link, err := netlink.LinkByName("culvert0")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			})
			expectClosed(t, d)
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	lab.NeedTun(t)
	for _, layer := range kernelLayers {
		t.Run(layer.kind(), func(t *testing.T) {
			h := lab.NewHost(t, "tun")
			openIn(t, h, layer, TunOptions{Name: "single"})
			openIn(t, h, layer, TunOptions{Name: "multi", Queues: 2})
			openIn(t, h, kernelLayers[1-layer], TunOptions{Name: "other", Persist: true})
			for _, test := range []struct {
				o    TunOptions
				want error
				text string
			}{
				{TunOptions{Name: "single"}, unix.EBUSY, "another process"},
				{TunOptions{Name: "multi", Queues: 2}, unix.EBUSY, "another process"},
				{TunOptions{Name: "single", Queues: 2}, unix.EINVAL, "queues"},
				{TunOptions{Name: "other"}, unix.EINVAL, "no " + layer.kind()},
				{TunOptions{Name: "x", MTU: layer.maxMTU() + 1, Persist: true}, unix.EINVAL, "MTU"},
				{TunOptions{Name: "lo"}, unix.EINVAL, "no " + layer.kind()},
				{TunOptions{Name: "sixteen-bytes-xx"}, unix.ENAMETOOLONG, "15"},
				{TunOptions{Name: "a/b"}, unix.EINVAL, "name"},
				{TunOptions{Name: "a b"}, unix.EINVAL, "name"},
				{TunOptions{Name: ".."}, unix.EINVAL, "name"},
				{TunOptions{Name: "x", MTU: 5}, unix.EINVAL, "MTU"},
				{TunOptions{Name: "x", Queues: 257}, nil, "queues"},
			} {
				h.Must(func() error {
					d, err := open(layer, test.o)
					if err == nil {
						_ = d.Close()
					}
					if _, ok := errors.AsType[*OpenError](err); !ok || !strings.HasPrefix(err.Error(), "open "+layer.kind()) {
						t.Errorf("%+v: error %v is no OpenError", test.o, err)
					} else if test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
						t.Errorf("%+v: error %q, want %v, %q", test.o, err, test.want, test.text)
					}
					return nil
				})
			}
			h.Must(func() error { // nothing of the failures is left
				_, err := netlink.LinkByName("x")
				if err == nil {
					t.Error("the interface that could not be opened is there")
				}
				return nil
			})
		})
	}
}

func TestInterfacePersistent(t *testing.T) {
	lab.NeedTun(t)
	for _, layer := range kernelLayers {
		t.Run(layer.kind(), func(t *testing.T) {
			h := lab.NewHost(t, "tun")
			for _, queues := range []int{1, 2} {
				name := []string{1: "one", 2: "two"}[queues]
				for range 2 { // created, then attached to
					d := openIn(t, h, layer, TunOptions{Name: name, Queues: queues, Persist: true})
					if err := d.Close(); err != nil {
						t.Fatal(err)
					}
				}
				h.Must(func() error {
					link, err := netlink.LinkByName(name)
					if err != nil {
						return err
					}
					return netlink.LinkDel(link)
				})
			}
		})
	}
}

// rawTun sets up a tun by hand, as the process before us would, and returns its file descriptor.
func rawTun(t *testing.T, h *lab.Host, flags uint16) (fd int) {
	t.Helper()
	h.Must(func() (err error) {
		if fd, err = unix.Open(devNetTun, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq("given")
		if err != nil {
			return err
		}
		ifr.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	return fd
}

func TestFromFD(t *testing.T) {
	lab.NeedTun(t)
	for _, layer := range kernelLayers {
		t.Run(layer.kind(), func(t *testing.T) {
			link, fromFD := framings[layer], TunFromFD
			if layer == LayerEthernet {
				fromFD = TapFromFD
			}
			h := lab.NewHost(t, "tun")
			for name, flags := range map[string]uint16{"plain": 0, "vnet": unix.IFF_VNET_HDR, "multi": unix.IFF_MULTI_QUEUE} {
				t.Run(name, func(t *testing.T) {
					d, err := fromFD(rawTun(t, h, layer.flag()|unix.IFF_NO_PI|flags))
					if err != nil {
						t.Fatal(err)
					}
					defer d.Close()
					if d.Layer() != layer {
						t.Errorf("layer %d", d.Layer())
					}
					if name, err := d.Name(); name != "given" || err != nil {
						t.Errorf("name %q: %v", name, err)
					}
					configure(t, h, d, "10.9.0.1/24")
					q := d.Queues()[0]
					if o := q.(Offloader).Offloads(); o.TCP != (flags&unix.IFF_VNET_HDR != 0) {
						t.Errorf("offloads %+v", o)
					}
					var conn net.PacketConn
					h.Must(func() error {
						conn, err = net.ListenPacket("udp4", "10.9.0.1:53")
						return err
					})
					defer conn.Close()

					// A packet out, as it is; then three datagrams in, in one super-packet, whatever the device can.
					to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.9.0.255:1000"))
					if _, err := conn.WriteTo([]byte("out"), to); err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, BufferSize)
					for {
						lo, hi, o, err := q.Read(buf, true)
						if err != nil {
							t.Fatal(err)
						}
						var s Segments
						if err := s.ResetFor(buf, lo, hi, o, Limits{Frame: link.frame}); err != nil {
							t.Fatal(err)
						}
						if lo, hi, ok := s.Next(); ok && buf[lo+link.length()]>>4 == 4 && bytes.HasSuffix(buf[lo:hi], []byte("out")) {
							break // past IPv6's own packets
						}
					}
					p := packet{udp: true, ttl: 5, payload: []byte("abcabcabc")}
					b, o := p.super(3)
					copy(b[12:], []byte{10, 9, 0, 2, 10, 9, 0, 1})
					fixPartial(b, ipv4Header, protoUDP)
					b, o = link.wrap(b), link.offload(o)
					if layer == LayerEthernet {
						address, err := d.(HardwareAddresser).HardwareAddress()
						if err != nil {
							t.Fatal(err)
						}
						copy(b, address[:])
					}
					copy(buf[Headroom:], b)
					if err := q.Write(buf, Headroom, Headroom+len(b), o); err != nil {
						t.Fatal(err)
					}
					for range 3 {
						n, _, err := conn.ReadFrom(buf)
						if err != nil || string(buf[:n]) != "abc" {
							t.Fatalf("received %q: %v", buf[:n], err)
						}
					}
				})
			}
			t.Run("other", func(t *testing.T) {
				_, err := fromFD(rawTun(t, h, kernelLayers[1-layer].flag()|unix.IFF_NO_PI))
				if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "no "+layer.kind()) {
					t.Error(err)
				}
			})
			t.Run("no tun", func(t *testing.T) {
				fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := fromFD(fd); !errors.Is(err, unix.ENOTTY) {
					t.Error(err)
				}
			})
		})
	}
}

func TestInterfaceAllocate(t *testing.T) {
	lab.NeedTun(t)
	for _, layer := range kernelLayers {
		t.Run(layer.kind(), func(t *testing.T) {
			h := lab.NewHost(t, "tun")
			d := openIn(t, h, layer, TunOptions{Name: "culvert0"})
			configure(t, h, d, "10.9.0.1/24")
			q := d.Queues()[0]
			var conn net.PacketConn
			h.Must(func() (err error) {
				conn, err = net.ListenPacket("udp4", "10.9.0.1:53")
				return err
			})
			defer conn.Close()
			raw, err := conn.(*net.UDPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			to := &unix.SockaddrInet4{Port: 1000, Addr: [4]byte{10, 9, 0, 255}} // nobody has to be asked for it
			var sent error
			send := func(fd uintptr) bool {
				sent = unix.Sendto(int(fd), []byte("x"), 0, to)
				return true
			}
			super, o := framings[layer].super(packet{payload: pattern(3000), flags: 0x10}, 1000)
			buf := make([]byte, BufferSize)
			if n := testing.AllocsPerRun(100, func() {
				if err := raw.Write(send); err != nil || sent != nil {
					panic("send")
				}
				if _, _, _, err := q.Read(buf, true); err != nil {
					panic(err)
				}
				for {
					if _, _, _, err := q.Read(buf, false); err == ErrWouldBlock {
						break
					} else if err != nil {
						panic(err)
					}
				}
				copy(buf[Headroom:], super)
				if err := q.Write(buf, Headroom, Headroom+len(super), o); err != nil {
					panic(err)
				}
			}); n > 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
