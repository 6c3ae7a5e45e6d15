package server

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/crypto"
	"culvert/crypto/enrolment"
)

// Invite makes an invitation for a name that is no client's yet, in place of one that the name may have. The secret is in the link
// alone: what is kept opens no session.
func (sv *Server) Invite(name, group string, expires time.Duration, now time.Time) (*Link, Invitation, error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if err := sv.admit(name, group); err != nil {
		return nil, Invitation{}, err
	}
	switch {
	case len(sv.config.Endpoints) == 0:
		return nil, Invitation{}, ErrNoEndpoint
	case expires <= 0 || expires > MaxExpiry:
		return nil, Invitation{}, ErrExpiry
	case sv.state.open(now) >= MaxInvitations || len(sv.state.invitations) >= 2*MaxInvitations:
		return nil, Invitation{}, fmt.Errorf("%w: %d invitations", ErrTooMany, MaxInvitations)
	}
	secret, err := enrolment.GenerateSecret()
	if err != nil {
		return nil, Invitation{}, err
	}
	link := &Link{slices.Clone(sv.config.Endpoints), sv.config.PublicKey, secret}
	private, psk, err := enrolment.Derive(secret, sv.config.PublicKey)
	if err != nil {
		return nil, Invitation{}, err
	}
	defer private.Zero()
	made := &Invitation{Name: name, Group: group, Key: private.Public(), Made: now, Expires: now.Add(expires), psk: psk}
	var before []crypto.PublicKey
	for key, i := range sv.state.invitations {
		if i.Name == name {
			before = append(before, key)
		}
	}
	if err := sv.store.Update(func(tx Tx) error {
		for _, key := range before {
			if err := tx.Delete(invitationTable, keyText(key)); err != nil {
				return err
			}
		}
		return made.keep(tx)
	}); err != nil {
		return nil, Invitation{}, err
	}
	for _, key := range before {
		delete(sv.state.invitations, key)
	}
	sv.state.invitations[made.Key] = made
	sv.note(now, Event{Event: EventInvited, Client: name, Group: group, Expires: made.Expires})
	return link, *made, nil
}

// admit checks whether a name can become a client's. The lock is held.
func (sv *Server) admit(name, group string) error {
	if !ValidName(name) {
		return ErrName
	}
	if _, ok := sv.config.Groups[group]; group != "" && !ok {
		return fmt.Errorf("%w: %s; there are: %s", ErrNoGroup, group, strings.Join(slices.Sorted(maps.Keys(sv.config.Groups)), ", "))
	}
	if sv.state.clients[name] != nil {
		return fmt.Errorf("%w: %s", ErrTaken, name)
	}
	if len(sv.state.clients) >= MaxClients {
		return fmt.Errorf("%w: %d clients", ErrTooMany, MaxClients)
	}
	return nil
}

// freeKey checks whether a key can become a client's. The lock is held.
func (sv *Server) freeKey(key crypto.PublicKey) error {
	switch {
	case key.IsLowOrder():
		return ErrUselessKey
	case key == sv.config.PublicKey, sv.config.Reserved[key], sv.state.invitations[key] != nil:
		return ErrKeyTaken
	}
	if sv.client(key) != nil {
		return ErrKeyTaken
	}
	return nil
}

// Enrol answers what the end of an invitation has sent: it makes the key that is named a client and uses the invitation up, both in
// one transaction. Who asks again with the key that has been accepted, for as long as it is answered, is told the same. The answer is
// nil where nothing is to be said; joined is nil where nothing has changed.
func (sv *Server) Enrol(invitation crypto.PublicKey, request []byte, from netip.AddrPort, now time.Time) (answer []byte, joined *Client) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	i := sv.state.invitations[invitation]
	if i == nil || !i.answered(now) {
		return nil, nil
	}
	accepted, err := (&EnrolAnswer{Accepted: true, Frames: sv.config.Frames, Others: sv.config.Others}).Encode() // before anything is changed
	asked, malformed := DecodeEnrolRequest(request)
	switch {
	case malformed != nil:
		err = malformed
	case err != nil:
		err = fmt.Errorf("the answer cannot be written: %w", err)
	case !i.Used.IsZero() && i.UsedBy == asked.Key:
	case !i.Used.IsZero():
		err = errUsedUp
	default:
		joined, err = sv.join(i, &asked, from, now)
	}
	if err == nil {
		return accepted, joined
	}
	sv.note(now, Event{Event: EventRefused, Client: i.Name, Says: asked.Name, Key: asked.Key, From: addrText(from), Why: err.Error()})
	refused, _ := (&EnrolAnswer{Reason: toldOf(err)}).Encode() // which all that toldOf says can be
	return refused, nil
}

// toldOf is what whoever has an invitation is told of an error: a text of its own for what they can do something about, and nothing of
// what is inside the server, such as names of groups and other clients. The audit log has it all.
func toldOf(err error) string {
	for _, known := range []error{errUsedUp, ErrKeyTaken, ErrUselessKey, ErrPoolEmpty} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "the server cannot take it"
}

func (sv *Server) join(i *Invitation, asked *EnrolRequest, from netip.AddrPort, now time.Time) (*Client, error) {
	if err := sv.admit(i.Name, i.Group); err != nil {
		return nil, err
	}
	used := *i
	used.Used, used.UsedBy = now, asked.Key
	c := &Client{Name: i.Name, Key: asked.Key, Group: i.Group, Says: asked.Name, Joined: now, Seen: now, From: addrText(from)}
	if err := sv.add(c, now, used.keep); err != nil {
		return nil, err
	}
	sv.state.invitations[i.Key] = &used
	sv.note(now, Event{Event: EventJoined, Client: c.Name, Group: c.Group, Says: c.Says, Key: c.Key, From: c.From, Addresses: c.Addresses})
	return c, nil
}

func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// withdraw takes the invitations of a name out of the store. The lock is held.
func (sv *Server) withdraw(name string) func(Tx) error {
	return func(tx Tx) error {
		for key, i := range sv.state.invitations {
			if i.Name == name {
				if err := tx.Delete(invitationTable, keyText(key)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func (sv *Server) forgetInvitations(name string) (n int) {
	for key, i := range sv.state.invitations {
		if i.Name == name {
			i.psk.Zero()
			delete(sv.state.invitations, key)
			n++
		}
	}
	return n
}

// Invitations are the open ones, in order of names.
func (sv *Server) Invitations(now time.Time) (list []Invitation) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for _, i := range sv.state.invitations {
		if i.open(now) {
			j := *i
			j.psk = crypto.PresharedKey{}
			list = append(list, j)
		}
	}
	slices.SortFunc(list, func(a, b Invitation) int { return strings.Compare(a.Name, b.Name) })
	return list
}
