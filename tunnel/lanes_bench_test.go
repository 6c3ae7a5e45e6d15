package tunnel

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// lanePaths is newWirePath for each of several workers of two engines, between which there is one session. With lanes each
// worker's messages take one of its own, otherwise all take the session.
func lanePaths(t testing.TB, workers int, lanes bool, packet []byte, o device.Offload) []*memoryPath {
	network := transporttest.New(1)
	a, b := newStillQueues(t, network, 1, workers), newStillQueues(t, network, 2, workers)
	a.addPeerNode(b, true, onNativeWire)
	b.addPeerNode(a, true, onNativeWire)
	keys := func(lane int, initiator bool) noise.Keys {
		k := noise.Keys{Send: [32]byte{1, byte(lane)}, Receive: [32]byte{2, byte(lane)}}
		if !initiator {
			k.Send, k.Receive = k.Receive, k.Send
		}
		return k
	}
	traffic := new([noise.MaxLanes - 1]laneTraffic)
	join := func(n *node, p *peer, initiator bool, remote uint32) uint32 {
		index, err := n.indices.reserve(p)
		if err != nil {
			t.Fatal(err)
		}
		of := func(lane int) *session.Session {
			k := keys(lane, initiator)
			s, err := session.New(&k, crypto.AES256GCM, initiator, laneIndex(index, lane), laneIndex(remote, lane), n.clock.now())
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		kp := &keypair{Session: of(0), peer: p, native: p.native.Load(), first: workerOf(index, workers)}
		kp.serial = kp.native.known()
		kp.native.found.Store(uint32(limitsOf(n.Tunnel.testDatagram()-session.Overhead, true)))
		for k := 1; lanes && k < workers; k++ {
			l := &lane{Session: of(k), keypair: kp, number: k, via: via(1 + k), traffic: &traffic[k-1]}
			l.until.Store(math.MaxInt64)
			kp.lanes = append(kp.lanes, l)
		}
		n.indices.establish(index, kp)
		p.current.Store(kp)
		return index
	}
	remote := join(b, b.tunnelPeer(a), false, 0)
	join(a, a.tunnelPeer(b), true, remote)
	ports := &lanePorts{sockets: make([]transport.Socket, workers)}
	a.lanePorts.Store(ports)
	all := make([]*memoryPath, workers)
	for i := range all {
		m := &memoryPath{packet: packet, o: o}
		m.out = newOutbound(a.Tunnel, i)
		capture := &captureSender{}
		m.out.batch.bound, m.out.batch.sender, m.out.batch.lanePorts = a.bound.Load(), capture, ports
		for j := range workers {
			m.out.batch.laneSenders[j] = capture
		}
		m.in = &inbound{tunnel: b.Tunnel, coalescer: device.NewCoalescer(b.queues[i]), reassembler: newReassembler()}
		all[i] = m
	}
	return all
}

// run sends and receives once.
func (m *memoryPath) run() {
	m.send()
	m.receive(m.out.batch.sender.(*captureSender).trains)
}

func TestLanesAllocateNothing(t *testing.T) {
	for _, l := range benchLoads() {
		t.Run(l.name, func(t *testing.T) {
			for i, m := range lanePaths(t, 4, true, l.packet, l.o) {
				delivered, runs := 0, 0
				m.in.tunnel.device.(*devicetest.Device).Queue(i).SetSink(func(p []byte, _ device.Offload) { delivered += len(p) })
				if n := testing.AllocsPerRun(100, func() {
					m.run()
					runs++
				}); n != 0 {
					t.Errorf("worker %d allocates %v times a packet", i, n)
				}
				if delivered != runs*len(l.packet) {
					t.Errorf("%d bytes delivered of %d packets of %d; drops %v", delivered, runs, len(l.packet), m.in.tunnel.drops.snapshot())
				}
				kp := onlyPeer(m.out.tunnel).current.Load()
				if lane := workerLane(i, kp.first, 4, 4); lane > 0 && kp.lanes[lane-1].Sent() == 0 {
					t.Errorf("worker %d sends nothing on lane %d", i, lane)
				}
			}
		})
	}
}

// BenchmarkLanes seals and opens super-packets, and small packets, of as many flows as there are workers, each on a
// processor of its own where there are as many, on lanes and on one session. "load" is what is not the engine's: the packet
// copied into its buffer.
func BenchmarkLanes(b *testing.B) {
	for _, l := range benchLoads() {
		for workers := 1; workers <= runtime.NumCPU(); workers *= 2 {
			for _, lanes := range []bool{false, true} {
				if lanes && workers == 1 {
					continue
				}
				b.Run(fmt.Sprintf("%s/workers %d/lanes %v", l.name, workers, lanes), func(b *testing.B) {
					paths := lanePaths(b, workers, lanes, l.packet, l.o)
					for i, m := range paths {
						m.in.tunnel.device.(*devicetest.Device).Queue(i).SetSink(func([]byte, device.Offload) {})
					}
					inParallel(b, len(l.packet), workers, func(i int) { paths[i].run() })
				})
			}
			b.Run(fmt.Sprintf("%s/workers %d/load", l.name, workers), func(b *testing.B) {
				bufs := make([][]byte, workers)
				for i := range bufs {
					bufs[i] = make([]byte, len(l.packet))
				}
				inParallel(b, len(l.packet), workers, func(i int) { copy(bufs[i], l.packet) })
			})
		}
	}
}

// inParallel has so many goroutines share b.N runs of f.
func inParallel(b *testing.B, size, workers int, f func(worker int)) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers))
	b.SetBytes(int64(size))
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range workers {
		runs := b.N / workers
		if i == 0 {
			runs += b.N % workers
		}
		wg.Go(func() {
			for range runs {
				f(i)
			}
		})
	}
	wg.Wait()
}

// TestLanesOfManyWorkers has all workers of two engines send and receive at once, for the race detector and the replay windows.
func TestLanesOfManyWorkers(t *testing.T) {
	packet := udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), make([]byte, 100))
	for _, lanes := range []bool{false, true} {
		paths := lanePaths(t, 4, lanes, packet, noOffload)
		var wg sync.WaitGroup
		got := make([]int, 4)
		for i, m := range paths {
			m.in.tunnel.device.(*devicetest.Device).Queue(i).SetSink(func([]byte, device.Offload) { got[i]++ })
			wg.Go(func() {
				for range 2000 {
					m.run()
				}
			})
		}
		wg.Wait()
		for i, n := range got {
			if n != 2000 {
				t.Errorf("lanes %v: %d packets of 2000 through worker %d; drops %v", lanes, n, i, paths[i].in.tunnel.drops.snapshot())
			}
		}
	}
}
