package main

import (
	"encoding/json"
	"testing"
	"time"

	"culvert/tunnel"
)

// There is a session for 180 seconds after a handshake, and none before the first.
func TestConnected(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		at   time.Time
		want bool
	}{
		{time.Time{}, false}, {now, true}, {now.Add(-170 * time.Second), true}, {now.Add(-180 * time.Second), false},
	} {
		p := tunnel.PeerStatus{LastHandshake: c.at}
		if got := connected(&p, now); got != c.want {
			t.Errorf("%v ago: %v", now.Sub(c.at), got)
		}
		if got := statusOf(tunnel.Status{Peers: []tunnel.PeerStatus{p}}, nil).Peers[0].Connected; got != c.want {
			t.Errorf("shown, %v ago: %v", now.Sub(c.at), got)
		}
	}
}

// When a peer was heard is told in UTC, and not at all of one that never was.
func TestLastHeardShown(t *testing.T) {
	at := time.Date(2026, 11, 29, 8, 0, 0, 0, time.FixedZone("", 3600))
	got := statusOf(tunnel.Status{Peers: []tunnel.PeerStatus{{LastHeard: at}, {}}}, nil).Peers
	if b, err := json.Marshal(got[0].LastHeard); err != nil || string(b) != `"2026-11-29T07:00:00Z"` || !got[1].LastHeard.IsZero() {
		t.Errorf("%s, %v, %v", b, got[1].LastHeard, err)
	}
}
