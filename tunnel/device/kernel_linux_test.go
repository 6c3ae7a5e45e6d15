package device

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/lab"

	"golang.org/x/sys/unix"
)

// joining is how.
type joining struct {
	name  string
	layer Layer
	mtu   int
	elide bool // checksums do not cross
}

var joinings = []joining{
	{"tun", LayerIP, 1420, false},
	{"tap", LayerEthernet, 1500, false},
	{"tap elided", LayerEthernet, 1500, true},
	{"tap jumbo", LayerEthernet, 9000, true},
}

// joined is two hosts whose kernels talk through tuns or taps: what one sends is cut into packets and merged again for the other.
type joined struct {
	a, b    *lab.Host
	devices [2]Device
	ways    [2]way // from a to b, from b to a
}

// way counts what passes in one direction.
type way struct {
	Queue
	joining
	superRead, superWritten, packets, udpWritten, lost atomic.Int64
	largest                                            atomic.Int64 // of the packets
}

func (w *way) Offloads() Offloads { return w.Queue.(Offloader).Offloads() }

func (w *way) Write(buf []byte, lo, hi int, o Offload) error {
	if o.GSO != GSONone {
		w.superWritten.Add(1)
	}
	if o.GSO == GSOUDP {
		w.udpWritten.Add(1)
	}
	return w.Queue.Write(buf, lo, hi, o)
}

