package interop

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup"
	"golang.org/x/net/icmp"
	icmpv4 "golang.org/x/net/ipv4"
)

// streamStep is the time between two pings of a stream.
const streamStep = 20 * time.Millisecond

var streams atomic.Uint32

// stream is a ping every streamStep.
type stream struct {
	t    *testing.T
	conn *icmp.PacketConn
	id   int
	stop chan struct{}
	all  sync.WaitGroup

	mu    sync.Mutex
	pings []pinged // by sequence number
	stray int      // answers beyond the first
}

type pinged struct {
	sent, answered time.Time // answered is zero where no answer came
}

// stream starts pinging an IPv4 address.
func (st *station) stream(t *testing.T, to netip.Addr) *stream {
	t.Helper()
	s := &stream{t: t, id: int(0x8000 | streams.Add(1)), stop: make(chan struct{})}
	st.host.Must(func() (err error) {
		s.conn, err = icmp.ListenPacket("ip4:icmp", "")
		return err
	})
	s.all.Go(s.receive)
	s.all.Go(func() { s.send(&net.IPAddr{IP: to.AsSlice()}) })
	t.Cleanup(func() { s.end(0) })
	return s
}

func (s *stream) send(to net.Addr) {
	ticker := time.NewTicker(streamStep)
	defer ticker.Stop()
	for sequence := 0; sequence < 1<<16; sequence++ {
		m := icmp.Message{Type: icmpv4.ICMPTypeEcho, Body: &icmp.Echo{ID: s.id, Seq: sequence, Data: make([]byte, 56)}}
		data, err := m.Marshal(nil)
		if err != nil {
			s.t.Error(err)
			return
		}
		s.mu.Lock()
		s.pings = append(s.pings, pinged{sent: time.Now()})
		s.mu.Unlock()
		_, _ = s.conn.WriteTo(data, to) // what cannot be sent is not answered
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
	}
}

func (s *stream) receive() {
	for buf := make([]byte, 1500); ; {
		n, _, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		now := time.Now()
		m, err := icmp.ParseMessage(1, buf[:n])
		if err != nil || m.Type != icmpv4.ICMPTypeEchoReply {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		if !ok || echo.ID != s.id {
			continue
		}
		s.mu.Lock()
		if echo.Seq < len(s.pings) && s.pings[echo.Seq].answered.IsZero() {
			s.pings[echo.Seq].answered = now
		} else {
			s.stray++
		}
		s.mu.Unlock()
	}
}

// answered reports whether a ping sent after that time was answered.
func (s *stream) answered(after time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.pings, func(p pinged) bool { return p.sent.After(after) && !p.answered.IsZero() })
}

// end stops sending, waits as long for answers, and returns all pings.
func (s *stream) end(wait time.Duration) []pinged {
	s.mu.Lock()
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.mu.Unlock()
	time.Sleep(wait)
	s.conn.Close()
	s.all.Wait()
	return s.pings
}

// answeredOnce looks that every one of some pings is answered, and once.
func (st *station) answeredOnce(t *testing.T, other *station) {
	t.Helper()
	s := st.stream(t, other.v4)
	time.Sleep(20 * streamStep)
	begun := time.Now()
	all := s.end(time.Second)
	if missing := lost(all, time.Time{}, begun); len(missing) != 0 || s.stray != 0 {
		t.Errorf("%s to %s: of %d pings %d have no answer; %d answers are surplus", st.host.Name, other.host.Name, len(all),
			len(missing), s.stray)
	}
}

// lost returns when the pings sent between two times were sent that were not answered.
func lost(pings []pinged, from, to time.Time) (at []time.Time) {
	for _, p := range pings {
		if p.sent.After(from) && p.sent.Before(to) && p.answered.IsZero() {
			at = append(at, p.sent)
		}
	}
	return at
}

// frames opens a packet socket on a station's cable, or on any other device of a host.
func frames(t *testing.T, host *lab.Host, device string, etherType uint16) *os.File {
	t.Helper()
	var f *os.File
	host.Must(func() (err error) {
		f, err = setup.OpenFrames(device, etherType)
		return err
	})
	t.Cleanup(func() { f.Close() })
	return f
}

// announce has a station send an ARP request for its own address to everybody (RFC 5227 §3).
func (st *station) announce(t *testing.T) {
	t.Helper()
	mac, err := net.ParseMAC(st.mac)
	if err != nil {
		t.Fatal(err)
	}
	frame := slices.Concat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, []byte{0x08, 0x06})
	frame = append(frame, 0, 1, 0x08, 0, 6, 4, 0, 1) // RFC 826
	frame = slices.Concat(frame, mac, st.v4.AsSlice(), make([]byte, 6), st.v4.AsSlice())
	if _, err := frames(t, st.host, "eth0", 0x0806).Write(frame); err != nil {
		t.Fatal(err)
	}
}

// rate is how many frames arrive at a station in a second.
func (st *station) rate(t *testing.T) float64 {
	t.Helper()
	before, start := st.host.Counters("eth0").ReceivedPackets, time.Now()
	time.Sleep(time.Second)
	return float64(st.host.Counters("eth0").ReceivedPackets-before) / time.Since(start).Seconds()
}
