// Package transporttest is an underlay in memory, for deterministic tests of whatever runs over package transport.
//
// A [Network] has hosts, each a [transport.Network] of its own on which sockets open, and a [Link] each way between any
// two of them that can lose, duplicate, delay, reorder, mark and swallow datagrams. Hosts can sit behind a [NAT],
// change their addresses and move. Taps see, change and drop what passes; datagrams of any origin can be injected.
//
// A [TCP] is connections in memory, for package stream.
//
// All times are those of package time, so that under testing/synctest delays take no real time, and every wait is one
// synctest knows as durable. Chance comes from the seed, by a generator of its own for every direction between two
// hosts: a run repeats exactly as long as each host sends in the same order. Events happen in the order of
// their time and, at one time, of their making.
//
// The model leaves out bandwidth and ICMP. A datagram that is fragmented on its way (see [Link].MTU) still has the chances
// of one, and arrives in one piece.
package transporttest

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"culvert/transport"
)

const (
	// DefaultQueueBytes bounds what waits in one socket to be received; more is dropped, as a full SO_RCVBUF does.
	DefaultQueueBytes = 4 << 20
	// maxInFlight bounds the bytes on their way in the whole network.
	maxInFlight = 256 << 20
	// maxFree bounds the datagrams kept for use again.
	maxFree = 4096
)

// Network is an underlay. Its methods may be called at any time, also while datagrams are on their way, and
// concurrently; but from a tap only Inject.
type Network struct {
	seed  uint64
	start time.Time

	mu       sync.Mutex
	realm    realm // the public addresses
	hosts    []*Host
	byLink   map[direction]*path
	all      Link // of directions that were not set
	counters Counters

	events   eventHeap
	sequence uint64
	timer    *time.Timer
	inFlight int
	free     []*datagram

	tapMu sync.Mutex // held while taps run, so that they need no locks of their own
	taps  []*tap
}

// Counters tell what became of datagrams since the network was made.
type Counters struct {
	Sent, Delivered uint64
	Lost            uint64 // by a link's Loss
	Duplicated      uint64 // second copies sent
	Reordered       uint64
	Marked          uint64 // CE set
	TooLarge        uint64 // lost as larger than a link's MTU
	TooBig          uint64 // refused at sending as larger than the host's MTU, with what was behind it in its train
	Fragmented      uint64 // larger than a link's MTU, and fragmented there
	Tapped          uint64 // dropped by a tap
	NoHost          uint64 // to an address nobody has
	NoSocket        uint64 // to a port nobody has open
	Filtered        uint64 // refused by a NAT
	QueueFull       uint64 // no room in the socket's queue or on the way
	Unreachable     uint64 // refused at sending
}

// realm is a set of addresses that reach each other without translation.
type realm map[netip.Addr]node

// node is what an address belongs to: a *Host, or the *NAT in front of some.
type node any

// New returns a network without hosts whose chances follow from seed. Under testing/synctest it must be made inside
// the bubble.
func New(seed uint64) *Network {
	return &Network{
		seed:   seed,
		start:  time.Now(),
		realm:  realm{},
		byLink: map[direction]*path{},
	}
}

// Counters returns a snapshot.
func (n *Network) Counters() Counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counters
}

// now is the time since the network was made.
func (n *Network) now() time.Duration { return time.Since(n.start) }

// rand returns the generator of one direction.
func (n *Network) rand(d direction) *rand.Rand {
	return rand.New(rand.NewPCG(n.seed, uint64(d.from)<<32|uint64(uint32(d.to))))
}

// Inject puts a datagram on the public wire as if from had sent it, whoever that is. It is delivered at once and
// to no tap; NATs on the way treat it as any other.
func (n *Network) Inject(from, to netip.AddrPort, payload []byte) {
	n.InjectPacket(Packet{From: from, To: to, Data: payload})
}

// InjectPacket is Inject with all of a packet's fields.
func (n *Network) InjectPacket(p Packet) {
	if len(p.Data) > transport.MaxTrainBytes {
		panic("transporttest: injected datagram larger than any")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.newDatagram()
	d.from, d.to, d.tos, d.whole = p.From, p.To, p.TOS, p.DontFragment
	d.data = append(d.data[:0], p.Data...)
	n.counters.Sent++
	n.arrive(d, n.realm)
}
