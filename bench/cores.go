package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// CoreTrial is two whole engines in one process, with devices in memory, that carry super-packets one way over the kernel's UDP on
// loopback. Both ends, the load and the kernel's work share some processors.
type CoreTrial struct {
	Round      int    `json:"round"`          // from 1
	Cores      int    `json:"cores"`          // processors in all
	Queues     int    `json:"queues"`         // workers of each end each way, and on the own wire lanes; 0: no engines, what is put into one device is handed to the other
	Wire       string `json:"wire,omitempty"` // of the engines
	LoadBefore string `json:"load_before"`
	Error      string `json:"error,omitempty"`

	Seconds float64 `json:"seconds"`
	Packets int64   `json:"packets"` // super-packets that came
	Bytes   int64   `json:"bytes"`   // of them
	Lost    int64   `json:"lost"`    // super-packets that did not come within a second
	CPU     float64 `json:"cpu"`     // of the process, in seconds
}

const (
	// coresWindow is how many super-packets of a queue are under way.
	coresWindow = 16
	// coresSegments is how many segments a super-packet has: as many as fit into 64 KiB.
	coresSegments = 47
	mostCores     = 8
)

// coresRun says what is to be carried: through as many queues, on a wire, for how long.
type coresRun struct {
	Queues   int
	Wire     string
	Duration time.Duration
}

// coreKinds are the trials of each round: processors by powers of two, each with one queue and with as many as processors, and by itself
// the load.
func coreKinds(cores int) (list []CoreTrial) {
	for n := 1; n <= min(cores, mostCores); n *= 2 {
		list = append(list, CoreTrial{Cores: n})
		for _, wire := range []string{wireWireGuard, wireCulvert} {
			list = append(list, CoreTrial{Cores: n, Queues: 1, Wire: wire}, CoreTrial{Cores: n, Queues: max(2, n), Wire: wire})
		}
	}
	return list
}

// measure makes one trial.
func (t *CoreTrial) measure(s *stage, o *options) error {
	cores := make([]int, t.Cores)
	for i := range cores {
		cores[i] = i
	}
	a, err := launchAgent(s, func(cmd *exec.Cmd) error { return startPinned(cmd, cores...) })
	if err != nil {
		return err
	}
	got, err := call[CoreTrial](a, "cores-carry", coresRun{t.Queues, t.Wire, o.Duration}, o.Duration+2*engineWait)
	t.Seconds, t.Packets, t.Bytes, t.Lost, t.CPU = got.Seconds, got.Packets, got.Bytes, got.Lost, got.CPU
	return err
}

// carry is what an agent does for a trial.
func carry(run coresRun) (CoreTrial, error) {
	if run.Queues == 0 {
		from, to := devicetest.New("near", tunnelMTU, 1), devicetest.New("far", tunnelMTU, 1)
		defer from.Close()
		defer to.Close()
		go hand(from.Queues()[0], to.Queues()[0])
		return carryBetween(from, to, run.Duration)
	}
	near, far, err := loopbackEngines(run)
	if near != nil {
		defer near.Close()
	}
	if far != nil {
		defer far.Close()
	}
	if err != nil {
		return CoreTrial{}, err
	}
	return carryBetween(near.device, far.device, run.Duration)
}

// hand takes what is put into one queue to another, until one of them ends.
func hand(from, to device.Queue) {
	buf := make([]byte, device.BufferSize)
	for {
		lo, hi, o, err := from.Read(buf, true)
		if err != nil || to.Write(buf, lo, hi, o) != nil {
			return
		}
	}
}

// carryBetween puts super-packets into the queues of one device by turns and counts what comes to the other.
func carryBetween(from, to *devicetest.Device, d time.Duration) (t CoreTrial, err error) {
	queues := len(from.Queues())
	packets := make([][]byte, queues) // a flow each
	var offload device.Offload
	for i := range packets {
		packets[i], offload = superPacket(uint16(40000 + i))
	}
	size := int64(len(packets[0]))
	var came atomic.Int64 // bytes
	tokens := make(chan struct{}, coresWindow*queues)
	for range cap(tokens) {
		tokens <- struct{}{}
	}
	for i := range queues {
		to.Queue(i).SetSink(func(p []byte, _ device.Offload) {
			now := came.Add(int64(len(p)))
			for range now/size - (now-int64(len(p)))/size {
				select {
				case tokens <- struct{}{}:
				default:
				}
			}
		})
	}
	before, err := ownCPU()
	if err != nil {
		return t, err
	}
	start := time.Now()
	pushed, lost := int64(0), time.NewTimer(time.Second)
	defer lost.Stop()
	for time.Since(start) < d {
		select {
		case <-tokens:
		default:
			lost.Reset(time.Second)
			select {
			case <-tokens:
			case <-lost.C:
				t.Lost++
			}
		}
		from.Queue(int(pushed)%queues).Push(packets[int(pushed)%queues], offload)
		pushed++
	}
	t.Seconds = time.Since(start).Seconds()
	after, err := ownCPU()
	t.Bytes = came.Load()
	t.Packets, t.CPU = t.Bytes/size, (after - before).Seconds()
	if err == nil && t.Bytes == 0 {
		err = errors.New("nothing came")
	}
	return t, err
}

