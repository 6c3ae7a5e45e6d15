package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"culvert/crypto"
	"culvert/crypto/enrolment"
)

// invited is the end of an invitation.
func (w *world) invited(name, group string) crypto.PublicKey {
	w.t.Helper()
	link, made, err := w.server.Invite(name, group, time.Hour, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	private, _, err := enrolment.Derive(link.Secret, link.ServerKey)
	if err != nil || private.Public() != made.Key || link.ServerKey != w.config.PublicKey {
		w.t.Fatalf("the link is not of the invitation: %v", err)
	}
	return private.Public()
}

func (w *world) enrol(invitation, key crypto.PublicKey) (EnrolAnswer, bool) {
	w.t.Helper()
	request, err := (&EnrolRequest{key, "laptop"}).Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	b, _ := w.server.Enrol(invitation, request, netip.MustParseAddrPort("192.0.2.7:4000"), w.now)
	if b == nil {
		return EnrolAnswer{}, false
	}
	a, err := DecodeEnrolAnswer(b)
	if err != nil {
		w.t.Fatal(err)
	}
	return a, true
}

func TestEnrol(t *testing.T) {
	w := newWorld(t)
	invitation, key := w.invited("alice", "staff"), newKey(t)
	if e := w.last(); e.Event != EventInvited || e.Client != "alice" || e.Group != "staff" {
		t.Errorf("noted: %+v", e)
	}
	if p := w.server.Peers(w.now); len(p) != 1 || !p[0].Invitation || p[0].Key != invitation || p[0].PresharedKey.IsZero() || p[0].AllowedIPs != nil {
		t.Fatalf("peers %+v", p)
	}
	w.open() // invitations outlive a restart
	if a, ok := w.enrol(invitation, key); !ok || !a.Accepted {
		t.Fatalf("enrol: %+v, %v", a, ok)
	}
	if e := w.last(); e.Event != EventJoined || e.Client != "alice" || e.Says != "laptop" || e.From != "192.0.2.7:4000" || e.Key != key {
		t.Errorf("last event %+v", e)
	}
	w.open() // and so does what came of them
	d, ok := w.server.Document(key)
	if !ok || !slices.Equal(d.Routes, prefixes("10.30.0.0/16")) || !slices.Equal(d.Addresses, prefixes("10.20.0.2/29", "fd20::2/64")) {
		t.Errorf("alice is told %+v, %v", d, ok)
	}
	// The answer may have been lost.
	if a, ok := w.enrol(invitation, key); !ok || !a.Accepted {
		t.Errorf("asking again: %+v, %v", a, ok)
	}
	if n := len(w.server.Clients()); n != 1 {
		t.Errorf("%d clients", n)
	}
	// The link in other hands, or used for another machine.
	if a, ok := w.enrol(invitation, newKey(t)); !ok || a.Accepted || a.Reason != errUsedUp.Error() {
		t.Errorf("used by another: %+v, %v", a, ok)
	}
	if e := w.last(); e.Event != EventRefused || e.Why != errUsedUp.Error() {
		t.Errorf("last event %+v", e)
	}
	w.now = w.now.Add(Linger)
	if _, ok := w.enrol(invitation, key); ok {
		t.Error("an answer after all")
	}
	if !w.server.Next().Equal(w.now) {
		t.Errorf("next expiry %v, want %v", w.server.Next(), w.now)
	}
	if over, err := w.server.Expire(w.now); !over || err != nil {
		t.Errorf("Expire: %v, %v", over, err)
	}
	if p := w.server.Peers(w.now); len(p) != 1 || p[0].Key != key || !w.server.Next().IsZero() {
		t.Errorf("peers %+v, next %v", p, w.server.Next())
	}
}

func TestEnrolmentIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		key    func(w *world) crypto.PublicKey
		before func(w *world)
		reason error // that the audit log has; told says whether the client is told as well
		told   bool
	}{
		"with the server's key": {key: func(w *world) crypto.PublicKey { return w.config.PublicKey }, reason: ErrKeyTaken, told: true},
		"with a peer's key": {key: func(w *world) crypto.PublicKey {
			k := newKey(w.t)
			w.config.Reserved = map[crypto.PublicKey]bool{k: true}
			w.open()
			return k
		}, reason: ErrKeyTaken, told: true},
		"with a key of low order":  {key: func(*world) crypto.PublicKey { return crypto.PublicKey{} }, reason: ErrUselessKey, told: true},
		"with an invitation's key": {key: func(w *world) crypto.PublicKey { return w.invited("bob", "") }, reason: ErrKeyTaken, told: true},
		"with a client's key": {key: func(w *world) crypto.PublicKey {
			k := newKey(w.t)
			if _, err := w.server.Add("bob", "", k, false, w.now); err != nil {
				w.t.Fatal(err)
			}
			return k
		}, reason: ErrKeyTaken, told: true},
		"without addresses": {before: func(w *world) {
			for i := range 5 {
				w.add(fmt.Sprint("c", i))
			}
		}, reason: ErrPoolEmpty, told: true},
		"to a group that is gone": {before: func(w *world) {
			w.config.Groups = map[string]Settings{"inside": {}}
			w.open()
		}, reason: ErrNoGroup},
		"as somebody who is there": {before: func(w *world) {
			w.server.state.clients["alice"] = &Client{Name: "alice"}
		}, reason: ErrTaken},
		"with an address that another has": {before: func(w *world) {
			w.config.Clients = map[string]ClientConfig{"alice": {Addresses: addrs("10.20.0.3")}}
			w.open()
			w.server.state.leases[netip.MustParseAddr("10.20.0.3")] = lease{Name: "inside"}
		}, reason: errors.New("10.20.0.3 is the client inside's")},
		"with an answer that cannot be written": {before: func(w *world) {
			w.server.config.Others = []OtherServer{{newKey(w.t), []string{"vpn2.example.net"}}}
		}, reason: errors.New("the answer cannot be written: ")},
		"without a store": {before: func(w *world) { w.server.store = failing{w.store} }, reason: errors.New("no space left on device")},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			invitation, key := w.invited("alice", "staff"), newKey(t)
			if c.before != nil {
				c.before(w)
			}
			if c.key != nil {
				key = c.key(w)
			}
			n := len(w.server.Clients())
			told := "the server cannot take it"
			if c.told {
				told = c.reason.Error()
			}
			a, ok := w.enrol(invitation, key)
			if !ok || a.Accepted || a.Reason != told {
				t.Errorf("%+v, %v, want %q", a, ok, told)
			}
			if e := w.last(); e.Event != EventRefused || e.Client != "alice" || !strings.HasPrefix(e.Why, c.reason.Error()) {
				t.Errorf("last event %+v", e)
			}
			if len(w.server.Clients()) != n || len(w.server.Invitations(w.now)) == 0 {
				t.Error("a refusal changed something")
			}
		})
	}
}

