package tunnel

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"culvert/crypto"
	"culvert/transport"
)

// Refusal is why handshakes of one far end come to nothing here, as far as it can be seen at this end. What a wrong public key of this
// tunnel makes is dropped before it can be told who sent it: see [DropInMAC1].
type Refusal struct {
	Reason string           // a drop's name
	Answer bool             // it was the answer to a handshake of this end
	Peer   crypto.PublicKey // as it proved for answers, and says otherwise
	From   netip.AddrPort   // where the last one came from
	Count  uint64
	Last   time.Time
	Behind time.Duration // by how much its clock is behind what it once said, 0 where that is not the reason
}

// Bounds of what is remembered: anybody who knows the tunnel's public key can call by names that nobody has.
const (
	maxRefused = 24
	maxUnknown = 8
)

// refusals remembers who was refused last.
type refusals struct {
	mu   sync.Mutex
	list []Refusal // the least recent first
}

// refuse counts a handshake message that is dropped, and notes whose it was. It is for the control loop.
func (t *Tunnel) refuse(why DropReason, answer bool, peer crypto.PublicKey, from *transport.Endpoint, behind time.Duration) {
	t.drops.add(why, 1)
	r := &t.refused
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := Refusal{Reason: why.String(), Answer: answer, Peer: peer}
	at := slices.IndexFunc(r.list, func(e Refusal) bool { return e.Reason == entry.Reason && e.Answer == answer && e.Peer == peer })
	if at < 0 {
		unknown := func(e Refusal) bool { return e.Reason == DropInUnknownPeer.String() }
		n := 0
		for i := range r.list {
			if unknown(r.list[i]) {
				n++
			}
		}
		if why == DropInUnknownPeer && n >= maxUnknown {
			at = slices.IndexFunc(r.list, unknown)
		} else if len(r.list) >= maxRefused {
			at = 0
		}
	} else {
		entry = r.list[at]
	}
	if at >= 0 {
		r.list = slices.Delete(r.list, at, at+1)
	}
	entry.Count++
	entry.From, entry.Last, entry.Behind = from.Remote, t.clock.wall(), behind
	r.list = append(r.list, entry)
}

// snapshot returns what is remembered, the most recent first.
func (r *refusals) snapshot() []Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.list)
	slices.Reverse(out)
	return out
}
