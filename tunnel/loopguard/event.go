package loopguard

import (
	"fmt"
	"strings"
)

// EventKind is what happened.
type EventKind uint8

const (
	// Blocked: a loop was found, and from now on no frame may cross between the interface and the peers.
	Blocked EventKind = iota + 1
	// Released: the loop is gone, and frames cross again.
	Released
	// LocalLoop: the network at the interface brings frames back. No tunnel is part of the loop, and nothing is done about it.
	LocalLoop
)

// Event is a change that is worth telling.
type Event struct {
	Kind EventKind
	Node uint64 // the node's own id
	// Others are the nodes that make up the loop together with this one, in the order in which frames cross them, as far as they can
	// be believed. Only with Blocked.
	Others []uint64
}

// String gives a remark for the log.
func (e Event) String() string {
	switch e.Kind {
	case Blocked:
		var others strings.Builder
		for i, id := range e.Others {
			if i > 0 {
				others.WriteString(", ")
			}
			fmt.Fprintf(&others, "%016x", id)
		}
		return fmt.Sprintf("loop found: frames come back to node %016x by %s; it forwards none until the loop is gone", e.Node, &others)
	case Released:
		return fmt.Sprintf("loop gone: node %016x forwards frames again", e.Node)
	case LocalLoop:
		return fmt.Sprintf("loop in the network at the interface of node %016x, which no tunnel is part of", e.Node)
	}
	return fmt.Sprintf("event %d", e.Kind)
}

// maxEvents bounds the events that wait for [Guard.Event]; the oldest are dropped.
const maxEvents = 8

func (g *Guard) say(e Event) {
	e.Node = g.id
	if len(g.events) == maxEvents {
		g.events = append(g.events[:0], g.events[1:]...)
	}
	g.events = append(g.events, e)
}

// Event returns the next change that has not been told, ok false where there is none. Any other call may have made some.
func (g *Guard) Event() (e Event, ok bool) {
	if len(g.events) == 0 {
		return Event{}, false
	}
	e = g.events[0]
	g.events = append(g.events[:0], g.events[1:]...)
	return e, true
}
