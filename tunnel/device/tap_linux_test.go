package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"culvert/internal/lab"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func openTapIn(t testing.TB, h *lab.Host, o TapOptions) *tap {
	t.Helper()
	var d Device
	h.Must(func() (err error) {
		d, err = OpenTap(o)
		return err
	})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d.(*tap)
}

// attributes are what the kernel tells of an interface.
func attributes(t testing.TB, h *lab.Host, name string) (a netlink.LinkAttrs) {
	t.Helper()
	h.Must(func() error {
		link, err := netlink.LinkByName(name)
		if err == nil {
			a = *link.Attrs()
		}
		return err
	})
	return a
}

func TestTapAddress(t *testing.T) {
	lab.NeedTun(t)
	h := lab.NewHost(t, "tap")
	random := openTapIn(t, h, TapOptions{})
	if name, err := random.Name(); name != "tap0" || err != nil {
		t.Errorf("name %q: %v", name, err)
	}
	want := [6]byte{2, 0, 0x5e, 0x10, 0, 7}
	for range 2 { // created, then attached to with the same and with another
		d := openTapIn(t, h, TapOptions{Name: "fixed", Address: want, Persist: true, Queues: 2})
		if got, err := d.HardwareAddress(); got != want || err != nil {
			t.Errorf("address %x: %v", got, err)
		}
		if got := attributes(t, h, "fixed"); !bytes.Equal(got.HardwareAddr, want[:]) {
			t.Errorf("the kernel says %v", got.HardwareAddr)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.HardwareAddress(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("address after Close: %v", err)
		}
		want[5]++
	}
	want[5]--
	kept := openTapIn(t, h, TapOptions{Name: "fixed", Queues: 2})
	if got, err := kept.HardwareAddress(); got != want || err != nil {
		t.Errorf("address kept %x: %v", got, err)
	}
	if got, err := random.HardwareAddress(); err != nil || got == want || got[0]&3 != 2 {
		t.Errorf("random address %x: %v", got, err)
	}
	for _, bad := range [][6]byte{{1, 0, 0, 0, 0, 1}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		h.Must(func() error {
			d, err := OpenTap(TapOptions{Name: "bad", Address: bad, Persist: true})
			if err == nil {
				_ = d.Close()
			}
			if !errors.Is(err, unix.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "hardware address") {
				t.Errorf("address %x: %v", bad, err)
			}
			if _, err := netlink.LinkByName("bad"); err == nil {
				t.Error("the interface that could not be opened is there")
			}
			return nil
		})
	}
	h.DeleteLink("fixed")
	if _, err := kept.HardwareAddress(); !errors.Is(err, ErrGone) {
		t.Errorf("address of a deleted tap: %v", err)
	}
	if err := kept.SetCarrier(true); !errors.Is(err, ErrGone) {
		t.Errorf("carrier of a deleted tap: %v", err)
	}
}

// Without carrier the interface is up but not running, sends nothing, and goes on when the carrier is back.
func TestTapCarrier(t *testing.T) {
	lab.NeedTun(t)
	j := join(t, joinings[1])
	near, far := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	ping := func() {
		t.Helper()
		lab.Eventually(t, 30*time.Second, "ping", func() bool { return j.a.Ping(far) == nil })
	}
	ping()
	carrier := j.devices[0].(CarrierSetter)
	for _, on := range []bool{false, true} {
		want := netlink.LinkOperState(netlink.OperDown)
		if on {
			want = netlink.OperUp
		}
		if err := carrier.SetCarrier(on); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 30*time.Second, "operstate "+want.String(), func() bool {
			a := attributes(t, j.a, "culvert0")
			if a.RawFlags&unix.IFF_UP == 0 {
				t.Fatal("the interface is down")
			}
			return a.OperState == want && a.RawFlags&unix.IFF_RUNNING != 0 == on
		})
		if on {
			ping()
			continue
		}
		before := j.ways[0].packets.Load()
		if err := j.a.Ping(far); err == nil {
			t.Error("a reply without carrier")
		}
		if got := j.ways[0].packets.Load(); got != before {
			t.Errorf("%d frames came to the device without carrier", got-before)
		}
		// What the other end sends arrives still: that the carrier is off is our saying.
		received := attributes(t, j.a, "culvert0").Statistics.RxPackets
		_ = j.b.Ping(near)
		if got := attributes(t, j.a, "culvert0").Statistics.RxPackets; got == received {
			t.Error("nothing was received without carrier")
		}
	}
	select {
	case e := <-j.devices[0].Events():
		t.Errorf("event %d", e)
	default:
	}
	if err := j.devices[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := carrier.SetCarrier(false); !errors.Is(err, os.ErrClosed) {
		t.Errorf("carrier after Close: %v", err)
	}
}

func TestTapPing(t *testing.T) {
	lab.NeedTun(t)
	for _, how := range joinings[1:] {
		t.Run(how.name, func(t *testing.T) {
			j := join(t, how)
			for _, to := range []string{"10.9.0.2", "fd09::2"} {
				for _, size := range []int{1, 56, how.mtu - 48, how.mtu + 1000} { // padded to nothing, and in fragments
					to := netip.MustParseAddr(to)
					lab.Eventually(t, 30*time.Second, fmt.Sprintf("ping %s with %d bytes", to, size), func() bool {
						return j.a.PingSize(to, size) == nil
					})
				}
			}
			if got := j.ways[0].largest.Load(); got <= int64(how.mtu-48) || got > how.largestAllowed() {
				t.Errorf("the largest frame has %d bytes", got)
			}
		})
	}
}

// auxdata is struct tpacket_auxdata (packet(7)).
type auxdata struct {
	status, length, snapLength  uint32
	mac, net, vlanTCI, vlanTPID uint16
}

// packetSocket sends and receives frames with virtio-net headers on an interface.
func packetSocket(t testing.TB, h *lab.Host, name string) (fd int) {
	t.Helper()
	index := attributes(t, h, name).Index
	everything := binary.BigEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL})
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		everything = uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8
	}
	h.Must(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(everything))
		if err != nil {
			return err
		}
		for _, option := range []int{unix.PACKET_VNET_HDR, unix.PACKET_AUXDATA} {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
				return fmt.Errorf("option %d: %w", option, err)
			}
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: everything})
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// receiveFrame returns the next frame that the kernel received, with the tag it took off put back.
func receiveFrame(t testing.TB, fd int) (frame []byte, o Offload) {
	t.Helper()
	buf, control := make([]byte, vnetHeader+MaxPacket+1), make([]byte, 256)
	for {
		n, nControl, _, from, err := unix.Recvmsg(fd, buf, control, 0)
		if err != nil {
			t.Fatal(err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		o, frame = parseVNet(buf[:vnetHeader]), bytes.Clone(buf[vnetHeader:n])
		messages, err := unix.ParseSocketControlMessage(control[:nControl])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA {
				continue
			}
			a := (*auxdata)(unsafe.Pointer(&m.Data[0]))
			if a.status&unix.TP_STATUS_VLAN_VALID == 0 {
				continue
			}
			tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, a.vlanTPID), a.vlanTCI)
			frame = append(frame[:12], append(tag, frame[12:]...)...)
			if o.NeedsChecksum {
				o.ChecksumStart += 4
			}
		}
		return frame, o
	}
}

