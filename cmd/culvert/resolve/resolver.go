package resolve

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"culvert/crypto"
)

const (
	lookupTime = 10 * time.Second // for one lookup
	maxLookups = 8                // at once
)

// Options are what a Resolver works with. Lookup and Use are required.
type Options struct {
	// Lookup returns the addresses of a name, best first, as net.Resolver.LookupNetIP does for "ip".
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// Use makes an address the endpoint of a peer. It is called from one goroutine.
	Use func(key crypto.PublicKey, endpoint netip.AddrPort)
	// Logf receives a remark where a name does not resolve (once until it does) or the endpoint changes. May be nil.
	Logf func(format string, args ...any)
}

// Resolver runs the peers' machines. It is safe for concurrent use.
type Resolver struct {
	opt    Options
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // the loop and the lookups
	using  sync.Mutex     // held around calls of Use, so that Set can wait for the end of one; taken before mu

	mu    sync.Mutex
	peers map[crypto.PublicKey]*entry
	todo  []use         // for the loop, in order
	asked []lookup      // names to be looked up, in order
	busy  int           // goroutines that look names up, at most maxLookups
	kick  chan struct{} // there is something in todo, or an earlier deadline
}

// entry is a peer and what its log already said.
type entry struct {
	*peer
	complained bool
}

type lookup struct {
	key   crypto.PublicKey
	entry *entry
	host  string
}

type use struct {
	key   crypto.PublicKey
	entry *entry
	ap    netip.AddrPort
}

// New starts a Resolver without peers.
func New(opt Options) *Resolver {
	if opt.Logf == nil {
		opt.Logf = func(string, ...any) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Resolver{
		opt: opt, ctx: ctx, cancel: cancel,
		peers: make(map[crypto.PublicKey]*entry),
		kick:  make(chan struct{}, 1),
	}
	r.wg.Go(r.loop)
	return r
}

// Close ends the loop and all lookups, and waits for them. No Use is called afterwards.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.cancel() // under the lock, so that no lookup starts after it
	r.mu.Unlock()
	r.wg.Wait()
}

// Set replaces the set of peers. Peers whose targets did not change keep their state; of new and changed ones a literal
// first target must already be in use by the tunnel. Peers without targets are ignored. Once Set has returned, no Use
// follows for what was removed or changed; so a caller that changes a tunnel first calls Set with the peers that stay as they
// are. Set must not be called from Use.
func (r *Resolver) Set(peers map[crypto.PublicKey][]Target) {
	r.using.Lock()
	defer r.using.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, e := range r.peers {
		if !slices.Equal(peers[key], e.targets) {
			delete(r.peers, key)
		}
	}
	now := time.Now()
	for key, targets := range peers {
		if len(targets) == 0 || r.peers[key] != nil {
			continue
		}
		p, a := newPeer(slices.Clone(targets), now)
		e := &entry{peer: p}
		r.peers[key] = e
		r.do(key, e, a)
	}
}

// Failing is told that an initiation to the peer went unanswered. It does not block.
func (r *Resolver) Failing(key crypto.PublicKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.peers[key]; e != nil {
		r.do(key, e, e.failing(time.Now()))
	}
}

// do starts an action; r.mu is held.
func (r *Resolver) do(key crypto.PublicKey, e *entry, a action) {
	if a == (action{}) && e.state != waiting || r.ctx.Err() != nil {
		return
	}
	switch {
	case a.lookup != "":
		r.asked = append(r.asked, lookup{key, e, a.lookup})
		if r.busy < maxLookups {
			r.busy++
			r.wg.Go(r.lookups)
		}
	case a.use.IsValid():
		r.todo = append(r.todo, use{key, e, a.use})
	}
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// lookups looks names up until none is left. There are few of it however many peers there are.
func (r *Resolver) lookups() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.asked) > 0 && r.ctx.Err() == nil {
		next := r.asked[0]
		r.asked[0] = lookup{}
		r.asked = r.asked[1:]
		if r.peers[next.key] != next.entry {
			continue // removed or changed meanwhile
		}
		r.mu.Unlock()
		r.lookup(next.key, next.entry, next.host)
		r.mu.Lock()
	}
	r.busy--
	if len(r.asked) == 0 {
		r.asked = nil
	}
}

func (r *Resolver) lookup(key crypto.PublicKey, e *entry, host string) {
	ctx, cancel := context.WithTimeout(r.ctx, lookupTime)
	defer cancel()
	addrs, err := r.opt.Lookup(ctx, host)
	if r.ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers[key] != e {
		return // removed or changed meanwhile
	}
	if len(usable(addrs)) > 0 {
		e.complained = false
	} else if !e.complained {
		e.complained = true
		if err != nil {
			r.opt.Logf("cannot resolve the endpoint %s of peer %s, trying again: %v", host, key, err)
		} else {
			r.opt.Logf("the endpoint name %s of peer %s has no usable address, trying again", host, key)
		}
	}
	r.do(key, e, e.looked(addrs, err, time.Now()))
}

func (r *Resolver) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := r.turn()
		timer.Reset(next)
		select {
		case <-r.ctx.Done():
			return
		case <-r.kick:
		case <-timer.C:
		}
	}
}

// turn does what is due and returns how long there is nothing to do unless kicked.
func (r *Resolver) turn() time.Duration {
	r.using.Lock()
	defer r.using.Unlock()
	r.mu.Lock()
	now := time.Now()
	next := now.Add(time.Hour)
	for key, e := range r.peers {
		if d := e.deadline(); d.IsZero() {
			continue
		} else if d.After(now) {
			next = minTime(next, d)
		} else {
			r.do(key, e, e.tick(now))
		}
	}
	uses := r.todo
	r.todo = nil
	uses = slices.DeleteFunc(uses, func(u use) bool { return r.peers[u.key] != u.entry })
	r.mu.Unlock()
	for _, u := range uses {
		if r.ctx.Err() != nil {
			break
		}
		r.opt.Use(u.key, u.ap)
	}
	return next.Sub(now)
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
