package transporttest

import (
	"net/netip"
	"time"
)

// datagram is one on its way, or waiting in a socket.
type datagram struct {
	from, to netip.AddrPort
	tos      uint8
	whole    bool // not to be fragmented
	data     []byte
	realm    realm // where to is looked up on arrival

	due      time.Duration
	sequence uint64
}

// newDatagram takes a used one where there is one, so that the steady state allocates nothing.
func (n *Network) newDatagram() *datagram {
	if last := len(n.free) - 1; last >= 0 {
		d := n.free[last]
		n.free = n.free[:last]
		return d
	}
	return new(datagram)
}

func (n *Network) release(d *datagram) {
	d.realm = nil
	if len(n.free) < maxFree {
		n.free = append(n.free, d)
	}
}

// schedule lets d arrive at its due time.
func (n *Network) schedule(d *datagram) {
	if n.inFlight+len(d.data) > maxInFlight {
		n.counters.QueueFull++
		n.release(d)
		return
	}
	n.inFlight += len(d.data)
	n.sequence++
	d.sequence = n.sequence
	n.events.push(d)
}

// run lets arrive what is due and sets the timer for the next.
func (n *Network) run() {
	now := n.now()
	for len(n.events) > 0 && n.events[0].due <= now {
		d := n.events.pop()
		n.inFlight -= len(d.data)
		n.arrive(d, d.realm)
	}
	if len(n.events) == 0 {
		return
	}
	wait := n.events[0].due - now
	if n.timer == nil {
		n.timer = time.AfterFunc(wait, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.run()
		})
		return
	}
	n.timer.Reset(wait)
}

// eventHeap orders datagrams by due time and sequence.
type eventHeap []*datagram

func (h eventHeap) less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return h[i].sequence < h[j].sequence
}

func (h *eventHeap) push(d *datagram) {
	*h = append(*h, d)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s.less(i, parent) {
			break
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

func (h *eventHeap) pop() *datagram {
	s := *h
	top, last := s[0], len(s)-1
	s[0], s[last] = s[last], nil
	s = s[:last]
	*h = s
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if child+1 < last && s.less(child+1, child) {
			child++
		}
		if !s.less(child, i) {
			return top
		}
		s[i], s[child] = s[child], s[i]
		i = child
	}
}