func (w *way) pump(from Queue) error {
	buf := make([]byte, BufferSize)
	var s Segments
	c := NewCoalescer(w)
	frame := w.layer == LayerEthernet
	for wait := true; ; {
		lo, hi, o, err := from.Read(buf, wait)
		if wait = err == ErrWouldBlock; wait {
			n, err := c.Flush()
			w.lost.Add(int64(n))
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if o.GSO != GSONone {
			w.superRead.Add(1)
		}
		if err := s.ResetFor(buf, lo, hi, o, Limits{Elide: w.elide, Frame: frame}); err != nil {
			return fmt.Errorf("%w: %+v %x", err, o, buf[lo:min(hi, lo+100)])
		}
		for lo, hi, ok := s.Next(); ok; lo, hi, ok = s.Next() {
			w.packets.Add(1)
			w.largest.Store(max(w.largest.Load(), int64(hi-lo)))
			copy(c.Slot(hi-lo), buf[lo:hi])
			if n, err := commitTo(c, frame, s.Elided())(hi - lo); err != nil {
				w.lost.Add(int64(n))
				return err
			}
		}
	}
}

// largestAllowed is the size of the largest packet, with its Ethernet header if it has one.
func (j joining) largestAllowed() int64 {
	if j.layer == LayerEthernet {
		return int64(j.mtu + EthernetHeader)
	}
	return int64(j.mtu)
}

func join(t testing.TB, how joining) *joined {
	lab.NeedTun(t)
	lab.NeedIPv6(t)
	j := &joined{a: lab.NewHost(t, "a"), b: lab.NewHost(t, "b")}
	for i := range j.ways {
		j.ways[i].joining = how
	}
	var pumps sync.WaitGroup
	t.Cleanup(pumps.Wait) // after the devices are closed
	a := openIn(t, j.a, how.layer, TunOptions{Name: "culvert0", MTU: how.mtu})
	b := openIn(t, j.b, how.layer, TunOptions{Name: "culvert0", MTU: how.mtu})
	j.devices = [2]Device{a, b}
	configure(t, j.a, a, "10.9.0.1/24", "fd09::1/64")
	configure(t, j.b, b, "10.9.0.2/24", "fd09::2/64")
	for i, ends := range [][2]Device{{a, b}, {b, a}} {
		j.ways[i].Queue = ends[1].Queues()[0]
		pumps.Go(func() {
			if err := j.ways[i].pump(ends[0].Queues()[0]); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		})
	}
	return j
}

func TestKernelTCP(t *testing.T) {
	for _, how := range joinings {
		for name, address := range map[string]string{"IPv4": "10.9.0.2", "IPv6": "fd09::2"} {
			t.Run(how.name+" "+name, func(t *testing.T) {
				j := join(t, how)
				to := netip.AddrPortFrom(netip.MustParseAddr(address), 443)
				var listener net.Listener
				j.b.Must(func() (err error) {
					listener, err = net.Listen("tcp", to.String())
					return err
				})
				defer listener.Close()
				var near, far net.Conn
				j.a.Must(func() (err error) {
					near, err = net.Dial("tcp", to.String())
					return err
				})
				defer near.Close()
				far, err := listener.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer far.Close()

				const size = 32 << 20
				send := func(conn net.Conn, seed byte) error {
					source := io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
					if _, err := io.CopyBuffer(struct{ io.Writer }{conn}, source, make([]byte, 256<<10)); err != nil {
						return err
					}
					return conn.(*net.TCPConn).CloseWrite()
				}
				receive := func(conn net.Conn, seed byte) error {
					got, want := sha256.New(), sha256.New()
					if _, err := io.Copy(got, conn); err != nil {
						return err
					}
					_, _ = io.Copy(want, io.LimitReader(rand.NewChaCha8([32]byte{seed}), size))
					if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
						return errors.New("the data is not what was sent")
					}
					return nil
				}
				var all sync.WaitGroup
				for _, f := range []func() error{
					func() error { return send(near, 1) }, func() error { return receive(far, 1) },
					func() error { return send(far, 2) }, func() error { return receive(near, 2) },
				} {
					all.Go(func() {
						if err := f(); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				for i := range j.ways {
					w := &j.ways[i]
					if w.superRead.Load() == 0 || w.superWritten.Load() == 0 || w.lost.Load() != 0 || w.largest.Load() > how.largestAllowed() {
						t.Errorf("super-packets read %d, written %d; packets %d, largest %d, lost %d", w.superRead.Load(),
							w.superWritten.Load(), w.packets.Load(), w.largest.Load(), w.lost.Load())
					}
					t.Logf("%d super-packets of %d packets became %d", w.superRead.Load(), w.packets.Load(), w.superWritten.Load())
				}
			})
		}
	}
}

func TestKernelUDP(t *testing.T) {
	for _, how := range joinings {
		for name, address := range map[string]string{"IPv4": "10.9.0.2", "IPv6": "fd09::2"} {
			t.Run(how.name+" "+name, func(t *testing.T) {
				j := join(t, how)
				to := netip.AddrPortFrom(netip.MustParseAddr(address), 4433)
				var far *net.UDPConn
				j.b.Must(func() (err error) {
					far, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
					return err
				})
				defer far.Close()
				var near net.Conn
				j.a.Must(func() (err error) {
					near, err = net.Dial("udp", to.String())
					return err
				})
				defer near.Close()
				const size = 1300
				control := make([]byte, unix.CmsgSpace(2))
				h := unix.Cmsghdr{Level: unix.IPPROTO_UDP, Type: unix.UDP_SEGMENT}
				h.SetLen(unix.CmsgLen(2))
				if _, err := binary.Encode(control, binary.NativeEndian, &h); err != nil {
					t.Fatal(err)
				}
				binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], size)

				r := rand.New(rand.NewPCG(1, 2))
				buf := make([]byte, MaxPacket)
				for round := range 200 {
					data := make([]byte, 1+r.IntN(size*45))
					for i := range data {
						data[i] = byte(r.Uint32())
					}
					if _, _, err := near.(*net.UDPConn).WriteMsgUDP(data, control, nil); err != nil {
						t.Fatal(err)
					}
					if err := far.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
						t.Fatal(err)
					}
					for len(data) > 0 {
						n, err := far.Read(buf)
						if err != nil {
							t.Fatalf("round %d, %d bytes missing: %v\n%s", round, len(data), err, j.b.Shell("cat", "/proc/net/snmp", "/proc/net/snmp6"))
						}
						want := data[:min(size, len(data))]
						data = data[len(want):]
						if !bytes.Equal(buf[:n], want) {
							t.Fatalf("round %d: a datagram of %d bytes is not the one of %d bytes sent", round, n, len(want))
						}
					}
				}
				w := &j.ways[0]
				t.Logf("%d super-packets of %d packets became %d", w.superRead.Load(), w.packets.Load(), w.udpWritten.Load())
				if !w.Offloads().UDP {
					t.Log("this kernel has no UDP segmentation offload for tun")
				} else if w.superRead.Load() == 0 || w.udpWritten.Load() == 0 {
					t.Errorf("super-packets read %d, written %d", w.superRead.Load(), w.udpWritten.Load())
				}
			})
		}
	}
}
