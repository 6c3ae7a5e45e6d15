package main

import (
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
