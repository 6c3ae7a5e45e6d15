package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

var (
	victimInner   = netip.MustParseAddr("10.0.0.1")
	partnerInner  = netip.MustParseAddr("10.0.0.2")
	newcomerInner = netip.MustParseAddr("10.0.0.3")
	victimHost    = netip.MustParseAddr("127.0.0.1")
)

// trafficSize is the content of the tunnel's packets, in bytes. It begins with the time, in Unix nanoseconds, which all
// processes of a machine read alike.
const trafficSize = 200

// newKernelEngine is an engine over the kernel's sockets, with a device in memory.
func newKernelEngine(private string, peers []tunnel.PeerChange) (*tunnel.Tunnel, *devicetest.Device, error) {
	dev := devicetest.New("bench0", tunnelMTU, 1)
	t, err := runOnKernel(private, dev, peers)
	return t, dev, err
}

// runOnKernel starts an engine over the kernel's sockets, on the native wire.
func runOnKernel(private string, dev *devicetest.Device, peers []tunnel.PeerChange) (*tunnel.Tunnel, error) {
	key, err := crypto.ParsePrivateKeyHex(private)
	if err != nil {
		return nil, err
	}
	t, err := tunnel.New(dev, transport.UDP{}, tunnel.Options{Suites: crypto.AllSuites})
	if err != nil {
		return nil, err
	}
	wire, port := tunnel.Culvert, uint16(0)
	for i := range peers {
		peers[i].Wire = &wire
	}
	if err = t.Configure(tunnel.Change{PrivateKey: &key, ListenPort: &port, Peers: peers}); err == nil {
		err = awaitUp(t)
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// allow is a peer with one inner address.
func allow(inner netip.Addr) []tunnel.AllowedIPChange {
	return []tunnel.AllowedIPChange{{Prefix: netip.PrefixFrom(inner, inner.BitLen())}}
}

// victimRun says who the engine's peers are: the tunnel's, the one that comes meanwhile, others, and More of which nobody has
// the key.
type victimRun struct {
	Peers []string
	More  int
}

// victimResult is what came of a flood.
type victimResult struct {
	Seconds, CPU          float64
	Received              uint64
	Times                 []time.Duration // of the tunnel's packets
	Drops                 map[string]uint64
	HeapBefore, HeapAfter uint64
	RSSBefore, RSSPeak    int64
}

// victim is an agent's part as the engine that is flooded.
type victim struct {
	engine *tunnel.Tunnel

	began  time.Time
	before victimResult

	mu    sync.Mutex
	times []time.Duration
}

func (v *victim) start(run victimRun) (at victimAddress, err error) {
	if v.engine != nil {
		return at, errors.New("started already")
	}
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		return at, err
	}
	var peers []tunnel.PeerChange
	for i, text := range run.Peers {
		public, err := crypto.ParsePublicKeyHex(text)
		if err != nil {
			return at, err
		}
		c := tunnel.PeerChange{PublicKey: public}
		switch i {
		case 0:
			c.AllowedIPs = allow(partnerInner)
		case 1:
			c.AllowedIPs = allow(newcomerInner)
		}
		peers = append(peers, c)
	}
	for range run.More {
		other, err := crypto.GeneratePrivateKey()
		if err != nil {
			return at, err
		}
		peers = append(peers, tunnel.PeerChange{PublicKey: other.Public()})
	}
	t, dev, err := newKernelEngine(key.Hex(), peers)
	if err != nil {
		return at, err
	}
	v.engine = t
	dev.Queue(0).SetSink(v.delivered)
	s := t.Status()
	return victimAddress{s.ListenPort, s.PublicKey.Hex()}, nil
}

// delivered takes a packet from the tunnel, or several in one.
func (v *victim) delivered(packet []byte, _ device.Offload) {
	now := time.Now().UnixNano()
	if len(packet) != 20+trafficSize || netip.AddrFrom4([4]byte(packet[12:16])) != partnerInner {
		return
	}
	sent := int64(binary.BigEndian.Uint64(packet[20:]))
	v.mu.Lock()
	defer v.mu.Unlock()
	if sent != 0 {
		v.times = append(v.times, time.Duration(now-sent))
	}
}

// begin starts the measurement.
func (v *victim) begin(none) (none, error) {
	debug.FreeOSMemory()
	runtime.GC()
	v.mu.Lock()
	v.times = make([]time.Duration, 0, 1<<16) // not to grow meanwhile
	v.mu.Unlock()
	err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // the peak from now on (proc_pid_clear_refs(5))
	if err != nil {
		return none{}, err
	}
	v.before, err = v.reading()
	v.began = time.Now()
	return none{}, err
}

func (v *victim) reading() (r victimResult, err error) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	r.HeapBefore = m.HeapAlloc
	s := v.engine.Status()
	r.Received, r.Drops = s.Transport.ReceivedDatagrams, s.Drops
	if r.RSSBefore, err = selfRSS("VmRSS:"); err != nil {
		return r, err
	}
	if r.RSSPeak, err = selfRSS("VmHWM:"); err != nil {
		return r, err
	}
	cpu, err := ownCPU()
	r.CPU = cpu.Seconds()
	return r, err
}

