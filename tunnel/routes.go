package tunnel

import (
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// routes is the crypto-routing table: allowed IPs to peers, longest prefix first (WireGuard paper §2). The datapath reads an
// immutable table; changes are made to a copy and published as a whole. Changes are serialised by the tunnel's
// configuration lock.
type routes struct {
	table atomic.Pointer[bart.Table[*peer]]
}

func newRoutes() *routes {
	r := &routes{}
	r.table.Store(new(bart.Table[*peer]))
	return r
}

// snapshot returns the table as it is now; it never changes.
func (r *routes) snapshot() *bart.Table[*peer] { return r.table.Load() }

// cloneThreshold is the number of prefixes from which copying the whole table once is cheaper than a path per prefix.
const cloneThreshold = 64

// routeEdit collects changes and publishes them at once.
type routeEdit struct {
	routes *routes
	table  *bart.Table[*peer]
	own    bool // table is a private copy and may be changed in place
}

// edit begins a change of about n prefixes.
func (r *routes) edit(n int) *routeEdit {
	e := &routeEdit{routes: r, table: r.snapshot()}
	if n >= cloneThreshold {
		e.table, e.own = e.table.Clone(), true
	}
	return e
}

// assign gives prefix to p, taking it from whichever peer had it.
func (e *routeEdit) assign(prefix netip.Prefix, p *peer) {
	prefix = prefix.Masked()
	if old, ok := e.table.Get(prefix); ok {
		if old == p {
			return
		}
		old.allowed.remove(prefix)
	}
	p.allowed.add(prefix)
	if e.own {
		e.table.Insert(prefix, p)
	} else {
		e.table = e.table.InsertPersist(prefix, p)
	}
}

// remove takes prefix from p, if p has it.
func (e *routeEdit) remove(prefix netip.Prefix, p *peer) {
	prefix = prefix.Masked()
	if !p.allowed.has(prefix) {
		return
	}
	p.allowed.remove(prefix)
	if e.own {
		e.table.Delete(prefix)
	} else {
		e.table = e.table.DeletePersist(prefix)
	}
}

// removeAll takes all of p's prefixes.
func (e *routeEdit) removeAll(p *peer) {
	if p.allowed.size() >= cloneThreshold && !e.own {
		e.table, e.own = e.table.Clone(), true
	}
	for prefix := range p.allowed.all() {
		e.remove(prefix, p)
	}
}

// publish makes the changes visible to the datapath.
func (e *routeEdit) publish() {
	e.routes.table.Store(e.table)
	e.own = false
}
