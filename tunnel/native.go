package tunnel

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/exchange"
	"culvert/tunnel/latency"
	"culvert/tunnel/message"
	"culvert/tunnel/pathmtu"
	"culvert/tunnel/payload"
)

// This file is what a peer on the native wire has besides: control messages, and what they are for.

const (
	// maintainEvery is how often the control loop looks at a peer while data flows.
	maintainEvery = time.Second

	// Control messages taken from one peer: one in controlInterval, and controlBurst at once.
	controlInterval = 10 * time.Millisecond
	controlBurst    = 32
	// controlQueue bounds the control messages that wait, of at most message.MaxSize each.
	controlQueue = 256
)

// native is the state of a peer's control messages. The datapath uses the atomics; the peer's lock guards the rest.
type native struct {
	found     atomic.Uint32 // what is known of the path, as pathLimits
	large     atomic.Bool   // something longer than any path takes was sent since the last visit
	tooBig    atomic.Int32  // size of a message that the kernel refused as too large since the last visit, 0: none
	moved     atomic.Bool   // the peer's address changed since the last visit
	askAfter  atomic.Int64  // how long the echo that is sent for that waits, since many peers are asked
	fragments atomic.Uint32 // id of the last packet sent in fragments
	maintain  atomic.Int64  // when to look at the peer because data flows, 0: it does not
	allowance atomic.Int64  // when the peer will have sent no more control messages than it may (a token bucket)

	layerTold bool          // that the far end's device carries something else
	spokeTold bool          // that each end has the other as a spoke
	begun     bool          // there has been a session
	movedAt   time.Duration // when what a change of address brings was last sent, 0: never
	waits     bool          // to be sent again, until moveEvery has passed since
	unproven  bool          // nothing says yet that the peer receives where it is now
	hello     message.Hello
	greeted   uint64 // serial number of the last session under which it said hello
	sender    exchange.Sender
	receiver  exchange.Receiver
	latency   latency.Meter
	search    *pathmtu.Search
	stream    atomic.Bool // the peer is reached over one, which takes all there is
	largest   int         // size of the longest message of use
	session   *keypair    // that the sender and the prober speak under
	pushing   bool        // documents wait to be acknowledged
	sessions  uint64      // made so far

	traffic    *[noise.MaxLanes - 1]laneTraffic // of lanes from 1 on; nil before the first session that has any
	lanesUntil time.Duration                    // until when lanes are asked whether they arrive
	laneProbes uint64                           // sent so far

	lanesAskedAt time.Duration // when lanesAsked probes were sent last
	lanesAsked   int
}

func newNative(t *Tunnel) *native {
	n := &native{search: pathmtu.New(t.largestDatagram()), largest: t.largestDatagram()}
	n.learn()
	return n
}

// largestDatagram is what the largest packet from the device becomes, in bytes of UDP payload.
func (t *Tunnel) largestDatagram() int {
	return t.largestContent() + payload.TrailerSize + session.Overhead
}

// known makes a new session known, under which messages may come in from now on, and returns its serial number.
func (n *native) known() uint64 {
	n.sessions++
	n.receiver.Restart(n.sessions)
	return n.sessions
}

// learn publishes to the datapath what the search for the path's MTU has found.
func (n *native) learn() {
	if n.stream.Load() {
		n.found.Store(uint32(limitsOf(n.streamSize()-session.Overhead, true)))
		return
	}
	n.found.Store(uint32(limitsOf(n.search.Size()-session.Overhead, n.search.Settled())))
}

// pathLimits are what the datapath has to know of the path, in one word so that both parts are of one time.
type pathLimits uint32

const pathSettled = 1 << 31

func limitsOf(plaintext int, settled bool) pathLimits {
	l := pathLimits(plaintext)
	if settled {
		l |= pathSettled
	}
	return l
}

// limits returns what is known of the path now.
func (n *native) limits() pathLimits { return pathLimits(n.found.Load()) }

// plaintext is the longest plaintext of a message that the path is known to take, in bytes.
func (l pathLimits) plaintext() int { return int(l &^ pathSettled) }

// packet is the longest packet that needs no fragments, in bytes.
func (l pathLimits) packet() int { return l.plaintext() - payload.TrailerSize }

// settled reports whether the search for more is over.
func (l pathLimits) settled() bool { return l&pathSettled != 0 }

// noteSize notes the size of a content sent. From the largest that every path takes, larger ones would be of use: an inner TCP
// that was told to send no more than that sends nothing beyond it.
func (n *native) noteSize(size int) {
	if size >= pathmtu.Base-session.Overhead-payload.TrailerSize && !n.large.Load() {
		n.large.Store(true)
	}
}

// dataTraversed notes that data was sent or received, and returns when the control loop should look at the peer, or 0.
func (n *native) dataTraversed(now time.Duration) time.Duration {
	return arm(&n.maintain, now+maintainEvery)
}

// admitRemark reports whether the peer's mutual spokes have not been remarked on before: it says so as often as it likes.
func (n *native) admitRemark() bool {
	told := n.spokeTold
	n.spokeTold = true
	return !told
}

// admitControl takes a token of the peer's bucket.
func (n *native) admitControl(now time.Duration) bool {
	for {
		was := n.allowance.Load()
		full := max(time.Duration(was), now) + controlInterval
		if full-now > controlBurst*controlInterval {
			return false
		}
		if n.allowance.CompareAndSwap(was, int64(full)) {
			return true
		}
	}
}

// controlMessage is a control message that was copied off the datapath.
type controlMessage struct {
	keypair *keypair
	lane    *lane // that it came on, nil: lane 0
	content []byte
	path    transport.Endpoint // where a probe of another path, or its answer, came from; the zero Endpoint with any other
}

// queueControl hands a control message to the control loop.
func (t *Tunnel) queueControl(kp *keypair, on *lane, content []byte, path transport.Endpoint, now time.Duration) {
	if !kp.native.admitControl(now) {
		t.drops.add(DropInControlRate, 1)
		return
	}
	// What is behind the message of a probe is of no more use; what is too long otherwise is malformed here too.
	m := controlMessage{keypair: kp, lane: on, path: path, content: append([]byte(nil), content[:min(len(content), message.MaxSize)]...)}
	select {
	case t.controls <- m:
	default:
		t.drops.add(DropInControlRate, 1)
	}
}

// Push sends a document to a peer on the native wire, reliably and in order with others, under the current session or the
// next, which it asks for. Errors: ErrNoPeer; ErrClosed; exchange.ErrFull where too much waits; what message.Encode refuses.
func (t *Tunnel) Push(to crypto.PublicKey, subject string, document []byte) error {
	select {
	case <-t.closing:
		return ErrClosed
	default:
	}
	p := t.lookupPeer(to)
	if p == nil {
		return fmt.Errorf("%w: %s", ErrNoPeer, to)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.native.Load()
	if n == nil || p.removed {
		return fmt.Errorf("%w: %s is not on the native wire", ErrNoPeer, to)
	}
	if err := n.sender.Queue(message.Push{Subject: subject, Document: append([]byte(nil), document...)}, t.clock.now()); err != nil {
		return err
	}
	n.pushing = true
	if !p.current.Load().maySend(t.clock.now()) {
		p.wantHandshake.Store(true)
	}
	t.attention.add(p)
	return nil
}

// ErrNoPeer is returned for a peer that does not exist, or that cannot do what is asked.
var ErrNoPeer = errors.New("no such peer")
