package top

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"culvert/control"
	"culvert/crypto"
)

// Snapshot is what was found when the daemons were asked.
type Snapshot struct {
	At        time.Time
	Took      time.Duration // to ask
	Instances []control.Instance
	Err       error // why it is not all, or nothing
}

// peerID names a peer over samples.
type peerID struct {
	instance, tunnel string
	key              crypto.PublicKey
}

type tunnelID struct{ instance, tunnel string }

// flow is traffic both ways over time, in bits a second.
type flow struct{ in, out series }

// peerTrack is what is remembered of a peer.
type peerTrack struct {
	flow
	rtt               series // seconds
	received, sent    uint64 // when it was seen last
	at                time.Time
	seen              int // the sample's number
	inRate, outRate   float32
	smoothed          float32 // of both rates together: what peers are sorted by, so that they do not jump about
	smoothIn, smoothO float32
}

// tunnelTrack is what is remembered of a tunnel.
type tunnelTrack struct {
	flow
	inRate, outRate float32
	drops           map[string]uint64  // when it was seen last
	dropRates       map[string]float32 // a second
	dropRate        float32
	at              time.Time
	seen            int
	process         process
}

// process tells a daemon from the one before it, whose counts began anew.
type process struct {
	pid     int
	started time.Time
}

// history makes rates of counts.
type history struct {
	n       int // the newest sample's number; 0 is none
	peers   map[peerID]*peerTrack
	tunnels map[tunnelID]*tunnelTrack
	all     flow
	inRate  float32
	outRate float32
}

func newHistory() *history {
	return &history{peers: make(map[peerID]*peerTrack), tunnels: make(map[tunnelID]*tunnelTrack)}
}

// tracksFor is how many samples something that has gone is remembered.
const tracksFor = 60

// smoothing is the weight of the newest rate in a smoothed one.
const smoothing = 0.4

// take counts a sample in.
func (h *history) take(s *Snapshot) {
	h.n++
	h.inRate, h.outRate = 0, 0
	anything := false
	for i := range s.Instances {
		in := &s.Instances[i]
		for j := range in.Tunnels {
			t := &in.Tunnels[j]
			track := h.tunnel(in, t, s.At)
			if known(track.inRate) {
				anything = true
				h.inRate += track.inRate
				h.outRate += track.outRate
			}
		}
	}
	if !anything {
		h.inRate, h.outRate = unknown, unknown
	}
	h.all.in.put(h.n, h.inRate)
	h.all.out.put(h.n, h.outRate)
	h.miss()
}

// tunnel counts a tunnel in, with its peers.
func (h *history) tunnel(in *control.Instance, t *control.Tunnel, now time.Time) *tunnelTrack {
	id := tunnelID{in.Name, t.Interface}
	track := h.tunnels[id]
	who := process{in.PID, in.Started}
	if track == nil || track.process != who {
		if track == nil {
			track = &tunnelTrack{}
			h.tunnels[id] = track
		}
		track.drops, track.at, track.process = nil, time.Time{}, who
	}
	fresh := track.at.IsZero()
	elapsed := float32(now.Sub(track.at).Seconds())
	track.inRate, track.outRate = 0, 0
	for k := range t.Peers {
		p := &t.Peers[k]
		peer := h.peer(peerID{in.Name, t.Interface, p.PublicKey}, p, now, fresh)
		if known(peer.inRate) {
			track.inRate += peer.inRate
			track.outRate += peer.outRate
		}
	}
	track.dropRate = 0
	track.dropRates = make(map[string]float32)
	if fresh || elapsed <= 0 {
		track.inRate, track.outRate, track.dropRate = unknown, unknown, unknown
	} else {
		for reason, count := range t.Drops {
			if before := track.drops[reason]; count > before {
				rate := float32(count-before) / elapsed
				track.dropRates[reason] = rate
				track.dropRate += rate
			}
		}
	}
	track.in.put(h.n, track.inRate)
	track.out.put(h.n, track.outRate)
	track.drops, track.at, track.seen = maps.Clone(t.Drops), now, h.n
	return track
}

// peer counts a peer in. fresh says that its counts are of another process than those before.
func (h *history) peer(id peerID, p *control.Peer, now time.Time, fresh bool) *peerTrack {
	track := h.peers[id]
	if track == nil {
		track = &peerTrack{}
		h.peers[id] = track
	}
	elapsed := float32(now.Sub(track.at).Seconds())
	// Counts that went back are those of a peer that was taken away and added again.
	if fresh || track.at.IsZero() || elapsed <= 0 || p.ReceivedBytes < track.received || p.SentBytes < track.sent {
		track.inRate, track.outRate = unknown, unknown
	} else {
		track.inRate = 8 * float32(p.ReceivedBytes-track.received) / elapsed
		track.outRate = 8 * float32(p.SentBytes-track.sent) / elapsed
		track.smoothIn += smoothing * (track.inRate - track.smoothIn)
		track.smoothO += smoothing * (track.outRate - track.smoothO)
		track.smoothed = track.smoothIn + track.smoothO
	}
	track.in.put(h.n, track.inRate)
	track.out.put(h.n, track.outRate)
	rtt := float32(0)
	if p.Native != nil {
		rtt = float32(p.Native.RTT)
	}
	track.rtt.put(h.n, rtt)
	track.received, track.sent, track.at, track.seen = p.ReceivedBytes, p.SentBytes, now, h.n
	return track
}

// miss notes what was not in the sample, and forgets what has been gone for long.
func (h *history) miss() {
	for id, t := range h.peers {
		if t.seen == h.n {
			continue
		}
		if h.n-t.seen > tracksFor {
			delete(h.peers, id)
			continue
		}
		t.inRate, t.outRate, t.smoothed, t.smoothIn, t.smoothO, t.at = unknown, unknown, 0, 0, 0, time.Time{}
		t.in.put(h.n, 0)
		t.out.put(h.n, 0)
		t.rtt.put(h.n, 0)
	}
	for id, t := range h.tunnels {
		if t.seen == h.n {
			continue
		}
		if h.n-t.seen > tracksFor {
			delete(h.tunnels, id)
			continue
		}
		t.inRate, t.outRate, t.dropRate, t.dropRates, t.at = unknown, unknown, unknown, nil, time.Time{}
		t.in.put(h.n, 0)
		t.out.put(h.n, 0)
	}
}

// dropped is one reason's count in a tunnel.
type dropped struct {
	tunnel tunnelID
	reason string
	rate   float32
	total  uint64
}

// drops lists what the tunnels of which keep says so have dropped, what goes on first.
func (h *history) drops(keep func(tunnelID) bool) (list []dropped) {
	for id, t := range h.tunnels {
		if t.seen != h.n || !keep(id) {
			continue
		}
		for reason, total := range t.drops {
			if total > 0 {
				list = append(list, dropped{id, reason, t.dropRates[reason], total})
			}
		}
	}
	slices.SortFunc(list, func(a, b dropped) int {
		return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(b.total, a.total), cmp.Compare(a.reason, b.reason),
			cmp.Compare(a.tunnel.instance, b.tunnel.instance), cmp.Compare(a.tunnel.tunnel, b.tunnel.tunnel))
	})
	return list
}
