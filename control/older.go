package control

import (
	"bytes"
	"time"

	"culvert/crypto/session"
)

// complete fills in what an older daemon's answer, of that line, leaves out: programs are replaced before the daemons that run. Such a
// daemon says of nobody whether there is a session, and to it there was one for so long after a handshake.
func (r *response) complete(line []byte, now time.Time) {
	if bytes.Contains(line, []byte(`"connected":`)) { // never within a string, whose quotation marks are escaped
		return
	}
	lately := func(handshake time.Time) bool {
		return !handshake.IsZero() && now.Sub(handshake) < session.RejectAfterTime
	}
	if r.Instance != nil {
		for i := range r.Instance.Tunnels {
			for j := range r.Instance.Tunnels[i].Peers {
				p := &r.Instance.Tunnels[i].Peers[j]
				p.Connected = lately(p.LatestHandshake)
			}
		}
	}
	if r.Clients != nil {
		for i := range r.Clients.Clients {
			c := &r.Clients.Clients[i]
			c.Connected = lately(c.LatestHandshake)
		}
	}
}
