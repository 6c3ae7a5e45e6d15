package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"culvert/transport"
	"culvert/tunnel/device"
)

// relayArgument makes this program one end of a tunnel without cryptography, peers, sessions and routing: culvert's queues,
// segmentation, coalescing and sockets, in loops as the engine's, with a copy where that seals and opens. What it reaches is
// what this design can reach. It has no protection whatever and is for measuring alone, in namespaces of their own.
//
// Arguments: the kind, the device's name, the port, the far end's address.
const relayArgument = "relay"

const (
	relayName      = "relay"
	relayWholeName = "relay whole"
)

const (
	relaySegments = "segments" // packets are cut, and merged again
	relayWhole    = "whole"    // super-packets pass as they are, cut into datagrams blindly
)

// The relays are run as other projects' programs are. The settings say in the results what each does.
var (
	relayOfSegments = rival{name: relayName, build: ownProgram, configure: configureRelay(relaySegments),
		settings: "no cryptography: the native wire's messages, copied"}
	relayOfWhole = rival{name: relayWholeName, build: ownProgram, configure: configureRelay(relayWhole),
		settings: "no cryptography: super-packets cut into datagrams as they are"}
)

func ownProgram(*stage) (string, error) { return os.Executable() }

// relayFlow is one of a relay's two loops. It returns why it ended.
type relayFlow interface{ run() error }

func configureRelay(kind string) func(string, [2]rivalEnd) ([2][]string, error) {
	return func(_ string, ends [2]rivalEnd) (arguments [2][]string, err error) {
		for i := range ends {
			far := netip.AddrPortFrom(ends[1-i].address, tunnelPort)
			arguments[i] = []string{relayArgument, kind, tunnelDevice, strconv.Itoa(tunnelPort), far.String()}
		}
		return arguments, nil
	}
}

// serveRelay runs until it is told to end.
func serveRelay(arguments []string) error {
	if len(arguments) != 4 {
		return fmt.Errorf("usage: %s KIND DEVICE PORT FAR", relayArgument)
	}
	if err := raisePriority(); err != nil {
		return err
	}
	kind, name := arguments[0], arguments[1]
	if kind != relaySegments && kind != relayWhole {
		return fmt.Errorf("there is no relay %q", kind)
	}
	port, err := strconv.ParseUint(arguments[2], 10, 16)
	if err != nil {
		return err
	}
	far, err := transport.ParseEndpoint(arguments[3])
	if err != nil {
		return err
	}
	socket, err := transport.UDP{}.Open(transport.Options{Port: uint16(port), DontFragment: true})
	if err != nil {
		return err
	}
	defer socket.Close()
	dev, err := device.OpenTun(device.TunOptions{Name: name, MTU: tunnelMTU})
	if err != nil {
		return err
	}
	defer dev.Close()
	ended := make(chan error, 1+len(socket.Receivers()))
	for _, flow := range relayFlows(kind, dev.Queues()[0], socket, far) {
		go func() { ended <- flow.run() }()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	select {
	case err := <-ended:
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	case <-stop:
		return nil
	}
}

// relayFlows are one loop for the device's queue and one for each of the socket's receivers.
func relayFlows(kind string, q device.Queue, socket transport.Socket, far transport.Endpoint) (flows []relayFlow) {
	batch := &relayBatch{sender: socket.NewSender(), far: far, buf: make([]byte, relayBatchBytes)}
	if kind == relayWhole {
		flows = append(flows, &wholeOut{queue: q, batch: batch, buf: make([]byte, device.BufferSize)})
	} else {
		flows = append(flows, &segmentsOut{queue: q, batch: batch, buf: make([]byte, device.BufferSize)})
	}
	for _, r := range socket.Receivers() {
		in := relayIn{receiver: r, far: far.Remote}
		if kind == relayWhole {
			in.arrival = &wholeIn{queue: q, buf: make([]byte, device.BufferSize)}
		} else {
			in.arrival = &segmentsIn{device.NewCoalescer(q)}
		}
		for i := range in.trains {
			in.trains[i].Buf = make([]byte, transport.ReceiveBufferSize)
		}
		flows = append(flows, &in)
	}
	return flows
}

const (
	// These are the engine's.
	relayBatchBytes  = 4 * transport.MaxTrainBytes
	relayBatchTrains = 64
	relayReads       = 256
	relayTrains      = 8
)

// relayBatch collects messages as trains, as the engine's does, all for one endpoint.
type relayBatch struct {
	sender transport.Sender
	far    transport.Endpoint
	buf    []byte
	used   int
	trains [relayBatchTrains]transport.Train
	count  int
	start  int // of the last train
	length int // of the last train, in messages
	open   bool
}

// room returns space for a message of that size.
func (b *relayBatch) room(size int) []byte {
	if b.used+size > len(b.buf) || b.count == len(b.trains) {
		b.flush()
	}
	return b.buf[b.used : b.used+size]
}

// add takes the message of that size which was written to room.
func (b *relayBatch) add(size int) {
	if b.open {
		if last := &b.trains[b.count-1]; size <= last.Segment && last.N+size <= transport.MaxTrainBytes {
			last.N += size
			last.Buf = b.buf[b.start : b.start+last.N]
			b.used += size
			b.length++
			b.open = size == last.Segment && b.length < transport.MaxTrainSegments
			return
		}
	}
	b.trains[b.count] = transport.Train{Buf: b.buf[b.used : b.used+size], N: size, Segment: size, Endpoint: b.far}
	b.start, b.length, b.open = b.used, 1, true
	b.count++
	b.used += size
}

// full reports whether it is time to send, before the batch grows past the cache.
func (b *relayBatch) full() bool { return b.used > relayBatchBytes-transport.MaxTrainBytes }

// flush sends everything. What cannot be sent is lost.
func (b *relayBatch) flush() {
	if b.count > 0 {
		b.sender.Send(b.trains[:b.count])
	}
	b.used, b.count, b.open = 0, 0, false
}

// relayOut reads a queue until it ends, as the engine's outbound loop.
func relayOut(q device.Queue, b *relayBatch, buf []byte, packet func(lo, hi int, o device.Offload)) error {
	for {
		lo, hi, o, err := q.Read(buf, true)
		if err != nil {
			return err
		}
		for reads := 1; err == nil; reads++ {
			packet(lo, hi, o)
			if b.full() || reads == relayReads {
				break
			}
			lo, hi, o, err = q.Read(buf, false)
		}
		b.flush()
		if err != nil && err != device.ErrWouldBlock {
			return err
		}
	}
}

// relayIn is a receiver's loop, as the engine's inbound one.
type relayIn struct {
	receiver transport.Receiver
	far      netip.AddrPort
	arrival  interface {
		datagram(msg []byte) // takes one
		flush()              // after all that were received at once
	}
	trains [relayTrains]transport.Train
}

func (r *relayIn) run() error {
	for {
		n, err := r.receiver.Receive(r.trains[:])
		if err != nil {
			return err
		}
		for i := range r.trains[:n] {
			train := &r.trains[i]
			if train.Endpoint.Remote != r.far {
				continue
			}
			for datagram, next := train.Next(0); datagram != nil; datagram, next = train.Next(next) {
				r.arrival.datagram(datagram)
			}
		}
		r.arrival.flush()
	}
}
