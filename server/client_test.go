package server

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestSettingsGoByTheMostParticular(t *testing.T) {
	w := newWorld(t)
	mtu, keep, yes := 1300, 20*time.Second, true
	w.config.Push = Settings{Routes: prefixes("10.1.0.0/16"), DNS: addrs("10.20.0.1"), MTU: &mtu}
	w.config.Groups = map[string]Settings{"staff": {Routes: prefixes("10.2.0.0/16"), Keepalive: &keep}, "guests": {FullTunnel: &yes}}
	w.config.Clients = map[string]ClientConfig{
		"alice": {Group: "staff", Settings: Settings{DNS: []netip.Addr{}}, Networks: prefixes("192.168.7.0/24")},
		"bob":   {Settings: Settings{Routes: prefixes("10.3.0.0/16")}},
	}
	w.open()
	for name, group := range map[string]string{"alice": "guests", "bob": "staff", "carol": "guests"} {
		if _, err := w.server.Add(name, group, newKey(t), false, w.now); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"alice": "[10.2.0.0/16] [] 1300 20s false", "bob": "[10.3.0.0/16] [10.20.0.1] 1300 20s false", "carol": "[10.1.0.0/16] [10.20.0.1] 1300 0s true",
	} {
		d, ok := w.server.DocumentOf(name)
		if got := fmt.Sprint(d.Routes, d.DNS, d.MTU, d.Keepalive, d.FullTunnel); !ok || got != want {
			t.Errorf("%s is told %s, want %s", name, got, want)
		}
	}
	peers := w.server.Peers(w.now)
	if got := fmt.Sprint(peers[0].AllowedIPs); peers[0].Name != "alice" || !strings.Contains(got, "192.168.7.0/24") {
		t.Errorf("alice may send from %s", got)
	}
}

func TestRevoke(t *testing.T) {
	w := newWorld(t)
	invitation, key := w.invited("alice", ""), newKey(t)
	if a, _ := w.enrol(invitation, key); !a.Accepted {
		t.Fatal(a)
	}
	if err := w.server.Revoke("alice", w.now); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if p := w.server.Peers(w.now); len(p) != 0 { // the end of the used invitation as well
			t.Errorf("peers %+v", p)
		}
		if _, ok := w.server.Document(key); ok {
			t.Error("there is a document")
		}
		w.open()
	}
	if _, ok := w.enrol(invitation, key); ok {
		t.Error("the invitation is answered")
	}
	if err := w.server.Revoke("alice", w.now); !errors.Is(err, ErrNoClient) {
		t.Errorf("twice: %v", err)
	}
	w.invited("bob", "")
	if err := w.server.Revoke("bob", w.now); err != nil || len(w.server.Peers(w.now)) != 0 {
		t.Errorf("revoking who is invited: %v", err)
	}
}

func TestConnected(t *testing.T) {
	w := newWorld(t)
	key := newKey(t)
	if _, err := w.server.Add("bob", "", key, false, w.now); err != nil {
		t.Fatal(err)
	}
	here, there := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	for i, from := range []netip.AddrPort{here, here, there, here, there, there} { // of one that moves to and fro, not each is noted
		if i == 5 {
			w.now = w.now.Add(noteEvery)
		}
		if err := w.server.Connected(key, from, w.now); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, e := range w.events {
		if e.Event == EventConnected {
			n++
		}
	}
	if n != 2 || w.last().From != there.String() {
		t.Errorf("%d events, the last %+v", n, w.last())
	}
	w.open()
	if c := w.server.Clients()[0]; w.now.Sub(c.Seen) > noteEvery {
		t.Errorf("seen %v", c.Seen)
	}
}
