package control

import "testing"

// The first handshake may be on its way; a peer that leaves two unanswered does not answer.
func TestSilentPeers(t *testing.T) {
	for attempts, want := range []bool{false, false, true, true} {
		if p := (Peer{HandshakeAttempts: attempts}); p.Silent() != want {
			t.Errorf("after %d handshakes: silent %v", attempts, p.Silent())
		}
	}
}
