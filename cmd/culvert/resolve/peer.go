package resolve

import (
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// A peer's states, with what leaves them:
//
//	resting   an endpoint is in use         → handshakes failing, holdTime after the last move: move
//	looking   a name is being looked up     → addresses: use the first, resting
//	                                        → none: move; when no target of the list led anywhere: waiting
//	waiting   nothing could be resolved     → backoff over (1 s, doubled up to 60 s): move
//
// "move" goes to the next address of the name in use, and after its last one to the next target of the list, around
// and around. Entering a target that is a name looks it up again, unless that was done less than relookTime ago; where
// the lookup fails the addresses of the last good one serve on.
const (
	holdTime   = 15 * time.Second // three unanswered initiations before an endpoint is left
	relookTime = 30 * time.Second
	minBackoff = time.Second
	maxBackoff = time.Minute
)

const maxAddresses = 16 // of one name, the rest is ignored

// Target is one configured endpoint of a peer.
type Target struct {
	Host string // a name, or an IP address without brackets, an IPv6 zone in it numeric
	Port uint16
}

// Literal returns the target's address where Host is one.
func (t Target) Literal() (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(t.Host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), t.Port), true
}

func (t Target) String() string {
	if ap, ok := t.Literal(); ok {
		return ap.String()
	}
	return t.Host + ":" + strconv.Itoa(int(t.Port))
}

type state uint8

const (
	resting state = iota
	looking
	waiting
)

// name is what is known about a target that is a name.
type name struct {
	addrs  []netip.Addr // of the last lookup that gave any
	looked time.Time    // when that was
}

// action is what the machine wants done.
type action struct {
	lookup string         // look this name up and report to looked
	use    netip.AddrPort // make this the peer's endpoint
}

// peer is one peer's machine. Its methods return at most one action.
type peer struct {
	targets []Target
	names   []name // parallel to targets
	state   state
	cur     int       // target in use
	addr    int       // index of the address in use within names[cur].addrs
	moved   time.Time // when the endpoint was last changed or tried to be
	tried   int       // targets entered in a row that led nowhere
	backoff time.Duration
	wake    time.Time // in waiting: when to move
	lastErr error     // of the last failed lookup, for the log
}

// newPeer makes the machine of a peer with at least one target. Where the first is a literal address the caller has
// already made it the peer's endpoint.
func newPeer(targets []Target, now time.Time) (*peer, action) {
	p := &peer{targets: targets, names: make([]name, len(targets)), backoff: minBackoff}
	p.moved = now
	if _, ok := targets[0].Literal(); ok {
		return p, action{}
	}
	return p, p.enter(0, now)
}

// failing is told that an initiation went unanswered.
func (p *peer) failing(now time.Time) action {
	if p.state != resting || now.Sub(p.moved) < holdTime {
		return action{}
	}
	return p.move(now)
}

// tick is called at the deadline.
func (p *peer) tick(now time.Time) action {
	if p.state != waiting || now.Before(p.wake) {
		return action{}
	}
	p.tried = 0
	return p.move(now)
}

// deadline is when tick is to be called; the zero Time for never.
func (p *peer) deadline() time.Time {
	if p.state == waiting {
		return p.wake
	}
	return time.Time{}
}

// looked reports a lookup's end.
func (p *peer) looked(addrs []netip.Addr, err error, now time.Time) action {
	if p.state != looking {
		return action{}
	}
	n := &p.names[p.cur]
	if addrs = usable(addrs); len(addrs) > 0 {
		n.addrs, n.looked = addrs, now
		return p.rest(0, now)
	}
	p.lastErr = err
	if len(n.addrs) > 0 {
		return p.rest(0, now) // stale addresses are better than none
	}
	p.tried++
	if p.tried < len(p.targets) {
		return p.enter((p.cur+1)%len(p.targets), now)
	}
	p.state = waiting
	p.wake = now.Add(p.backoff)
	p.backoff = min(2*p.backoff, maxBackoff)
	return action{}
}

// move goes on to the next address or target.
func (p *peer) move(now time.Time) action {
	if p.state == resting && p.addr+1 < len(p.names[p.cur].addrs) {
		return p.rest(p.addr+1, now)
	}
	return p.enter((p.cur+1)%len(p.targets), now)
}

// enter makes target i the one in use.
func (p *peer) enter(i int, now time.Time) action {
	p.cur, p.moved = i, now
	if _, ok := p.targets[i].Literal(); ok {
		return p.rest(0, now)
	}
	if n := &p.names[i]; len(n.addrs) > 0 && now.Sub(n.looked) < relookTime {
		return p.rest(0, now)
	}
	p.state = looking
	return action{lookup: p.targets[i].Host}
}

// rest uses address i of the current target.
func (p *peer) rest(i int, now time.Time) action {
	p.state, p.addr, p.moved = resting, i, now
	p.tried, p.backoff = 0, minBackoff
	t := p.targets[p.cur]
	if ap, ok := t.Literal(); ok {
		return action{use: ap}
	}
	return action{use: netip.AddrPortFrom(p.names[p.cur].addrs[i], t.Port)}
}

// usable drops what no datagram can be sent to, and what is beyond the bound.
func usable(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" || slices.Contains(out, a) {
			continue
		}
		if out = append(out, a); len(out) == maxAddresses {
			break
		}
	}
	return out
}
