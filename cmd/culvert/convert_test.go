package main

import (
	"encoding/json"
	"testing"
	"time"

	"culvert/tunnel"
)

// Whether a peer is connected is what the engine says, whatever the wall clock makes of its latest handshake.
func TestConnected(t *testing.T) {
	now := time.Now()
	for _, at := range []time.Time{{}, now, now.Add(-time.Hour), now.Add(time.Hour)} {
		for _, session := range []bool{true, false} {
			if got := statusOf(tunnel.Status{Peers: []tunnel.PeerStatus{{LastHandshake: at, Session: session}}}, nil).Peers[0].Connected; got != session {
				t.Errorf("with a session %v, and a handshake at %v: connected %v", session, at, got)
			}
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
