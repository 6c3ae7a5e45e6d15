package device

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"

	wgtun "golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/netstack"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// batches is a tun.Device that reads in batches.
type batches struct {
	size    int
	reads   chan batch
	events  chan wgtun.Event
	written [][]byte
	fail    error
}

type batch struct {
	packets []string
	err     error
}

func newBatches(size int) *batches {
	return &batches{size: size, reads: make(chan batch, 16), events: make(chan wgtun.Event, 16)}
}

func (b *batches) File() *os.File             { return nil }
func (b *batches) MTU() (int, error)          { return 1234, nil }
func (b *batches) Name() (string, error)      { return "batches", nil }
func (b *batches) Events() <-chan wgtun.Event { return b.events }
func (b *batches) BatchSize() int             { return b.size }

func (b *batches) Close() error {
	close(b.reads)
	close(b.events)
	return nil
}

func (b *batches) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	next, ok := <-b.reads
	if !ok {
		return 0, os.ErrClosed
	}
	for i, p := range next.packets {
		sizes[i] = copy(bufs[i][offset:], p)
	}
	return len(next.packets), next.err
}

func (b *batches) Write(bufs [][]byte, offset int) (int, error) {
	if b.fail != nil {
		return 0, b.fail
	}
	for _, p := range bufs {
		clear(p[:offset])
		b.written = append(b.written, bytes.Clone(p[offset:]))
	}
	return len(bufs), nil
}

func TestAdapterReadsBatches(t *testing.T) {
	broken := errors.New("broken")
	for _, size := range []int{1, 3} {
		far := newBatches(size)
		d := FromTUN(far)
		q := d.Queues()[0]
		buf := make([]byte, BufferSize)
		read := func(wait bool, want string, wantErr error) {
			t.Helper()
			lo, hi, o, err := q.Read(buf, wait)
			if err != wantErr || string(buf[lo:hi]) != want || o != (Offload{}) || err == nil && lo < Headroom {
				t.Fatalf("batches of %d: read %q %+v, %v; want %q, %v", size, buf[lo:hi], o, err, want, wantErr)
			}
		}
		read(false, "", ErrWouldBlock)
		if size == 3 {
			far.reads <- batch{packets: []string{"one", "", "two"}, err: wgtun.ErrTooManySegments}
			far.reads <- batch{packets: []string{"three", "four"}, err: broken}
			read(true, "one", nil)
			read(false, "two", nil)
			read(false, "", ErrWouldBlock)
			read(true, "three", nil)
			read(true, "four", nil)
			read(false, "", broken)
		} else {
			far.reads <- batch{packets: []string{"one"}}
			far.reads <- batch{err: broken}
			read(true, "one", nil)
			read(false, "", ErrWouldBlock)
			read(true, "", broken)
		}
		far.reads <- batch{packets: []string{"after"}, err: io.EOF}
		read(true, "after", nil)
		read(true, "", os.ErrClosed)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		read(true, "", os.ErrClosed)
		read(false, "", os.ErrClosed)
	}
}

func TestAdapterWrites(t *testing.T) {
	far := newBatches(1)
	d := FromTUN(far)
	defer d.Close()
	q := d.Queues()[0]
	if _, ok := q.(Offloader); ok {
		t.Error("the adapter claims to take offloads")
	}
	super, o := packet{payload: pattern(3000), flags: 0x18}.super(1000)
	buf, lo, hi := placed(super)
	if err := q.Write(buf, lo, hi, o); err != nil {
		t.Fatal(err)
	}
	if err := samePackets(far.written, referenceSegments(super, o)); err != nil {
		t.Error(err)
	}
	if err := q.Write(buf, lo, hi, Offload{GSO: gsoUnknown}); err != ErrOffload {
		t.Errorf("unknown offload: %v", err)
	}
	far.fail = errors.New("broken")
	if err := q.Write(buf, lo, hi, Offload{}); err != far.fail {
		t.Errorf("error %v", err)
	}
}

