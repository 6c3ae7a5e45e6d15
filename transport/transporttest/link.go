package transporttest

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"culvert/transport"
)

// Link is what happens to datagrams on their way from one host to another. The zero value is a perfect link without
// delay. Chances are from 0 to 1.
type Link struct {
	Loss      float64
	Duplicate float64
	// Reorder is the chance that a datagram is held back by ReorderDelay (1 ms where that is 0), so that those sent
	// meanwhile overtake it. Nothing else reorders.
	Reorder      float64
	ReorderDelay time.Duration
	Delay        time.Duration
	// Jitter adds a random delay of up to this to each datagram. Those behind wait rather than overtake.
	Jitter time.Duration
	// MTU is the largest IP packet, headers (28 or 48 bytes) included, that the way takes whole; 0 for no limit. A larger
	// datagram vanishes where its socket does not let it be fragmented (a black hole: no ICMP tells of it), and arrives
	// as any other where it does. What the sender's interface refuses is [Host.SetMTU]'s.
	MTU int
	// CE is the chance that an ECN-capable datagram is marked as having met congestion.
	CE float64
	// Unreachable makes sending fail with ENETUNREACH. Loss: 1 is the silent way.
	Unreachable bool
}

// direction is a pair of hosts, by number.
type direction struct{ from, to int }

// nobody is the host number of addresses that no host has.
const nobody = -1

// path is the state of a direction.
type path struct {
	link Link
	set  bool // SetLink was called; otherwise the network's default holds
	rand *rand.Rand
	last time.Duration // when the last datagram arrives
}

func (n *Network) path(d direction) *path {
	p := n.byLink[d]
	if p == nil {
		p = &path{rand: n.rand(d)}
		n.byLink[d] = p
	}
	return p
}

// SetDefaultLink sets the link between all hosts that SetLink was not called for. Datagrams on their way are not
// affected.
func (n *Network) SetDefaultLink(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = l
}

// SetLink sets the link between two hosts, both ways. It stays theirs when they change addresses.
func (n *Network) SetLink(a, b *Host, l Link) {
	n.SetLinkOneWay(a, b, l)
	n.SetLinkOneWay(b, a, l)
}

// SetLinkOneWay sets the link from one host to another.
func (n *Network) SetLinkOneWay(from, to *Host, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.path(direction{from.number, to.number})
	p.link, p.set = l, true
}

// cross sends d over a direction: it decides d's fate and schedules its arrival.
func (n *Network) cross(p *path, l *Link, d *datagram) {
	// Each datagram draws the same number of times whatever the link, so that changing one chance leaves the
	// other outcomes as they were.
	lost, twice, late, marked := p.rand.Float64(), p.rand.Float64(), p.rand.Float64(), p.rand.Float64()
	jitter := time.Duration(p.rand.Float64() * float64(l.Jitter))

	if l.MTU > 0 && packetBytes(d.to.Addr(), len(d.data)) > l.MTU {
		if d.whole {
			n.counters.TooLarge++
			n.release(d)
			return
		}
		n.counters.Fragmented++
	}
	if lost < l.Loss {
		n.counters.Lost++
		n.release(d)
		return
	}
	if d.tos&transport.ECNMask != transport.ECNNotECT && marked < l.CE {
		d.tos |= transport.ECNCE
		n.counters.Marked++
	}
	d.due = max(n.now()+l.Delay+jitter, p.last)
	p.last = d.due
	if late < l.Reorder {
		hold := l.ReorderDelay
		if hold <= 0 {
			hold = time.Millisecond
		}
		d.due += hold
		n.counters.Reordered++
	}
	var second *datagram
	if twice < l.Duplicate {
		second = n.newDatagram()
		data := append(second.data[:0], d.data...)
		*second = *d
		second.data = data
		n.counters.Duplicated++
	}
	n.schedule(d)
	if second != nil {
		n.schedule(second)
	}
}

// packetBytes is the size of an IP packet that carries a datagram of n bytes to a.
func packetBytes(a netip.Addr, n int) int {
	if a.Is4() {
		return 20 + 8 + n
	}
	return 40 + 8 + n
}
