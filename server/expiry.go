package server

import (
	"time"
)

// Expire forgets invitations whose time is up, and reports whether there were any, also where that cannot be kept.
func (sv *Server) Expire(now time.Time) (bool, error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	var over []*Invitation
	for _, i := range sv.state.invitations {
		if !i.answered(now) {
			over = append(over, i)
		}
	}
	if len(over) == 0 {
		return false, nil
	}
	err := sv.store.Update(func(tx Tx) error {
		for _, i := range over {
			if err := tx.Delete(invitationTable, keyText(i.Key)); err != nil {
				return err
			}
			if sv.state.clients[i.Name] == nil {
				if err := tx.Delete(factorTable, i.Name); err != nil {
					return err
				}
			}
		}
		return nil
	})
	// Whether or not it can be kept: what is read of it after a restart is over.
	for _, i := range over {
		if sv.state.clients[i.Name] == nil {
			delete(sv.state.factors, i.Name)
		}
		delete(sv.state.invitations, i.Key)
		i.psk.Zero()
		if i.Used.IsZero() {
			sv.note(now, Event{Event: EventExpired, Client: i.Name})
		}
	}
	return true, err
}

// Next is when Expire or SignOut has something to do next; the zero time where never.
func (sv *Server) Next() (next time.Time) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	next = sv.nextSignOut()
	for _, i := range sv.state.invitations {
		if at := i.ends(); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}