// end returns what was measured since begin.
func (v *victim) end(none) (r victimResult, err error) {
	seconds := time.Since(v.began).Seconds()
	cpu, err := ownCPU() // before the garbage is collected once more
	if err != nil {
		return r, err
	}
	if r, err = v.reading(); err != nil {
		return r, err
	}
	r.Seconds, r.CPU = seconds, cpu.Seconds()-v.before.CPU
	r.Received -= v.before.Received
	r.HeapAfter, r.HeapBefore, r.RSSBefore = r.HeapBefore, v.before.HeapBefore, v.before.RSSBefore
	for why, n := range v.before.Drops {
		if r.Drops[why] -= n; r.Drops[why] == 0 {
			delete(r.Drops, why)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	r.Times = v.times
	return r, nil
}

func (v *victim) close() {
	if v.engine != nil {
		v.engine.Close()
	}
}

// partner is an agent's part as the other end of the tunnel that carries traffic.
type partner struct {
	engine *tunnel.Tunnel
	device *devicetest.Device
}

// farPeer is the engine that is flooded, as a peer.
func farPeer(far victimAddress) (c tunnel.PeerChange, err error) {
	c.PublicKey, err = crypto.ParsePublicKeyHex(far.Public)
	c.Endpoint = &transport.Endpoint{Remote: netip.AddrPortFrom(victimHost, far.Port)}
	c.AllowedIPs = allow(victimInner)
	return c, err
}

// start returns when there is a session.
func (p *partner) start(to engineFar) (none, error) {
	far, err := farPeer(to.Far)
	if err != nil {
		return none{}, err
	}
	if p.engine, p.device, err = newKernelEngine(to.Private, []tunnel.PeerChange{far}); err != nil {
		return none{}, err
	}
	p.device.Queue(0).Push(packetBetween(partnerInner, victimInner, make([]byte, trafficSize)), noOffload)
	if _, err := awaitSession(p.engine, engineWait); err != nil {
		return none{}, err
	}
	time.Sleep(500 * time.Millisecond) // the search for the path's MTU is over
	return none{}, nil
}

// awaitSession returns how many initiations it took.
func awaitSession(t *tunnel.Tunnel, wait time.Duration) (tries int, err error) {
	for end := time.Now().Add(wait); ; {
		s := t.Status()
		if s.Handshakes.Completed > 0 {
			return int(s.Handshakes.InitiationsSent), nil
		}
		if time.Now().After(end) {
			return 0, errors.New("no session came about")
		}
		time.Sleep(time.Millisecond)
	}
}

// trafficRun says how many packets per second go through the tunnel, and for how long.
type trafficRun struct {
	Rate int
	For  time.Duration
}

type tunnelSent struct{ Packets int64 }

func (p *partner) traffic(run trafficRun) (tunnelSent, error) {
	return p.send(run, func(content []byte) []byte { return packetBetween(partnerInner, victimInner, content) })
}

// send pushes what packet makes of a content that begins with the time.
func (p *partner) send(run trafficRun, packet func(content []byte) []byte) (sent tunnelSent, err error) {
	if p.engine == nil {
		return sent, errors.New("no tunnel")
	}
	content := make([]byte, trafficSize)
	start := time.Now()
	for {
		due := start.Add(time.Duration(sent.Packets) * interval(run.Rate))
		if due.Sub(start) >= run.For {
			time.Sleep(udpQuiet) // for the last to arrive
			return sent, nil
		}
		time.Sleep(time.Until(due))
		binary.BigEndian.PutUint64(content, uint64(time.Now().UnixNano()))
		p.device.Queue(0).Push(packet(content), noOffload)
		sent.Packets++
	}
}

func (p *partner) close() {
	if p.engine != nil {
		p.engine.Close()
	}
}

// joinRun has a peer want a session some time from now on.
type joinRun struct {
	To    engineFar
	After time.Duration
	Wait  time.Duration
}

type joinResult struct {
	Times []time.Duration // until the session, none where there was none
	Tries int
}

// join measures the time from the first packet until there is a session, to a millisecond.
func join(run joinRun) (r joinResult, err error) {
	far, err := farPeer(run.To.Far)
	if err != nil {
		return r, err
	}
	t, dev, err := newKernelEngine(run.To.Private, []tunnel.PeerChange{far})
	if err != nil {
		return r, err
	}
	defer t.Close()
	time.Sleep(run.After)
	start := time.Now()
	dev.Queue(0).Push(packetBetween(newcomerInner, victimInner, make([]byte, trafficSize)), noOffload)
	tries, err := awaitSession(t, run.Wait)
	if err != nil {
		return joinResult{Tries: int(t.Status().Handshakes.InitiationsSent)}, nil
	}
	return joinResult{[]time.Duration{time.Since(start)}, tries}, nil
}
