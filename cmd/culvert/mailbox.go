package main

import (
	"net/netip"
	"sync"

	"culvert/crypto"
)

// roleMail is something that was pushed here, or the greeting of a session where it has no subject.
type roleMail struct {
	peer     crypto.PublicKey
	from     netip.AddrPort
	subject  string
	document []byte
}

// mailbox holds what peers have said until it is worked off: of each peer the latest of each subject, so that one that says much takes
// nothing from the others. A server has some hundred bytes of each client at most, a client one document of each peer.
type mailbox struct {
	ready chan struct{} // has a value where there is mail

	mu      sync.Mutex
	waiting map[mailKey]int // places in order
	order   []roleMail
}

type mailKey struct {
	peer    crypto.PublicKey
	subject string
}

func newMailbox() *mailbox {
	return &mailbox{ready: make(chan struct{}, 1), waiting: make(map[mailKey]int)}
}

// post never waits for whoever works off.
func (b *mailbox) post(m roleMail) {
	b.mu.Lock()
	key := mailKey{m.peer, m.subject}
	if i, ok := b.waiting[key]; ok {
		b.order[i] = m
	} else {
		b.waiting[key] = len(b.order)
		b.order = append(b.order, m)
	}
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take returns all that waits, in the order in which it came first.
func (b *mailbox) take() []roleMail {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.order
	b.order = nil
	clear(b.waiting)
	return list
}
