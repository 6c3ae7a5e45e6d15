package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/tunnel"
)

func kinds(list []control.Event) string {
	var words []string
	for _, e := range list {
		word := e.Event
		if e.Missed != 0 {
			word += fmt.Sprintf("(%d)", e.Missed)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// A subscriber that does not read is told how many events it has missed, behind those that it had room for; the others miss nothing.
func TestSlowSubscriber(t *testing.T) {
	h := NewHub("site", nil)
	slow, quick := h.Subscribe(control.EventOptions{}), h.Subscribe(control.EventOptions{})
	for i := range 3 * queueLength {
		h.Publish(control.Event{Event: control.EventTunnelUp})
		if list, err := quick.Next(t.Context()); err != nil || len(list) != 1 || list[0].Instance != "site" || list[0].Time.IsZero() {
			t.Fatalf("event %d: %+v, %v", i, list, err)
		}
	}
	list, err := slow.Next(t.Context())
	if err != nil || len(list) != queueLength+1 || list[queueLength].Event != control.EventMissed || list[queueLength].Missed != 2*queueLength {
		t.Fatalf("%d events, the last %+v, %v", len(list), list[len(list)-1], err)
	}
	h.Publish(control.Event{Event: control.EventTunnelDown})
	h.Close()
	if list, err := slow.Next(t.Context()); kinds(list) != "tunnel-down" || err != io.EOF {
		t.Errorf("at the end %s, %v", kinds(list), err)
	}
	if list, err := h.Subscribe(control.EventOptions{}).Next(t.Context()); len(list) > 0 || err != io.EOF {
		t.Errorf("after the end %v, %v", list, err)
	}
	h.Publish(control.Event{})
	slow.Close()
}

func TestOnlySomeKinds(t *testing.T) {
	h := NewHub("site", nil)
	s := h.Subscribe(control.EventOptions{Kinds: []string{"peer", control.EventTunnelUp}})
	for _, kind := range control.EventKinds {
		h.Publish(control.Event{Event: kind})
	}
	if list, _ := s.Next(t.Context()); kinds(list) != "tunnel-up peer-connected peer-lost peer-roamed peer-tcp peer-udp events-missed" {
		t.Error(kinds(list))
	}
	ctx, cancel := context.WithCancel(t.Context())
	h.Publish(control.Event{Event: control.EventTunnelUp})
	cancel()
	if list, err := s.Next(ctx); kinds(list) != "tunnel-up" || !errors.Is(err, context.Canceled) {
		t.Errorf("%s, %v", kinds(list), err)
	}
}

// It is looked once a second while somebody asks, and never otherwise; what there is when somebody begins to ask is no event.
func TestLooksOnlyWhileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		h := NewHub("site", func() []control.Event {
			looks++
			return []control.Event{{Event: fmt.Sprint("tunnel-", looks)}}
		})
		time.Sleep(time.Hour)
		h.Look()
		first := h.Subscribe(control.EventOptions{})
		time.Sleep(every / 2)
		second := h.Subscribe(control.EventOptions{})
		time.Sleep(every * 2)
		list, _ := first.Next(t.Context())
		more, _ := second.Next(t.Context())
		if kinds(list) != "tunnel-2 tunnel-3" || kinds(more) != kinds(list) {
			t.Errorf("told %s and %s", kinds(list), kinds(more))
		}
		first.Close()
		second.Close()
		time.Sleep(time.Hour)
		if looks != 3 {
			t.Errorf("%d looks", looks)
		}
		h.Subscribe(control.EventOptions{})
		h.Close()
	})
}

func TestWatch(t *testing.T) {
	a, b := crypto.PublicKey{1}, crypto.PublicKey{2}
	here, there := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	names := func() map[crypto.PublicKey]string { return map[crypto.PublicKey]string{a: "alpha", b: "beta"} }
	look := func(up bool, peers ...tunnel.Sighting) []Tunnel { return []Tunnel{{"wg0", up, peers, names}} }
	var w Watch
	for i, c := range []struct {
		now  []Tunnel
		want string
	}{
		{nil, ""},
		{look(true, tunnel.Sighting{PublicKey: a, Endpoint: here}, tunnel.Sighting{PublicKey: b}), "tunnel-up"},
		{look(true, tunnel.Sighting{PublicKey: a, Endpoint: there}, tunnel.Sighting{PublicKey: b}), ""}, // tried elsewhere
		{look(true, tunnel.Sighting{PublicKey: b, Connected: true, Endpoint: here}, tunnel.Sighting{PublicKey: a, Connected: true, Endpoint: there}),
			"peer-connected(alpha 192.0.2.2:2) peer-connected(beta 192.0.2.1:1)"},
		{look(true, tunnel.Sighting{PublicKey: a, Connected: true, Endpoint: there}, tunnel.Sighting{PublicKey: b, Connected: true, Endpoint: there}),
			"peer-roamed(beta 192.0.2.2:2 before 192.0.2.1:1)"},
		{look(true, tunnel.Sighting{PublicKey: a, Connected: true, Endpoint: here, TCP: true}, tunnel.Sighting{PublicKey: b, Endpoint: there}),
			"peer-tcp(alpha 192.0.2.1:1 before 192.0.2.2:2) peer-lost(beta 192.0.2.2:2)"},
		{look(true, tunnel.Sighting{PublicKey: a, Connected: true, Endpoint: here}, tunnel.Sighting{PublicKey: b, Connected: true, Endpoint: there, TCP: true}),
			"peer-udp(alpha 192.0.2.1:1 before 192.0.2.1:1) peer-connected(beta 192.0.2.2:2) peer-tcp(beta 192.0.2.2:2)"},
		{look(true, tunnel.Sighting{PublicKey: a, Connected: true, Endpoint: here}), "peer-lost(beta 192.0.2.2:2)"},
		{look(false, tunnel.Sighting{PublicKey: a, Connected: true, Endpoint: here}), "tunnel-down"},
		{look(true, tunnel.Sighting{PublicKey: a, Connected: true, Endpoint: here}), "tunnel-up"},
		{nil, "tunnel-down"},
		{nil, ""},
	} {
		var got []string
		for _, e := range w.Look(c.now) {
			word := e.Event
			if e.Peer != "" {
				word += "(" + e.Peer + " " + e.Endpoint
				if e.Before != "" {
					word += " before " + e.Before
				}
				word += ")"
			}
			got = append(got, word)
			if e.Tunnel != "wg0" {
				t.Errorf("look %d: tunnel %q", i, e.Tunnel)
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("look %d: %s, want %s", i, s, c.want)
		}
	}
}
