package top

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"culvert/control"
)

// row is a peer as the list shows it.
type row struct {
	id     peerID
	in     *control.Instance
	tunnel *control.Tunnel
	peer   *control.Peer
	track  *peerTrack
	since  time.Duration // since the latest handshake; negative: there was none
	silent time.Duration // since it was heard; negative: it never was
}

// state says whether a peer is reached.
type state int

const (
	idle    state = iota // no session, and nobody wants one
	reached              // there is a session
	trying               // handshakes have no answer
)

func (r *row) state() state {
	switch {
	case r.peer.Silent():
		return trying
	case r.peer.Connected:
		return reached
	}
	return idle
}

// lastHeard is when anything last came in from a peer. A daemon of an older program tells of handshakes alone.
func lastHeard(p *control.Peer) time.Time {
	if p.LastHeard.After(p.LatestHandshake) {
		return p.LastHeard
	}
	return p.LatestHandshake
}

// name is what people call the peer: as its file does, or by the beginning of its key.
func (r *row) name() string {
	if r.peer.Name != "" {
		return r.peer.Name
	}
	return r.peer.PublicKey.Base64()
}

// order is what peers are sorted by.
type order int

const (
	byRate order = iota
	byName
	byTunnel
	bySeen
	byRTT
	byLoss
	byIn
	byOut
	byTotal
	orders
)

var orderNames = [orders]string{"rate", "name", "tunnel", "last heard", "round trip", "loss", "in", "out", "total"}

// compare is the order's, with what matters most first.
func (o order) compare(a, b *row) int {
	rtt := func(r *row) float64 {
		if r.peer.Native == nil {
			return 0
		}
		return r.peer.Native.RTT
	}
	loss := func(r *row) float64 {
		if r.peer.Native == nil || r.peer.Native.Loss == nil {
			return -1
		}
		return *r.peer.Native.Loss
	}
	c := 0
	switch o {
	case byRate:
		c = cmp.Compare(b.track.smoothed, a.track.smoothed)
	case byTunnel:
		c = cmp.Or(cmp.Compare(a.id.tunnel, b.id.tunnel), cmp.Compare(a.id.instance, b.id.instance))
	case bySeen:
		c = lastHeard(b.peer).Compare(lastHeard(a.peer))
	case byRTT:
		c = cmp.Compare(rtt(b), rtt(a))
	case byLoss:
		c = cmp.Compare(loss(b), loss(a))
	case byIn:
		c = cmp.Compare(b.track.smoothIn, a.track.smoothIn)
	case byOut:
		c = cmp.Compare(b.track.smoothO, a.track.smoothO)
	case byTotal:
		c = cmp.Compare(b.peer.ReceivedBytes+b.peer.SentBytes, a.peer.ReceivedBytes+a.peer.SentBytes)
	}
	return c
}

// sortRows sorts by o, and what is alike in it by name.
func sortRows(rows []row, o order, reverse bool) {
	slices.SortFunc(rows, func(a, b row) int {
		c := o.compare(&a, &b)
		if o == byName {
			c = byNames(&a, &b)
		}
		if reverse {
			c = -c
		}
		if c == 0 {
			c = byNames(&a, &b)
		}
		return c
	})
}

// byNames is a total order.
func byNames(a, b *row) int {
	if (a.peer.Name == "") != (b.peer.Name == "") { // those without a name come last
		return cmp.Compare(b.peer.Name, a.peer.Name)
	}
	return cmp.Or(
		cmp.Compare(a.peer.Name, b.peer.Name), cmp.Compare(a.id.tunnel, b.id.tunnel), cmp.Compare(a.id.instance, b.id.instance),
		a.id.key.Compare(b.id.key))
}

// which says what peers are shown, whatever they are called.
type which int

const (
	everyone which = iota
	inContact
	inTrouble
	whiches
)

var whichNames = [whiches]string{"all", "in contact", "in trouble"}

// lossTrouble is from where on a loss is trouble.
const lossTrouble = 0.02

func (w which) has(r *row) bool {
	switch w {
	case inContact:
		return r.state() == reached
	case inTrouble:
		n := r.peer.Native
		return r.state() == trying || n != nil && n.Loss != nil && *n.Loss >= lossTrouble || r.peer.Access != nil && r.peer.Access.Closed != ""
	}
	return true
}

// matches reports whether all words of a filter, in small letters, occur in what is known of the peer.
func (r *row) matches(words []string) bool {
	if len(words) == 0 {
		return true
	}
	var b strings.Builder
	for _, part := range []string{r.peer.Name, r.peer.PublicKey.Base64(), r.id.tunnel, r.id.instance, r.peer.Endpoint, r.peer.Wire} {
		b.WriteString(part)
		b.WriteByte('\n')
	}
	for _, a := range r.peer.AllowedIPs {
		b.WriteString(a.String())
		b.WriteByte('\n')
	}
	text := strings.ToLower(b.String())
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