// Tagged frames cross with their tags, in super-frames too, whether or not the kernel knows what to do with them.
func TestTapVLAN(t *testing.T) {
	lab.NeedTun(t)
	for _, how := range joinings[1:3] {
		for _, link := range framings[1:] {
			for _, p := range []packet{
				{flags: 0x10, payload: pattern(30000), options: make([]byte, 12)},
				{v6: true, flags: 0x10, payload: pattern(30001)},
				{udp: true, payload: pattern(30002)},
			} {
				t.Run(fmt.Sprintf("%s %s v6=%v udp=%v", how.name, link.name, p.v6, p.udp), func(t *testing.T) {
					j := join(t, how)
					from, to := packetSocket(t, j.a, "culvert0"), packetSocket(t, j.b, "culvert0")
					p.ttl = 9
					super, o := link.super(p, 1000)
					want, _ := referenceFrames(super, o, Limits{})
					message := make([]byte, vnetHeader+len(super))
					putVNet(message, o)
					copy(message[vnetHeader:], super)
					superRead := j.ways[0].superRead.Load()
					if _, err := unix.Write(from, message); err != nil {
						t.Fatal(err)
					}
					supers := !p.udp || j.ways[0].Offloads().UDP
					var got [][]byte
					for len(got) < len(want) {
						frame, o := receiveFrame(t, to)
						if string(frame[:12]) != string(super[:12]) {
							continue // the kernels' own
						}
						if !bytes.Equal(frame[:link.length()], super[:link.length()]) {
							t.Fatalf("the header is %x", frame[:link.length()])
						}
						pieces, _ := referenceFrames(frame, o, Limits{})
						got = append(got, pieces...)
						if o.GSO == GSONone && supers {
							t.Errorf("a frame of %d bytes came alone", len(frame))
						}
					}
					if err := samePackets(got, want); err != nil {
						t.Fatal(err)
					}
					if read := j.ways[0].superRead.Load() - superRead; read == 0 && len(link.tags) < 2 && supers {
						t.Error("no super-frame came to the tap") // of two tags the kernel makes single frames itself
					}
				})
			}
		}
	}
}

// BenchmarkKernel is a queue of the kernel at work, which takes what a Coalescer makes of frames and of packets.
func BenchmarkKernel(b *testing.B) {
	lab.NeedTun(b)
	for _, layer := range kernelLayers {
		b.Run(layer.kind(), func(b *testing.B) {
			h := lab.NewHost(b, "bench")
			d := openIn(b, h, layer, TunOptions{Name: "culvert0"})
			configure(b, h, d, "10.9.0.1/24")
			link := framings[layer]
			// Nobody listens at the address, so the kernel drops what it has taken.
			packets := link.wrapAll(packet{flags: 0x10, options: make([]byte, 12)}.train(46, 1388))
			c := NewCoalescer(d.Queues()[0])
			commit, total := commitTo(c, link.frame, true), 0
			for _, p := range packets {
				total += len(p)
			}
			b.SetBytes(int64(total))
			for b.Loop() {
				for _, p := range packets {
					copy(c.Slot(len(p)), p)
					if _, err := commit(len(p)); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := c.Flush(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
