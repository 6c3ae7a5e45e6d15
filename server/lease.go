package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ErrPoolEmpty means that all addresses of a family are in use.
var ErrPoolEmpty = errors.New("no address of the pool is left")

// A name keeps its addresses for as long as it is a client's, and afterwards until somebody else needs them: new clients get addresses
// that nobody has had, the lowest first, and only where there are none left, the one whose client has been gone for longest.

// assignment is what addresses are chosen by.
type assignment struct {
	config *Config
	pool   pool
	pins   map[netip.Addr]string // whose each is
}

func (c *Config) assignment() *assignment {
	as := &assignment{c, c.pool(), make(map[netip.Addr]string)}
	for name, conf := range c.Clients {
		for _, a := range conf.Addresses {
			as.pins[a] = name
		}
	}
	return as
}

// free reports whether an address can be leased to a name.
func (as *assignment) free(a netip.Addr, name string) bool {
	owner, pinned := as.pins[a]
	return (!pinned || owner == name) && as.pool.has(a)
}

// assign chooses the addresses of a name: its pins; of each family that it has no pin of and the pool has addresses of, one that it
// has or had, or a free one. It changes nothing.
func (st *state) assign(as *assignment, name string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, a := range as.config.Clients[name].Addresses {
		if l, ok := st.leases[a]; ok && l.Freed.IsZero() && l.Name != name {
			return nil, fmt.Errorf("%v is the client %s's", a, l.Name)
		}
		out = append(out, a)
	}
	for _, four := range as.pool.families() {
		if slices.ContainsFunc(out, func(a netip.Addr) bool { return a.Is4() == four }) {
			continue
		}
		a, ok := st.has(as, name, four)
		if !ok {
			a, ok = st.had(as, name, four)
		}
		if !ok {
			a, ok = as.pool.free(four, func(a netip.Addr) bool {
				_, known := st.leases[a]
				return known || !as.free(a, name)
			})
		}
		if !ok {
			a, ok = st.longestFreed(as, name, four)
		}
		if !ok {
			return nil, fmt.Errorf("%w: %s", ErrPoolEmpty, map[bool]string{true: "IPv4", false: "IPv6"}[four])
		}
		out = append(out, a)
	}
	return out, nil
}

// has is the address of a family that a client has.
func (st *state) has(as *assignment, name string, four bool) (netip.Addr, bool) {
	c := st.clients[name]
	if c == nil {
		return netip.Addr{}, false
	}
	i := slices.IndexFunc(c.Addresses, func(a netip.Addr) bool { return a.Is4() == four && as.free(a, name) })
	if i < 0 {
		return netip.Addr{}, false
	}
	return c.Addresses[i], true
}

// had is the address that a name had last.
func (st *state) had(as *assignment, name string, four bool) (best netip.Addr, ok bool) {
	var freed time.Time
	for a, l := range st.leases {
		if l.Name != name || l.Freed.IsZero() || a.Is4() != four || !as.free(a, name) {
			continue
		}
		if !ok || l.Freed.After(freed) || l.Freed.Equal(freed) && a.Less(best) {
			best, freed, ok = a, l.Freed, true
		}
	}
	return best, ok
}

// longestFreed is the address whose client has been gone for longest.
func (st *state) longestFreed(as *assignment, name string, four bool) (best netip.Addr, ok bool) {
	var freed time.Time
	for a, l := range st.leases {
		if l.Freed.IsZero() || a.Is4() != four || !as.free(a, name) {
			continue
		}
		if !ok || l.Freed.Before(freed) || l.Freed.Equal(freed) && a.Less(best) {
			best, freed, ok = a, l.Freed, true
		}
	}
	return best, ok
}

// hold makes addresses the leases of a name, and frees what else it has.
func (st *state) hold(tx Tx, name string, addresses []netip.Addr, now time.Time) (map[netip.Addr]lease, error) {
	changed := map[netip.Addr]lease{}
	for a, l := range st.leases {
		if l.Name == name && l.Freed.IsZero() && !slices.Contains(addresses, a) {
			changed[a] = lease{name, now}
		}
	}
	for _, a := range addresses {
		if st.leases[a] != (lease{Name: name}) {
			changed[a] = lease{Name: name}
		}
	}
	for a, l := range changed {
		if err := put(tx, leaseTable, a.String(), l); err != nil {
			return nil, err
		}
	}
	fresh := 0
	for a := range changed {
		if _, known := st.leases[a]; !known {
			fresh++
		}
	}
	for range len(st.leases) + fresh - MaxLeases { // forgets who has been gone for longest
		var oldest netip.Addr
		for a, l := range st.leases {
			if _, now := changed[a]; !now && !l.Freed.IsZero() && (!oldest.IsValid() || l.Freed.Before(st.leases[oldest].Freed)) {
				oldest = a
			}
		}
		if !oldest.IsValid() {
			return nil, ErrPoolEmpty
		}
		if err := tx.Delete(leaseTable, oldest.String()); err != nil {
			return nil, err
		}
		changed[oldest] = lease{}
	}
	return changed, nil
}

// took makes changes of leases, which are in the store, those of the state.
func (st *state) took(changed map[netip.Addr]lease) {
	for a, l := range changed {
		if l == (lease{}) {
			delete(st.leases, a)
		} else {
			st.leases[a] = l
		}
	}
}
