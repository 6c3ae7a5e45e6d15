package server

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/crypto"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func newKey(t *testing.T) crypto.PublicKey {
	t.Helper()
	k, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// office is a configuration with a pool of few addresses: .1 is the server's own.
func office(t *testing.T) Config {
	return Config{
		Tunnel: "office", Addresses: prefixes("10.20.0.1/29", "fd20::1/64"), Endpoints: []string{"vpn.example.net:51820"}, PublicKey: newKey(t),
		Groups: map[string]Settings{"staff": {Routes: prefixes("10.30.0.0/16")}},
	}
}

// world is a server over a store that survives it.
type world struct {
	t      *testing.T
	store  Store
	config Config
	server *Server
	now    time.Time
	events []Event
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: &Memory{}, config: office(t), now: start}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.server, err = Open(w.store, w.config, w.now, func(e Event) { w.events = append(w.events, e) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) add(name string) string {
	w.t.Helper()
	c, err := w.server.Add(name, "", newKey(w.t), false, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprint(c.Addresses)
}

func (w *world) addresses(name string) string {
	w.t.Helper()
	for _, c := range w.server.Clients() {
		if c.Name == name {
			return fmt.Sprint(c.Addresses)
		}
	}
	return "no client"
}

func (w *world) last() Event {
	w.t.Helper()
	if len(w.events) == 0 {
		w.t.Fatal("no event")
	}
	return w.events[len(w.events)-1]
}

// failing is a store that is full.
type failing struct{ Store }

func (failing) Update(func(Tx) error) error { return errors.New("no space left on device") }

// TestNothingWithoutTheStore: what is not kept has not happened.
func TestNothingWithoutTheStore(t *testing.T) {
	w := newWorld(t)
	w.add("bob")
	invitation := w.invited("alice", "")
	w.server.store = failing{w.store}
	if a, ok := w.enrol(invitation, newKey(t)); !ok || a.Accepted {
		t.Errorf("%+v, %v", a, ok)
	}
	_, err1 := w.server.Add("carol", "", newKey(t), false, w.now)
	_, _, err2 := w.server.Invite("dave", "", time.Hour, w.now)
	if err := w.server.Revoke("bob", w.now); err == nil || err1 == nil || err2 == nil {
		t.Errorf("%v, %v, %v", err, err1, err2)
	}
	if c := w.server.Clients(); len(c) != 1 || c[0].Name != "bob" || len(w.server.Invitations(w.now)) != 1 {
		t.Errorf("clients %+v", c)
	}
}

func TestDamagedStores(t *testing.T) {
	for name, damage := range map[string]func(tx Tx) error{
		"no JSON":        func(tx Tx) error { return tx.Put(clientTable, "bob", []byte("{")) },
		"another name":   func(tx Tx) error { return tx.Put(clientTable, "eve", tx.Get(clientTable, "bob")) },
		"no lease":       func(tx Tx) error { return tx.Delete(leaseTable, "10.20.0.2") },
		"no address":     func(tx Tx) error { return tx.Put(leaseTable, "x", []byte("{}")) },
		"a bad PSK":      func(tx Tx) error { return tx.Put(invitationTable, "x", []byte(`{"name":"a","psk":"x"}`)) },
		"a key of zeros": func(tx Tx) error { return tx.Put(clientTable, "eve", []byte(`{"name":"eve"}`)) },
	} {
		w := newWorld(t)
		w.add("bob")
		if err := w.store.Update(damage); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(w.store, w.config, w.now, nil); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAuditLog(t *testing.T) {
	var b bytes.Buffer
	l := NewAuditLog(&b)
	if err := l.Write(Event{Time: start, Event: EventRefused, Tunnel: "office", Client: "alice", Says: "x\ny", Why: "why"}); err != nil {
		t.Fatal(err)
	}
	if want := `{"time":"2026-01-02T03:04:05Z","event":"refused","tunnel":"office","client":"alice","says":"x\ny","why":"why"}` + "\n"; b.String() != want {
		t.Errorf("%s, want %s", b.String(), want)
	}
}
