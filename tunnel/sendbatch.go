package tunnel

import (
	"errors"

	"culvert/transport"
	"culvert/tunnel/pathmtu"
)

const (
	batchBytes  = 4 * transport.MaxTrainBytes
	batchTrains = 64
)

// sendBatch collects sealed messages of one goroutine as trains and sends them together.
type sendBatch struct {
	tunnel *Tunnel
	bound  *boundSocket // what sender belongs to
	sender transport.Sender
	worker int // whose

	// The same of the ports that lanes leave from.
	lanePorts   *lanePorts
	laneSenders [maxWorkers]transport.Sender // made when first needed

	buf    []byte
	used   int
	trains [batchTrains]transport.Train
	count  int
	vias   [batchTrains]via // of trains
	lanes  bool             // some train leaves from another port than the tunnel's

	// Of the last train: where it starts, its endpoint, how many messages it has, and whether it may grow.
	start    int
	endpoint *transport.Endpoint
	via      via
	messages int
	open     bool
}

func newSendBatch(t *Tunnel, size int) *sendBatch {
	return &sendBatch{tunnel: t, buf: make([]byte, size)}
}

// room returns space for a message of up to size bytes, sending what is there when it is full.
func (b *sendBatch) room(size int) []byte {
	if b.used+size > len(b.buf) || b.count == len(b.trains) {
		b.flush()
	}
	return b.buf[b.used : b.used+size]
}

// add appends the message of size bytes that was written to room, to leave from the tunnel's port.
func (b *sendBatch) add(size int, ep *transport.Endpoint, tos uint8) { b.addVia(size, ep, tos, 0) }

// addVia is add for any port. The message joins the train before it where both have the same endpoint, port and traffic class
// and its size allows: all messages of a train but the last are of one size.
func (b *sendBatch) addVia(size int, ep *transport.Endpoint, tos uint8, from via) {
	if b.open && b.endpoint == ep && b.via == from {
		last := &b.trains[b.count-1]
		if last.TOS == tos && size <= last.Segment && last.N+size <= transport.MaxTrainBytes {
			last.N += size
			last.Buf = b.buf[b.start : b.start+last.N]
			b.used += size
			b.messages++
			b.open = size == last.Segment && b.messages < transport.MaxTrainSegments
			return
		}
	}
	b.start, b.endpoint, b.via, b.messages, b.open = b.used, ep, from, 1, true
	b.vias[b.count] = from
	b.lanes = b.lanes || from != 0
	b.trains[b.count] = transport.Train{Buf: b.buf[b.used : b.used+size], N: size, Segment: size, Endpoint: *ep, TOS: tos}
	b.count++
	b.used += size
}

// flush sends everything collected.
func (b *sendBatch) flush() {
	if trains := b.send(); trains != nil {
		b.tunnel.dropFailed(trains)
	}
}

// flushProbe is flush for one message made to find out whether it is too large: it reports whether the kernel says so.
func (b *sendBatch) flushProbe() (tooBig bool) {
	trains := b.send()
	if trains == nil || errors.Is(trains[0].Err, transport.ErrTooBig) {
		return trains != nil
	}
	b.tunnel.dropFailed(trains)
	return false
}

// send sends everything collected. Where that failed it returns the trains, some of which have Err set.
func (b *sendBatch) send() []transport.Train {
	if b.count == 0 {
		return nil
	}
	trains := b.trains[:b.count]
	lanes := b.lanes
	b.used, b.count, b.open, b.endpoint, b.lanes = 0, 0, false, nil, false
	bound := b.tunnel.bound.Load()
	if bound != b.bound {
		b.bound, b.sender = bound, nil
		if bound != nil {
			b.sender = bound.socket.NewWorkerSender(b.worker)
		}
	}
	if b.sender == nil {
		b.tunnel.dropTrains(trains, DropOutTunnelDown)
		return nil
	}
	failed := 0
	if lanes {
		failed = b.sendVia(trains)
	} else {
		failed = b.sender.Send(trains)
	}
	if failed > 0 {
		return trains
	}
	return nil
}

// sendVia sends trains that leave from several ports, and returns how many failed.
func (b *sendBatch) sendVia(trains []transport.Train) (failed int) {
	for lo, hi := 0, 0; lo < len(trains); lo = hi {
		from := b.vias[lo]
		for hi = lo + 1; hi < len(trains) && b.vias[hi] == from; hi++ {
		}
		if s := b.senderOf(from); s != nil {
			failed += s.Send(trains[lo:hi])
		} else {
			b.tunnel.dropTrains(trains[lo:hi], DropOutTunnelDown)
		}
	}
	return failed
}

// senderOf returns what sends from a port; nil where that is not open.
func (b *sendBatch) senderOf(from via) transport.Sender {
	if from == 0 {
		return b.sender
	}
	if ports := b.tunnel.lanePorts.Load(); ports != b.lanePorts {
		b.lanePorts = ports
		clear(b.laneSenders[:])
	}
	worker := int(from) - 1
	if b.lanePorts == nil || worker >= len(b.lanePorts.sockets) {
		return nil
	}
	if b.laneSenders[worker] == nil {
		b.laneSenders[worker] = b.lanePorts.sockets[worker].NewSender()
	}
	return b.laneSenders[worker]
}

// dropTrains counts every message of the trains as dropped.
func (t *Tunnel) dropTrains(trains []transport.Train, why DropReason) {
	for i := range trains {
		t.drops.add(why, trains[i].Datagrams())
	}
}

// dropFailed counts the trains that could not be sent.
func (t *Tunnel) dropFailed(trains []transport.Train) {
	for i := range trains {
		switch err := trains[i].Err; {
		case err == nil:
		case errors.Is(err, transport.ErrTooBig):
			t.drops.add(DropOutTooBig, trains[i].Datagrams())
			if largest(&trains[i]) <= pathmtu.Base && t.toldTooBig.CompareAndSwap(false, true) {
				t.logf("%s: the interface towards %v takes no datagram of %d bytes, which the native wire needs: raise its MTU to 1280 (1260 will do for IPv4)",
					t.name(), trains[i].Endpoint, largest(&trains[i]))
			}
			t.endpoints.any(trains[i].Endpoint.Remote, func(p *peer) bool {
				if n := p.native.Load(); n != nil {
					n.tooBig.Store(int32(largest(&trains[i])))
					t.attention.add(p)
				}
				return false
			})
		case err == transport.ErrStreamFull:
			t.drops.add(DropOutStreamFull, trains[i].Datagrams())
		case err == transport.ErrStreamGone:
			t.drops.add(DropOutStreamGone, trains[i].Datagrams())
			t.streamGone(&trains[i].Endpoint)
		default:
			t.drops.add(DropOutSendFailed, trains[i].Datagrams())
		}
	}
}

// largest returns the size of the train's largest datagram.
func largest(train *transport.Train) int {
	if train.Segment > 0 {
		return min(train.Segment, train.N)
	}
	return train.N
}
