package server

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"culvert/crypto"
)

// Client is who has joined, or was added.
type Client struct {
	Name      string           `json:"name"`
	Key       crypto.PublicKey `json:"public_key"`
	Group     string           `json:"group,omitempty"` // that it was invited to
	WireGuard bool             `json:"wireguard,omitempty"`
	Addresses []netip.Addr     `json:"addresses"`
	Says      string           `json:"says,omitempty"` // what it calls itself
	Joined    time.Time        `json:"joined"`
	From      string           `json:"from,omitempty"` // the endpoint it joined from
	Seen      time.Time        `json:"seen,omitzero"`  // about: when it last began a session
}

// lease is an address that a name has, or had last.
type lease struct {
	Name  string    `json:"name"`
	Freed time.Time `json:"freed,omitzero"` // zero: the name has it
}

// Invitation is one that is open, or was used a moment ago.
type Invitation struct {
	Name    string           `json:"name"`
	Group   string           `json:"group,omitempty"`
	Key     crypto.PublicKey `json:"key"` // of its end
	Made    time.Time        `json:"made"`
	Expires time.Time        `json:"expires"`
	Used    time.Time        `json:"used,omitzero"`
	UsedBy  crypto.PublicKey `json:"used_by,omitzero"`

	psk crypto.PresharedKey
}

// open reports whether the invitation can be used.
func (i *Invitation) open(now time.Time) bool { return i.Used.IsZero() && now.Before(i.Expires) }

// answered reports whether its end gets any answer.
func (i *Invitation) answered(now time.Time) bool {
	return i.open(now) || !i.Used.IsZero() && now.Before(i.Used.Add(Linger))
}

// open is how many invitations can be used. There are as many at most that were used a moment ago.
func (st *state) open(now time.Time) (n int) {
	for _, i := range st.invitations {
		if i.open(now) {
			n++
		}
	}
	return n
}

// ends is when it stops to be.
func (i *Invitation) ends() time.Time {
	if i.Used.IsZero() {
		return i.Expires
	}
	return i.Used.Add(Linger)
}

// keptInvitation is how the store has an invitation: preshared keys hide themselves from JSON.
type keptInvitation struct {
	Invitation
	PSK string `json:"psk"`
}

func (i *Invitation) keep(tx Tx) error {
	return put(tx, invitationTable, keyText(i.Key), keptInvitation{*i, i.psk.Base64()})
}

// keyText is a public key as a key of a table.
func keyText(k crypto.PublicKey) string { return base64.RawURLEncoding.EncodeToString(k[:]) }

func put(tx Tx, table, key string, record any) error {
	b, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return tx.Put(table, key, b)
}

// state is what a store holds.
type state struct {
	clients     map[string]*Client          // by name; a client is replaced, and never changed
	names       map[crypto.PublicKey]string // of clients, by key
	leases      map[netip.Addr]lease
	invitations map[crypto.PublicKey]*Invitation
	factors     map[string]*factor // by name, of clients and of who is invited; a factor is replaced, and never changed
}

// load reads all of a store. What is not as this package writes it is an error that names it.
func load(s Store) (*state, error) {
	st := &state{make(map[string]*Client), make(map[crypto.PublicKey]string), make(map[netip.Addr]lease), make(map[crypto.PublicKey]*Invitation), make(map[string]*factor)}
	err := s.View(func(tx Tx) error {
		for table, one := range map[string]func(key string, value []byte) error{
			clientTable: st.readClient, leaseTable: st.readLease, invitationTable: st.readInvitation, factorTable: st.readFactor,
		} {
			if err := tx.Each(table, func(key string, value []byte) error {
				if err := one(key, value); err != nil {
					return fmt.Errorf("the store's record %s/%.64q is damaged: %w", table, key, err)
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return st, st.check()
}

func (st *state) readClient(key string, value []byte) error {
	var c Client
	if err := json.Unmarshal(value, &c); err != nil {
		return err
	}
	if c.Name != key || !ValidName(c.Name) || c.Key.IsLowOrder() || len(c.Addresses) > MaxAddresses || len(st.clients) == MaxClients {
		return ErrMalformed
	}
	st.clients[key] = &c
	return nil
}

func (st *state) readLease(key string, value []byte) error {
	a, err := netip.ParseAddr(key)
	if err != nil {
		return err
	}
	var l lease
	if err := json.Unmarshal(value, &l); err != nil {
		return err
	}
	if !ValidName(l.Name) || len(st.leases) == MaxLeases {
		return ErrMalformed
	}
	st.leases[a] = l
	return nil
}

func (st *state) readInvitation(key string, value []byte) error {
	var k keptInvitation
	if err := json.Unmarshal(value, &k); err != nil {
		return err
	}
	psk, err := crypto.ParsePresharedKey(k.PSK)
	if err != nil {
		return err
	}
	if keyText(k.Key) != key || !ValidName(k.Name) || psk.IsZero() || len(st.invitations) > 2*MaxInvitations {
		return ErrMalformed
	}
	k.psk = psk
	st.invitations[k.Key] = &k.Invitation
	return nil
}

// order is that in which clients get addresses anew: those first that have what is pinned to another.
func (st *state) order(as *assignment) []string {
	names := slices.Sorted(maps.Keys(st.clients))
	first := func(name string) int {
		if slices.ContainsFunc(st.clients[name].Addresses, func(a netip.Addr) bool {
			owner, pinned := as.pins[a]
			return pinned && owner != name
		}) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(names, func(a, b string) int { return first(a) - first(b) })
	return names
}

// check holds what the records say of each other, and notes whose keys are whose.
func (st *state) check() error {
	for name, c := range st.clients {
		if other, twice := st.names[c.Key]; twice {
			return fmt.Errorf("the store is damaged: the clients %s and %s have one key", name, other)
		}
		st.names[c.Key] = name
		for _, a := range c.Addresses {
			if l := st.leases[a]; l.Name != name || !l.Freed.IsZero() {
				return fmt.Errorf("the store is damaged: client %s has %v without a lease", name, a)
			}
		}
	}
	return nil
}
