package tunnel

import (
	"slices"
	"sync/atomic"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
)

// This file is lanes (docs/protocol.md): a session of the native wire between ends of several workers has one for each, with
// keys, counters, replay window and a way of its own, so that the workers of both ends share nothing but the peer.
//
// Lane 0 is the session itself. A lane from 1 on leaves the session's initiator from a port of the worker that it belongs
// to, so that networks and network cards tell lanes apart; the responder answers from the tunnel's port to where the lane was
// last heard from. It carries data only while the control loop knows that its way is there (lanes.go); until then, and as
// soon as it is not, what would go on it goes on lane 0. So does all that goes over a stream (streams.go).

const (
	// maxWorkers is how many workers a tunnel has at most in each direction.
	maxWorkers = 16
	// maxLanedPeers is up to how many peers lanes are offered. With more, their sessions already give every worker something to
	// do, and lanes would cost about 6 KiB each of up to three sessions.
	maxLanedPeers = 64
)

// lane is a session's lane from 1 on. The datapath uses the atomics; the peer's lock guards the rest.
type lane struct {
	*session.Session
	keypair  *keypair
	number   int
	via      via
	traffic  *laneTraffic
	until    atomic.Int64                       // data may go on it until then; 0: it may not
	endpoint atomic.Pointer[transport.Endpoint] // where it was last heard from; nil: not yet, or where the peer is
	heardAt  atomic.Int64
	moved    atomic.Bool // endpoint has changed since the control loop looked

	reached  bool          // a probe was answered from where it is now
	proven   int           // the longest plaintext whose probe was, in bytes; 0: none
	asked    uint64        // id of the last probe
	askedAt  time.Duration // 0: never
	askedFor int           // its plaintext in bytes
	tries    int           // probes since the last answer
}

// laneTraffic is what a peer's lanes of one number have carried.
type laneTraffic struct {
	sentPackets, sentBytes         atomic.Uint64
	receivedPackets, receivedBytes atomic.Uint64
	_                              [32]byte // lanes belong to different workers
}

// via is the port that something leaves from: 0 is the tunnel's, i+1 that of worker i's lanes.
type via uint8

// way is what a message is sealed with and how it leaves.
type way struct {
	*session.Session
	endpoint *transport.Endpoint
	lane     *lane // nil: lane 0
	via      via
}

// way returns lane 0, which leads to ep.
func (k *keypair) way(ep *transport.Endpoint) way { return way{Session: k.Session, endpoint: ep} }

// wayOf returns the lane that a worker's messages take, or lane 0, which leads to ep, where that is not to be used now.
//
// It is the lane whose messages come to that worker. The kernel has a flow leave by the queue that its answers were last
// written to, so the flow stays with the worker and on the lane, at both ends.
func (k *keypair) wayOf(worker int, ep *transport.Endpoint, now time.Duration) way {
	if k.lanes == nil {
		return k.way(ep)
	}
	n := workerLane(worker, k.first, k.peer.tunnel.workerCount(), 1+len(k.lanes))
	if n == 0 {
		return k.way(ep)
	}
	l := k.lanes[n-1]
	if now >= time.Duration(l.until.Load()) {
		return k.way(ep)
	}
	return l.way(ep)
}

// workerLane is the lane, of a session's, that one of so many workers uses, where lane 0's messages come to worker first.
func workerLane(worker, first, workers, lanes int) int {
	return (worker - first + workers) % workers % lanes
}

// way returns the lane, which leads to where it was heard from, or lane 0 where it leads nowhere; ep is where the peer is.
func (l *lane) way(ep *transport.Endpoint) way {
	if streamOf(ep) != 0 {
		return l.keypair.way(ep)
	}
	if to := l.endpoint.Load(); to != nil {
		ep = to
	} else if !l.Initiator {
		return l.keypair.way(ep)
	}
	return way{Session: l.Session, endpoint: ep, lane: l, via: l.via}
}

// workerCount is how many workers receive, and how many send.
func (t *Tunnel) workerCount() int { return min(len(t.queues), maxWorkers) }

// lanesWanted is how many lanes sessions are to have, for this end.
func (t *Tunnel) lanesWanted() uint8 {
	t.peersMu.RLock()
	defer t.peersMu.RUnlock()
	if len(t.peers) > maxLanedPeers {
		return 1
	}
	return uint8(min(t.workerCount(), noise.MaxLanes))
}

// makeLanes gives the keypair, whose session is made next, its lanes. The peer's lock is held.
func (kp *keypair) makeLanes(keys *noise.Keys, d *derived, now time.Duration) error {
	workers := kp.peer.tunnel.workerCount()
	kp.first = workerOf(d.local, workers)
	if d.lanes <= 1 {
		return nil
	}
	n := kp.native
	if n.traffic == nil {
		n.traffic = new([noise.MaxLanes - 1]laneTraffic)
	}
	kp.lanes = make([]*lane, d.lanes-1)
	for i := range kp.lanes {
		number := i + 1
		of := keys.Lane(uint8(number), d.initiator)
		s, err := session.New(&of, d.suite, d.initiator, laneIndex(d.local, number), laneIndex(d.remote, number), now)
		if err != nil {
			return err
		}
		l := &lane{Session: s, keypair: kp, number: number, traffic: &n.traffic[i]}
		if d.initiator {
			l.via = via(1 + (kp.first+number)%workers)
		}
		kp.lanes[i] = l
	}
	return nil
}

// heard notes where an authenticated message came from. Lanes from 1 on do not move the peer: a network may well give each
// another address.
func (l *lane) heard(ep *transport.Endpoint, now time.Duration) {
	l.heardAt.Store(int64(now))
	old := l.endpoint.Load()
	switch {
	case old != nil && *old == *ep:
		return
	case old == nil && l.Initiator:
		if at := l.keypair.peer.endpoint.Load(); at != nil && at.Remote == ep.Remote {
			return
		}
	}
	to := *ep // ep belongs to the caller's batch
	l.endpoint.Store(&to)
	if old == nil || old.Remote != ep.Remote {
		l.until.Store(0)
		l.moved.Store(true)
		l.keypair.peer.tunnel.attention.add(l.keypair.peer)
	}
}

// followPeer has the lanes that this end began lead to where the peer is now, once they are known to arrive there. Where that is
// a stream none leads anywhere, and later each is to be known anew.
func (k *keypair) followPeer(ep *transport.Endpoint) {
	if k == nil {
		return
	}
	for _, l := range k.lanes {
		if l.Initiator || ep.Stream != 0 {
			l.endpoint.Store(nil)
			l.until.Store(0)
			l.moved.Store(true)
		}
	}
}

// checkSources drops the sticky source addresses of lanes that routes have made wrong; valid tells of an endpoint.
func (k *keypair) checkSources(valid func(transport.Endpoint) bool) {
	if k == nil {
		return
	}
	for _, l := range k.lanes {
		if ep := l.endpoint.Load(); ep != nil && ep.Source.IsValid() && !valid(*ep) {
			plain := ep.WithoutSource()
			l.endpoint.CompareAndSwap(ep, &plain)
		}
	}
}

// Erase drops the keys of all lanes.
func (k *keypair) Erase() {
	k.Session.Erase()
	for _, l := range k.lanes {
		l.Erase()
	}
}

// wasHeard reports whether anything has come in under the keypair, on any lane.
func (k *keypair) wasHeard() bool {
	return k.received.Load() > 0 || slices.ContainsFunc(k.lanes, func(l *lane) bool { return l.heardAt.Load() != 0 })
}
