package tunnel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
)

// This file is the control loop's part of lanes: it finds out by probes, as the path's MTU is found out, which of them
// arrive, and opens the ports that they leave from.

const (
	// laneProbeEvery is how often a lane in use is asked whether it is still there, laneLifetime how long an answer holds: some
	// home routers forget a port that nothing comes from after 30 s.
	laneProbeEvery = 5 * time.Second
	laneLifetime   = 20 * time.Second
	// laneRetry is when a probe that was not answered is followed by the next, the first laneTries times.
	laneRetry = time.Second
	laneTries = 3
	// laneActive is how long after data flowed lanes are asked.
	laneActive = laneProbeEvery + maintainEvery
	// No more than lanesAtOnce are asked within lanesApart: with the answers that is less than a peer takes (controlInterval).
	lanesAtOnce = 4
	lanesApart  = 100 * time.Millisecond
	// lanePortsRetry is when ports that could not be opened are tried again.
	lanePortsRetry = 30 * time.Second
)

// smallestProbe is the plaintext of the smallest probe, in bytes: what is sent to where nobody has answered from yet, lest
// large ones are sent to somebody else on a peer's word.
const smallestProbe = message.MinProbe + payload.TrailerSize

// tendLanes sends the probes that are due on the lanes of kp, which is what the peer is sent to with, and returns when the next
// are, or 0. The peer's lock is held.
func (c *control) tendLanes(p *peer, kp *keypair, now time.Duration) (next time.Duration) {
	n, ep := kp.native, p.endpoint.Load()
	if kp.lanes == nil || ep == nil || ep.Stream != 0 || n.unproven || n.waits {
		return 0
	}
	if kp.Initiator && c.tunnel.lanePorts.Load() == nil {
		if now < c.lanePortsAt || now >= n.lanesUntil {
			return 0
		}
		c.wantLanePorts = true // opened when the peer's lock is free
		return now + time.Millisecond
	}
	limit := n.limits().plaintext()
	for _, l := range kp.lanes {
		l.expire(limit, now)
		if !l.Initiator && l.endpoint.Load() == nil || now >= n.lanesUntil {
			continue
		}
		size := limit
		if !l.reached {
			size = smallestProbe
		}
		if l.due(size) <= now {
			if again, ok := n.admitLaneProbe(now); !ok {
				next = earlier(next, again)
				continue
			}
			c.probeLane(p, l, ep, size, now)
		}
		next = earlier(next, l.due(size))
	}
	return next
}

// admitLaneProbe reports whether one more lane may be asked now, or when one may.
func (n *native) admitLaneProbe(now time.Duration) (again time.Duration, ok bool) {
	if n.lanesAskedAt == 0 || now >= n.lanesAskedAt+lanesApart {
		n.lanesAskedAt, n.lanesAsked = now, 0
	}
	if n.lanesAsked == lanesAtOnce {
		return n.lanesAskedAt + lanesApart, false
	}
	n.lanesAsked++
	return 0, true
}

// expire takes the lane out of use where what was known of it no longer holds: it comes from elsewhere, is not heard from any
// more, or is to take longer plaintexts, of limit bytes.
func (l *lane) expire(limit int, now time.Duration) {
	if l.moved.Swap(false) {
		l.reached, l.proven, l.tries, l.askedFor, l.asked = false, 0, 0, 0, 0
		if l.askedAt != 0 { // a peer may pretend to be now here, now there
			l.tries = 1
		}
	}
	if silent := now-time.Duration(l.heardAt.Load()) >= laneLifetime; silent && !l.Initiator {
		l.endpoint.Store(nil)
		l.reached, l.proven = false, 0
	}
	if l.proven < limit || l.proven == 0 {
		l.until.Store(0)
	}
}

// due returns when a probe of a plaintext of size bytes is to be sent.
func (l *lane) due(size int) time.Duration {
	switch {
	case l.askedAt == 0 || l.tries == 0 && size > l.askedFor:
		return 0
	case l.tries > 0 && l.tries <= laneTries:
		return l.askedAt + laneRetry
	}
	return l.askedAt + laneProbeEvery
}

// probeLane asks, by a plaintext of size bytes, whether the lane arrives. The peer's lock is held.
func (c *control) probeLane(p *peer, l *lane, ep *transport.Endpoint, size int, now time.Duration) {
	n := l.keypair.native
	n.laneProbes++
	l.asked, l.askedAt, l.askedFor = n.laneProbes, now, size
	l.tries++
	c.probe(p, l.keypair, l.way(ep), size+session.Overhead, l.asked, now)
}

// laneSaid does what a control message says that came on a lane from 1 on: there only probes and their answers go. The peer's
// lock is held.
func (c *control) laneSaid(p *peer, l *lane, said message.Message, now time.Duration) {
	kp, ep := l.keypair, p.endpoint.Load()
	switch m := said.(type) {
	case message.Probe:
		if ep != nil && kp.maySend(now) {
			if w := l.way(ep); w.lane != nil {
				c.tell(p, kp, w, 0, message.Probed(m), now)
			}
		}
	case message.Probed:
		if m.ID == 0 || m.ID != l.asked || l.moved.Load() {
			return
		}
		l.asked, l.tries, l.reached = 0, 0, true
		if limit := kp.native.limits().plaintext(); l.askedFor >= limit {
			l.proven = l.askedFor
			l.until.Store(int64(now + laneLifetime))
		}
	default:
		c.tunnel.drops.add(DropInControl, 1)
	}
}

// lanePorts are the ports that lanes leave from where this end began the session, one for each worker.
type lanePorts struct {
	sockets []transport.Socket
	numbers []uint16 // of the ports
}

