package server

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Errors of what an administrator asks for.
var (
	ErrNoClient   = errors.New("there is no such client")
	ErrTaken      = errors.New("there is a client of that name")
	ErrNoGroup    = errors.New("there is no such group")
	ErrName       = errors.New("a name is 1 to 64 letters, digits and _ . - @ +")
	ErrTooMany    = errors.New("there are too many")
	ErrNoEndpoint = errors.New("invitations need to say where the server is: the configuration has no endpoints")
	ErrExpiry     = errors.New("an invitation is good for at most a year, and more than no time")
	ErrKeyTaken   = errors.New("the key is another peer's")
	ErrUselessKey = errors.New("the key is of low order")
	errUsedUp     = errors.New("the invitation is used up")
)

// Server is the clients of one tunnel. Its methods may be called concurrently.
type Server struct {
	store Store
	audit func(Event)

	mu     sync.Mutex // guards what follows
	config Config
	state  *state
	seen   map[string]seenAt // where connected clients are
}

// seenAt is where a client was when that was last noted.
type seenAt struct {
	from netip.AddrPort
	at   time.Time
}

// Open makes a server of what a store holds. audit is told what happens, one event at a time, and must not call the server; nil for
// nobody. Errors: what Config.Check finds; a damaged store; addresses that the configuration gives to two.
func Open(s Store, c Config, now time.Time, audit func(Event)) (*Server, error) {
	st, err := load(s)
	if err != nil {
		return nil, err
	}
	if audit == nil {
		audit = func(Event) {}
	}
	sv := &Server{store: s, audit: audit, state: st, seen: make(map[string]seenAt)}
	return sv, sv.Configure(c, now)
}

// note writes an event. The lock is held.
func (sv *Server) note(now time.Time, e Event) {
	if len(e.Why) > maxWhy {
		e.Why = strings.ToValidUTF8(e.Why[:maxWhy], "") + "…"
	}
	e.Time, e.Tunnel = now, sv.config.Tunnel
	sv.audit(e)
}

// Configure makes another configuration the one in force: clients whose addresses it no longer has get others, all of them or none. On
// an error nothing has changed.
func (sv *Server) Configure(c Config, now time.Time) error {
	if err := c.Check(); err != nil {
		return err
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	draft := &state{maps.Clone(sv.state.clients), maps.Clone(sv.state.names), maps.Clone(sv.state.leases), sv.state.invitations, sv.state.factors}
	as := c.assignment()
	var changed []*Client
	if err := sv.store.Update(func(tx Tx) error {
		for _, name := range draft.order(as) {
			old := draft.clients[name]
			if c.Reserved[old.Key] || old.Key == c.PublicKey {
				return fmt.Errorf("the client %s has the key of another peer: %w", name, ErrKeyTaken)
			}
			if err := c.admits(c.group(name, old.Group), old.WireGuard); err != nil {
				return fmt.Errorf("client %s: %w", name, err)
			}
			addresses, err := draft.assign(as, name)
			if err != nil {
				return fmt.Errorf("client %s: %w", name, err)
			}
			if slices.Equal(addresses, old.Addresses) {
				continue
			}
			client := *old
			client.Addresses = addresses
			leases, err := draft.hold(tx, name, addresses, now)
			if err != nil {
				return err
			}
			if err := put(tx, clientTable, name, client); err != nil {
				return err
			}
			draft.took(leases)
			draft.clients[name] = &client
			changed = append(changed, &client)
		}
		return nil
	}); err != nil {
		return err
	}
	sv.config, sv.state = c, draft
	for _, client := range changed {
		sv.note(now, Event{Event: EventReadress, Client: client.Name, Key: client.Key, Addresses: client.Addresses})
	}
	return nil
}
