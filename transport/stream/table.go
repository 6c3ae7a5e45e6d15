package stream

import (
	"net/netip"
	"sync"
	"time"

	"culvert/transport"
)

const (
	// maxUnused bounds the connections that nobody uses, all together: those whose far end is not known yet, and those that were
	// left. One more takes the place of the oldest.
	maxUnused = 256
	// maxOfAddress bounds them for each IPv4 address and each IPv6 /64. One more is refused.
	maxOfAddress = 16

	// In seconds.
	silentTime = 10  // until a connection that another end has opened must be in use
	unusedTime = 30  // until one that was left is closed
	idleTime   = 300 // until one is closed over which nothing comes: a far end that uses it sends keepalives
	stuckTime  = 30  // until one is closed that takes nothing
)

// table knows a socket's connections, and watches over them.
type table struct {
	socket *socket

	mu        sync.Mutex
	closed    bool
	all       map[uint32]*conn
	unused    map[*conn]struct{}
	ofAddress map[netip.Prefix]int // unused ones that others have opened
	watching  bool
	made      uint64 // connections made so far
}

func newTable(s *socket) *table {
	return &table{socket: s, all: make(map[uint32]*conn), unused: make(map[*conn]struct{}), ofAddress: make(map[netip.Prefix]int)}
}

// addressOf is what counts as one address: an IPv4 address, an IPv6 /64.
func addressOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// add takes a connection up, which gets its number from the network. It reports false where the connection is to be
// closed instead.
func (t *table) add(c *conn) bool {
	var oldest *conn
	t.mu.Lock()
	switch {
	case t.closed:
		t.mu.Unlock()
		return false
	case !c.dialled && t.ofAddress[c.from] >= maxOfAddress:
		t.mu.Unlock()
		t.socket.streams.refused.Add(1)
		return false
	}
	if len(t.unused) >= maxUnused {
		for u := range t.unused {
			if oldest == nil || u.age > oldest.age || u.age == oldest.age && u.made < oldest.made {
				oldest = u
			}
		}
	}
	t.made++
	c.made = t.made
	t.all[c.endpoint.Stream] = c
	t.shelve(c)
	if !t.watching {
		t.watching = true
		t.socket.work.Go(t.watch)
	}
	t.mu.Unlock()
	if oldest != nil {
		t.socket.streams.evicted.Add(1)
		oldest.end(errEvicted)
	}
	return true
}

// shelve counts c among the unused. The lock is held.
func (t *table) shelve(c *conn) {
	c.age = 0
	t.unused[c] = struct{}{}
	if !c.dialled {
		t.ofAddress[c.from]++
	}
}

// unshelve does not any more. The lock is held.
func (t *table) unshelve(c *conn) {
	if _, ok := t.unused[c]; !ok {
		return
	}
	delete(t.unused, c)
	if c.dialled {
		return
	}
	if t.ofAddress[c.from]--; t.ofAddress[c.from] == 0 {
		delete(t.ofAddress, c.from)
	}
}

// remove forgets a connection that has ended.
func (t *table) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, c.endpoint.Stream)
	t.unshelve(c)
}

// find returns the stream of that number, or nil.
func (t *table) find(number uint32) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[number]
}

// inUse notes one user more, or less.
func (t *table) inUse(number uint32, used bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.all[number]
	switch {
	case c == nil:
	case used:
		if c.users++; c.users == 1 {
			t.unshelve(c)
			c.idle = 0
		}
		if !c.everUsed {
			c.everUsed = true
			close(c.used)
		}
	case c.users > 0:
		if c.users--; c.users == 0 {
			t.shelve(c)
		}
	}
}

// watch looks at all connections once a second, as long as there are any.
func (t *table) watch() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	type victim struct {
		*conn
		why error
	}
	var victims []victim
	for {
		select {
		case <-t.socket.closed:
			return
		case <-ticker.C:
		}
		t.mu.Lock()
		if len(t.all) == 0 {
			t.watching = false
			t.mu.Unlock()
			return
		}
		for _, c := range t.all {
			if why := c.second(); why != nil {
				victims = append(victims, victim{c, why})
			}
		}
		t.mu.Unlock()
		for i, v := range victims {
			if v.why == errStuck {
				t.socket.streams.stuck.Add(1)
			} else if v.why != errUnused {
				t.socket.streams.silent.Add(1)
			}
			v.end(v.why)
			victims[i] = victim{}
		}
		victims = victims[:0]
	}
}

// second is called once a second and returns why the connection is to be closed, or nil. The table's lock is held.
func (c *conn) second() error {
	if c.users == 0 {
		if c.age++; !c.everUsed && c.age > silentTime {
			return errSilent
		} else if c.age > unusedTime {
			return errUnused
		}
	}
	if n := c.received.Load(); n != c.seen {
		c.seen, c.idle = n, 0
	} else if c.idle++; c.idle > idleTime {
		return errIdle
	}
	if n := c.written.Load(); n != c.passed || !c.writing.Load() {
		c.passed, c.stuck = n, 0
	} else if c.stuck++; c.stuck > stuckTime {
		return errStuck
	}
	return nil
}

// drainTime is how long what was put into queues may take to leave them when a socket is closed.
const drainTime = 200 * time.Millisecond

// drain waits for the queues of streams in use: what was sent last is often a goodbye.
func (t *table) drain() {
	for range drainTime / (5 * time.Millisecond) {
		busy := false
		t.each(func(c *conn) { busy = busy || c.users > 0 && c.ready.Load() && (c.writing.Load() || !c.queue.empty()) })
		if !busy {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// close ends all connections; none is taken up any more.
func (t *table) close() {
	t.mu.Lock()
	t.closed = true
	all := make([]*conn, 0, len(t.all))
	for _, c := range t.all {
		all = append(all, c)
	}
	t.mu.Unlock()
	for _, c := range all {
		c.end(errClosed)
	}
}

// closeAccepted ends the connections that others have opened.
func (t *table) closeAccepted() {
	t.mu.Lock()
	var accepted []*conn
	for _, c := range t.all {
		if !c.dialled {
			accepted = append(accepted, c)
		}
	}
	t.mu.Unlock()
	for _, c := range accepted {
		c.end(errClosed)
	}
}

// each calls f for all connections there are.
func (t *table) each(f func(*conn)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.all {
		f(c)
	}
}

// sourceGone ends the stream of an endpoint whose local address the host has no more, or from which another way leads to
// the far end: what the kernel would send from it goes nowhere.
func (t *table) sourceGone(e transport.Endpoint, valid func(transport.Endpoint) bool) {
	c := t.find(e.Stream)
	if c != nil && !valid(transport.Endpoint{Remote: e.Remote, Source: c.local}) {
		c.end(errMoved)
	}
}