// superPacket is TCP over IPv4 from one end's inner address to the other's, of coresSegments segments that are to be cut and given their
// checksums.
func superPacket(port uint16) ([]byte, device.Offload) {
	const mss = tunnelMTU - 40
	p := make([]byte, 40+coresSegments*mss)
	p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, 6
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	near, far := coresInner(0).As4(), coresInner(1).As4()
	copy(p[12:], near[:])
	copy(p[16:], far[:])
	binary.BigEndian.PutUint16(p[10:], ^fold(sumOf(p[:20])))
	binary.BigEndian.PutUint16(p[20:], port)
	binary.BigEndian.PutUint16(p[22:], 5001)
	p[32], p[33] = 5<<4, 0x10 // no options; ACK
	// Of the pseudo-header (RFC 9293 section 3.1), as the kernel hands over what has its checksum to come.
	binary.BigEndian.PutUint16(p[36:], fold(sumOf(p[12:20])+6+uint32(len(p)-20)))
	return p, device.Offload{NeedsChecksum: true, GSO: device.GSOTCPv4, HeaderLen: 40, SegmentSize: mss, ChecksumStart: 20, ChecksumOffset: 16}
}

func sumOf(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

func coresInner(end int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(end + 1)}) }

// coresEngine is an engine whose device is in memory, and whose network is the kernel's.
type coresEngine struct {
	*tunnel.Tunnel
	device *devicetest.Device
	public crypto.PublicKey
}

// loopbackEngines makes two that have a session, and lanes where they have them.
func loopbackEngines(run coresRun) (near, far *coresEngine, err error) {
	wire, err := wireOf(run.Wire)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]*coresEngine
	for i := range ends {
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			return ends[0], nil, err
		}
		e := &coresEngine{device: devicetest.New(fmt.Sprintf("bench%d", i), tunnelMTU, run.Queues), public: key.Public()}
		if e.Tunnel, err = tunnel.New(e.device, transport.UDP{}, tunnel.Options{Suites: crypto.AllSuites}); err != nil {
			return ends[0], nil, err
		}
		ends[i] = e
		if err = e.Configure(tunnel.Change{PrivateKey: &key}); err == nil {
			err = awaitUp(e.Tunnel)
		}
		if err != nil {
			return ends[0], ends[1], err
		}
	}
	near, far = ends[0], ends[1]
	for i, e := range ends {
		other := ends[1-i]
		c := tunnel.PeerChange{PublicKey: other.public, Wire: &wire, AllowedIPs: []tunnel.AllowedIPChange{{Prefix: netip.PrefixFrom(coresInner(1-i), 32)}}}
		if e == near {
			c.Endpoint = &transport.Endpoint{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), other.Status().ListenPort)}
		}
		if err := e.Configure(tunnel.Change{Peers: []tunnel.PeerChange{c}}); err != nil {
			return near, far, err
		}
	}
	packet, offload := superPacket(40000)
	for end := time.Now().Add(engineWait); !near.ready(run); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return near, far, errors.New("the engines have no session, or not all lanes of it")
		}
		near.device.Queue(0).Push(packet, offload) // lanes are opened when something is sent
	}
	runtime.GC()
	return near, far, nil
}

// ready reports whether the session is there with all its lanes, and the path's MTU has been found.
func (e *coresEngine) ready(run coresRun) bool {
	p := e.Status().Peers[0]
	if p.LastHandshake.IsZero() || p.Native == nil {
		return !p.LastHandshake.IsZero()
	}
	open := 0
	for _, l := range p.Native.Lanes {
		if l.Open {
			open++
		}
	}
	return p.Native.PathSettled && max(open, 1) == run.Queues
}
