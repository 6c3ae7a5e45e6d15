package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"culvert/crypto/session"
	"culvert/internal/lab"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// relayPair is two relays over a network in memory.
func relayPair(t *testing.T, kind string) (queues [2]*devicetest.Queue, network *transporttest.Network) {
	t.Helper()
	network = transporttest.New(1)
	addresses := [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:51820"), netip.MustParseAddrPort("192.0.2.2:51820")}
	for i, own := range addresses {
		socket, err := network.Host(own.Addr()).Open(transport.Options{Port: own.Port()})
		if err != nil {
			t.Fatal(err)
		}
		dev := devicetest.New("wg0", tunnelMTU, 1)
		t.Cleanup(func() { socket.Close(); dev.Close() })
		queues[i] = dev.Queue(0)
		for _, flow := range relayFlows(kind, dev.Queues()[0], socket, transport.Endpoint{Remote: addresses[1-i]}) {
			go flow.run()
		}
	}
	return queues, network
}

// TestRelay wants a packet to arrive as it was sent, in a message of the native wire's size.
func TestRelay(t *testing.T) {
	queues, network := relayPair(t, relaySegments)
	packet := packetBetween(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), bytes.Repeat([]byte{7}, 75))
	sizes := make(chan int, 1)
	network.Tap(func(p *transporttest.Packet) { sizes <- len(p.Data) })
	queues[0].Push(packet, noOffload)
	got, _, ok := queues[1].Next(nil)
	if !ok || !bytes.Equal(got, packet) {
		t.Errorf("arrived: %x, want %x", got, packet)
	}
	if size := <-sizes; size != 96+session.Overhead { // 95 bytes and the trailer are a multiple of 16
		t.Errorf("a message of %d bytes", size)
	}
}

// TestRelayWhole wants a super-packet to arrive uncut with what is left to do on it, and none where a piece is lost.
func TestRelayWhole(t *testing.T) {
	queues, network := relayPair(t, relayWhole)
	packet := bytes.Repeat([]byte{1, 2, 3, 4, 5}, 8000)
	o := device.Offload{NeedsChecksum: true, GSO: device.GSOTCPv4, HeaderLen: 40, SegmentSize: 1380, ChecksumStart: 20, ChecksumOffset: 16}
	in := &wholeIn{queue: queues[0], buf: make([]byte, device.BufferSize)}
	var pieces [][]byte
	network.Tap(func(p *transporttest.Packet) { pieces = append(pieces, bytes.Clone(p.Data)) })
	queues[0].Push(packet, o)
	got, left, ok := queues[1].Next(nil)
	if !ok || !bytes.Equal(got, packet) || left != o {
		t.Fatalf("arrived: %d bytes with %+v", len(got), left)
	}
	for i, piece := range pieces {
		if len(piece) > 1500-28 {
			t.Errorf("piece %d has %d bytes", i, len(piece))
		}
		if i != len(pieces)/2 {
			in.datagram(piece)
		}
	}
	if in.have == len(packet) {
		t.Error("whole without a piece")
	}
	in.datagram(make([]byte, pieceHeader)) // nothing in it
}

// TestRaisePriority wants every thread of a process that stands for a daemon to have its nice value.
func TestRaisePriority(t *testing.T) {
	lab.NeedTun(t)
	lab.NeedNetns(t)
	want, err := niceOf(0)
	if err != nil {
		t.Fatal(err)
	}
	if want == 0 {
		want = daemonNice
	}
	err = onStage(t.Context(), func(s *stage) error {
		list, _, err := tunRivalImplementations(s, Machine{}, []*rival{&relayOfSegments})
		if err != nil {
			return err
		}
		sc, err := newScene(s, &options{}, withOffloads, list[0])
		if err != nil {
			return err
		}
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", sc.daemons[0].pid))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			if err != nil {
				return err
			}
			if nice, err := niceOf(tid); err == nil && nice != want {
				t.Errorf("thread %d: nice %d, want %d", tid, nice, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