// has reports whether one of them has that number.
func (p *lanePorts) has(port uint16) bool {
	return p != nil && slices.Contains(p.numbers, port)
}

func (p *lanePorts) close() {
	if p == nil {
		return
	}
	for _, s := range p.sockets {
		s.Close()
	}
}

// each calls f for each of them and returns the first error.
func (p *lanePorts) each(f func(transport.Socket) error) error {
	if p == nil {
		return nil
	}
	var errs []error
	for _, s := range p.sockets {
		errs = append(errs, f(s))
	}
	return errors.Join(errs...)
}

// openLanePorts opens them, or says why not, once.
func (c *control) openLanePorts(now time.Duration) {
	c.wantLanePorts = false
	if err := c.tunnel.openLanePorts(); err != nil && !errors.Is(err, ErrSuspended) {
		c.lanePortsAt = now + lanePortsRetry
		if !c.lanePortsTold {
			c.lanePortsTold = true
			c.tunnel.logf("%s: no ports for lanes, so that each peer's traffic goes through one socket: %v", c.tunnel.name(), err)
		}
	}
}

// openLanePorts opens a port for each worker's lanes, all or none, and starts what receives there.
func (t *Tunnel) openLanePorts() error {
	t.configuring.Lock()
	defer t.configuring.Unlock()
	return t.openPortsOfLanes()
}

// openPortsOfLanes is openLanePorts with configuration locked.
func (t *Tunnel) openPortsOfLanes() error {
	if t.closed || !t.isUp || t.lanePorts.Load() != nil {
		return nil
	}
	if t.suspending.Load() {
		return ErrSuspended
	}
	ports := &lanePorts{}
	for range t.workerCount() {
		s, err := t.network.Open(transport.Options{
			Mark: t.mark, DontFragment: t.dontFragment, Unwatched: true, WithoutStreams: true, Logf: t.options.Logf,
		})
		if err != nil {
			ports.close()
			return err
		}
		ports.sockets, ports.numbers = append(ports.sockets, s), append(ports.numbers, s.Port())
	}
	for worker, s := range ports.sockets {
		for _, r := range s.Receivers() {
			t.receive(r, worker, true)
		}
	}
	t.lanePorts.Store(ports)
	return nil
}

// receive runs the worker of a receiver. What that needs of memory is made as soon as there is something to receive.
func (t *Tunnel) receive(r transport.Receiver, worker int, lanes bool) {
	t.movers.Add(1)
	t.workers.Go(func() {
		defer t.movers.Done()
		var err error
		if idle, ok := r.(transport.IdleReceiver); ok {
			err = idle.Wait()
		}
		if err == nil {
			w := newInbound(t, r, worker)
			w.lanes = lanes
			w.pulse = t.pulses.add(fmt.Sprintf("a worker that receives from the network for queue %d", worker))
			err = w.run()
			t.pulses.remove(w.pulse)
		}
		if !errors.Is(err, net.ErrClosed) && !(t.suspending.Load() && errors.Is(err, os.ErrDeadlineExceeded)) {
			t.fail(fmt.Errorf("receiving from the network: %w", err))
		}
	})
}

// LaneStatus is one lane of a peer's session, and what lanes of that number have carried since the peer was added, in UDP
// payload bytes.
type LaneStatus struct {
	Number          int    `json:"number"`
	Open            bool   `json:"open"` // data goes on it; otherwise on lane 0
	Endpoint        string `json:"endpoint,omitempty"`
	SentBytes       uint64 `json:"sent_bytes"`
	ReceivedBytes   uint64 `json:"received_bytes"`
	SentPackets     uint64 `json:"sent_packets"`
	ReceivedPackets uint64 `json:"received_packets"`
}

// laneStatus lists the lanes of the current session, nil where it has one. What lane 0 has carried is what the others have not. The
// peer's lock is held.
func (p *peer) laneStatus(now time.Duration) []LaneStatus {
	kp := p.current.Load()
	if kp == nil || kp.lanes == nil {
		return nil
	}
	zero := LaneStatus{Open: true, SentBytes: p.sentBytes.Load(), ReceivedBytes: p.receivedBytes.Load(),
		SentPackets: p.sentPackets.Load(), ReceivedPackets: p.receivedPackets.Load()}
	if ep := p.endpoint.Load(); ep != nil {
		zero.Endpoint = ep.String()
	}
	all := []LaneStatus{zero}
	for i := range kp.native.traffic { // of earlier sessions with more lanes, too
		traffic := &kp.native.traffic[i]
		s := LaneStatus{Number: i + 1, SentBytes: traffic.sentBytes.Load(), ReceivedBytes: traffic.receivedBytes.Load(),
			SentPackets: traffic.sentPackets.Load(), ReceivedPackets: traffic.receivedPackets.Load()}
		all[0].SentBytes -= min(s.SentBytes, all[0].SentBytes)
		all[0].ReceivedBytes -= min(s.ReceivedBytes, all[0].ReceivedBytes)
		all[0].SentPackets -= min(s.SentPackets, all[0].SentPackets)
		all[0].ReceivedPackets -= min(s.ReceivedPackets, all[0].ReceivedPackets)
		if i >= len(kp.lanes) {
			continue
		}
		l := kp.lanes[i]
		s.Open = now < time.Duration(l.until.Load())
		if w := l.way(p.endpoint.Load()); w.lane != nil && w.endpoint != nil {
			s.Endpoint = w.endpoint.String()
		}
		all = append(all, s)
	}
	return all
}

// ownPort reports whether this tunnel sends from that port.
func (t *Tunnel) ownPort(port uint16) bool {
	return port == uint16(t.port.Load()) || t.lanePorts.Load().has(port)
}