func TestAdapterEvents(t *testing.T) {
	far := newBatches(1)
	d := FromTUN(far)
	if name, err := d.Name(); name != "batches" || err != nil {
		t.Errorf("name %q: %v", name, err)
	}
	if mtu, err := d.MTU(); mtu != 1234 || err != nil {
		t.Errorf("MTU %d: %v", mtu, err)
	}
	far.events <- wgtun.EventUp | wgtun.EventMTUUpdate
	far.events <- 1 << 10
	far.events <- wgtun.EventDown
	for _, want := range []Event{EventUp, EventMTU, EventDown} {
		if got := <-d.Events(); got != want {
			t.Errorf("event %d, want %d", got, want)
		}
	}
	for range 3 * cap(far.events) { // nobody takes them
		far.events <- wgtun.EventUp
		if len(d.Events()) == cap(d.Events()) {
			break
		}
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	for range d.Events() { // until closed
	}
}

func TestAdapterChannels(t *testing.T) {
	far := tuntest.NewChannelTUN()
	d := FromTUN(far.TUN())
	q := d.Queues()[0]
	if e := <-d.Events(); e != EventUp {
		t.Errorf("event %d", e)
	}
	ping := tuntest.Ping(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"))
	go func() { far.Outbound <- ping }()
	buf := make([]byte, BufferSize)
	lo, hi, o, err := q.Read(buf, true)
	if err != nil || !bytes.Equal(buf[lo:hi], ping) {
		t.Fatalf("read %x, %v", buf[lo:hi], err)
	}
	written := make(chan error)
	go func() { written <- q.Write(buf, lo, hi, o) }()
	if got := <-far.Inbound; !bytes.Equal(got, ping) {
		t.Errorf("wrote %x", got)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	ended := make(chan error)
	go func() {
		_, _, _, err := q.Read(buf, true)
		ended <- err
	}()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != os.ErrClosed {
		t.Errorf("read ended with %v", err)
	}
	if err := q.Write(make([]byte, 100), 50, 60, Offload{}); err != os.ErrClosed {
		t.Errorf("write after Close: %v", err)
	}
}

// Two userspace stacks talk to each other through their adapters.
func TestAdapterNetstack(t *testing.T) {
	var devices [2]Device
	var nets [2]*netstack.Net
	for i, addresses := range [][]netip.Addr{
		{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1")},
		{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd09::2")},
	} {
		far, stack, err := netstack.CreateNetTUN(addresses, nil, 1420)
		if err != nil {
			t.Fatal(err)
		}
		devices[i], nets[i] = FromTUN(far), stack
	}
	var pumps sync.WaitGroup
	for i := range devices {
		from, to := devices[i].Queues()[0], devices[1-i].Queues()[0]
		pumps.Go(func() {
			buf := make([]byte, BufferSize)
			c := NewCoalescer(to)
			for {
				lo, hi, _, err := from.Read(buf, true)
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				copy(c.Slot(hi-lo), buf[lo:hi])
				if _, err := c.Commit(hi - lo); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, address := range []string{"10.9.0.2", "fd09::2"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(address), 7)
		listener, err := nets[1].ListenTCPAddrPort(to)
		if err != nil {
			t.Fatal(err)
		}
		var echo sync.WaitGroup
		echo.Go(func() {
			conn, err := listener.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, err := io.Copy(conn, conn); err != nil {
				t.Error(err)
			}
		})
		conn, err := nets[0].DialContextTCPAddrPort(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		data := pattern(1 << 20)
		echo.Go(func() {
			if _, err := conn.Write(data); err != nil {
				t.Error(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		got, err := io.ReadAll(net.Conn(conn))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes came back: %v", address, len(got), err)
		}
		echo.Wait()
		_ = conn.Close()
		_ = listener.Close()
	}
	// A netstack panics when it is closed while it sends; here both directions have ended and been acknowledged.
	for _, d := range devices {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	pumps.Wait()
}

func TestAdapterAllocate(t *testing.T) {
	for _, size := range []int{1, 4} {
		q := FromTUN(&still{size: size}).Queues()[0]
		super, o := packet{payload: pattern(3000), flags: 0x10}.super(1000)
		buf := make([]byte, BufferSize)
		if n := testing.AllocsPerRun(100, func() {
			if _, _, _, err := q.Read(buf, true); err != nil {
				panic(err)
			}
			copy(buf[Headroom:], super)
			if err := q.Write(buf, Headroom, Headroom+len(super), o); err != nil {
				panic(err)
			}
		}); n != 0 {
			t.Errorf("batches of %d: %v allocations", size, n)
		}
	}
}

// still is a tun.Device that reads the same and forgets what is written.
type still struct {
	batches
	size int
}

func (s *still) BatchSize() int                       { return s.size }
func (s *still) Write(b [][]byte, _ int) (int, error) { return len(b), nil }
func (s *still) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i := range bufs {
		sizes[i] = copy(bufs[i][offset:], "packet")
	}
	return len(bufs), nil
}
