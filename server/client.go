package server

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"culvert/crypto"
)

// add gives a client addresses and keeps it, in one transaction with what else is to be kept. The lock is held.
func (sv *Server) add(c *Client, now time.Time, also func(Tx) error) error {
	if err := sv.freeKey(c.Key); err != nil {
		return err
	}
	var err error
	if c.Addresses, err = sv.state.assign(sv.config.assignment(), c.Name); err != nil {
		return err
	}
	var leases map[netip.Addr]lease
	if err := sv.store.Update(func(tx Tx) (err error) {
		if leases, err = sv.state.hold(tx, c.Name, c.Addresses, now); err != nil {
			return err
		}
		if err := put(tx, clientTable, c.Name, c); err != nil {
			return err
		}
		return also(tx)
	}); err != nil {
		return err
	}
	sv.state.took(leases)
	sv.state.clients[c.Name], sv.state.names[c.Key] = c, c.Name
	return nil
}

// Add makes a client of a key without an invitation. With wireGuard it is on that wire, where nothing can be pushed to it.
func (sv *Server) Add(name, group string, key crypto.PublicKey, wireGuard bool, now time.Time) (Client, error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if err := sv.admit(name, group); err != nil {
		return Client{}, err
	}
	if err := sv.config.admits(sv.config.group(name, group), wireGuard); err != nil {
		return Client{}, err
	}
	c := &Client{Name: name, Key: key, Group: group, WireGuard: wireGuard, Joined: now}
	if err := sv.add(c, now, sv.withdraw(name)); err != nil {
		return Client{}, err
	}
	sv.forgetInvitations(name)
	sv.note(now, Event{Event: EventAdded, Client: name, Group: group, Key: key, Addresses: c.Addresses})
	return *c, nil
}

// Revoke makes a name nobody's: it is no client any more, and its invitations are good for nothing. Its addresses stay with the name
// until somebody else needs them. ErrNoClient where there was neither.
func (sv *Server) Revoke(name string, now time.Time) error {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.state.clients[name]
	invited := false
	for _, i := range sv.state.invitations {
		invited = invited || i.Name == name
	}
	if c == nil && !invited {
		return fmt.Errorf("%w: %s", ErrNoClient, name)
	}
	var leases map[netip.Addr]lease
	if err := sv.store.Update(func(tx Tx) (err error) {
		if leases, err = sv.state.hold(tx, name, nil, now); err != nil {
			return err
		}
		if err := tx.Delete(clientTable, name); err != nil {
			return err
		}
		if err := tx.Delete(factorTable, name); err != nil {
			return err
		}
		return sv.withdraw(name)(tx)
	}); err != nil {
		return err
	}
	sv.state.took(leases)
	sv.forgetInvitations(name)
	delete(sv.state.clients, name)
	delete(sv.state.factors, name)
	delete(sv.seen, name)
	e := Event{Event: EventRevoked, Client: name}
	if c != nil {
		delete(sv.state.names, c.Key)
		e.Key, e.Addresses = c.Key, c.Addresses
	}
	sv.note(now, e)
	return nil
}

// Connected notes that a client has begun a session; of one that moves all the time, not each. The store is told now and then.
func (sv *Server) Connected(key crypto.PublicKey, from netip.AddrPort, now time.Time) error {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.client(key)
	if c == nil {
		return nil
	}
	if last, ok := sv.seen[c.Name]; !ok || last.from != from && now.Sub(last.at) >= noteEvery {
		sv.seen[c.Name] = seenAt{from, now}
		sv.note(now, Event{Event: EventConnected, Client: c.Name, Key: key, From: addrText(from), Addresses: c.Addresses})
	}
	if now.Sub(c.Seen) < seenEvery {
		return nil
	}
	again := *c
	again.Seen = now
	sv.state.clients[c.Name] = &again
	return sv.store.Update(func(tx Tx) error { return put(tx, clientTable, again.Name, again) })
}

// Whereabouts is where a client is that is connected.
type Whereabouts struct {
	Client string         `cbor:"1,keyasint"`
	From   netip.AddrPort `cbor:"2,keyasint"`
	At     time.Time      `cbor:"3,keyasint"` // when that was noted
}

// Whereabouts returns where connected clients are, for [Server.Resume] in another process.
func (sv *Server) Whereabouts() (list []Whereabouts) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for name, s := range sv.seen {
		list = append(list, Whereabouts{name, s.from, s.at})
	}
	return list
}

// Resume takes where clients were when another process stopped: of those that are still there it is no news.
func (sv *Server) Resume(list []Whereabouts) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for _, w := range list {
		if sv.state.clients[w.Client] != nil {
			sv.seen[w.Client] = seenAt{w.From, w.At}
		}
	}
}

// client is that with a key; nil where there is none. The lock is held.
func (sv *Server) client(key crypto.PublicKey) *Client {
	name, ok := sv.state.names[key]
	if !ok {
		return nil
	}
	return sv.state.clients[name]
}

// Document is what the client with a key is to be told; false where there is no such client, or it is on WireGuard's wire.
func (sv *Server) Document(key crypto.PublicKey) (Document, bool) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.client(key)
	if c == nil || c.WireGuard {
		return Document{}, false
	}
	return sv.documentOf(c), true
}

// DocumentOf is what the client of a name would be told.
func (sv *Server) DocumentOf(name string) (Document, bool) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	c := sv.state.clients[name]
	if c == nil {
		return Document{}, false
	}
	return sv.documentOf(c), true
}

func (sv *Server) documentOf(c *Client) Document {
	var addresses []netip.Prefix
	for _, a := range c.Addresses {
		addresses = append(addresses, sv.config.withLength(a))
	}
	return document(sv.config.settings(c.Name, c.Group), addresses)
}

// Clients are all clients in order of names, with the group that counts.
func (sv *Server) Clients() (list []Client) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(sv.state.clients)) {
		c := *sv.state.clients[name]
		c.Group = sv.config.group(name, c.Group)
		list = append(list, c)
	}
	return list
}