func TestInvitationsExpire(t *testing.T) {
	w := newWorld(t)
	invitation := w.invited("alice", "")
	w.now = w.now.Add(time.Hour)
	if _, ok := w.enrol(invitation, newKey(t)); ok || len(w.server.Peers(w.now)) != 0 || len(w.server.Invitations(w.now)) != 0 {
		t.Error("an expired invitation is answered")
	}
	if _, err := w.server.Expire(w.now); err != nil || w.last().Event != EventExpired {
		t.Errorf("%v, last event %+v", err, w.last())
	}
	w.open()
	if len(w.server.state.invitations) != 0 {
		t.Error("the store still has it")
	}
}

// TestInvitingAgain: the invitation before is good for nothing.
func TestInvitingAgain(t *testing.T) {
	w := newWorld(t)
	first := w.invited("alice", "")
	second := w.invited("alice", "")
	if _, ok := w.enrol(first, newKey(t)); ok {
		t.Error("the first is answered")
	}
	if a, ok := w.enrol(second, newKey(t)); !ok || !a.Accepted {
		t.Errorf("the second: %+v, %v", a, ok)
	}
	if _, _, err := w.server.Invite("alice", "", time.Hour, w.now); !errors.Is(err, ErrTaken) {
		t.Errorf("inviting a client: %v", err)
	}
}

// Whoever asks again and again makes the audit log grow by short lines.
func TestAuditLinesAreShort(t *testing.T) {
	w := newWorld(t)
	w.server.note(w.now, Event{Event: EventRefused, Why: strings.Repeat("é", 5000)})
	if why := w.events[len(w.events)-1].Why; len(why) > maxWhy+len("…") || !strings.HasSuffix(why, "é…") || !utf8.ValidString(why) {
		t.Errorf("%d bytes: %.20q", len(why), why)
	}
}
