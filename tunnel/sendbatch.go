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

	buf    []byte
	used   int
	trains [batchTrains]transport.Train
	count  int

	// Of the last train: where it starts, its endpoint, how many messages it has, and whether it may grow.
	start    int
	endpoint *transport.Endpoint
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

// add appends the message of size bytes that was written to room. It joins the train before it where both have the same
// endpoint and traffic class and its size allows: all messages of a train but the last are of one size.
func (b *sendBatch) add(size int, ep *transport.Endpoint, tos uint8) {
	if b.open && b.endpoint == ep {
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
	b.start, b.endpoint, b.messages, b.open = b.used, ep, 1, true
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
	b.used, b.count, b.open, b.endpoint = 0, 0, false, nil
	bound := b.tunnel.bound.Load()
	if bound != b.bound {
		b.bound, b.sender = bound, nil
		if bound != nil {
			b.sender = bound.socket.NewSender()
		}
	}
	if b.sender == nil {
		b.tunnel.dropTrains(trains, DropOutTunnelDown)
		return nil
	}
	if b.sender.Send(trains) > 0 {
		return trains
	}
	return nil
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
