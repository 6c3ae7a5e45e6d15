package interop

import (
	"encoding/json"
	"testing"
	"time"
)

// instance is the part of `culvert status --json` these tests look at.
type instance struct {
	Instance string
	PID      int
	Tunnels  []tunnelStatus
}

type tunnelStatus struct {
	Interface string
	MTU       int
	Peers     []peerStatus
	Transport struct {
		SentDatagrams uint64 `json:"sent_datagrams"`
	}
	Drops      map[string]uint64
	Handshakes struct {
		CookiesSent     uint64 `json:"cookies_sent"`
		CookiesReceived uint64 `json:"cookies_received"`
	}
}

type peerStatus struct {
	PublicKey       string    `json:"public_key"`
	LatestHandshake time.Time `json:"latest_handshake"`
	Wire, Suite     string
	PostQuantum     bool `json:"post_quantum"`
	Native          *struct {
		PathMTU     int  `json:"path_mtu"`
		InnerMTU    int  `json:"inner_mtu"`
		PathSettled bool `json:"path_mtu_settled"`
		RTT         float64
		Agent       string
		Lanes       []laneStatus
	}
}

// statusOf is what culvert tells of a peer.
func (s *side) statusOf(t *testing.T, other *side) peerStatus {
	t.Helper()
	for _, p := range s.culvertStatus(t).Peers {
		if p.PublicKey == other.publicKey {
			return p
		}
	}
	t.Fatalf("culvert on %s has lost its peer", s.host.Name)
	return peerStatus{}
}

// culvertStatus is what culvert tells of a side it runs.
func (s *side) culvertStatus(t *testing.T) tunnelStatus {
	t.Helper()
	text := s.host.Shell(program(t, "culvert", "culvert/cmd/culvert"), "status", "--json")
	var running []instance
	if err := json.Unmarshal([]byte(text), &running); err != nil {
		t.Fatalf("culvert status --json: %v:\n%s", err, text)
	}
	for _, one := range running {
		for _, tunnel := range one.Tunnels {
			if tunnel.Interface == s.device {
				return tunnel
			}
		}
	}
	t.Fatalf("culvert status --json has no tunnel %s:\n%s", s.device, text)
	return tunnelStatus{}
}

// drops is the count of packets culvert dropped for a reason; for other implementations there is none.
func (s *side) drops(t *testing.T, reason string) (count uint64, counted bool) {
	t.Helper()
	if s.implementation.name != culvert.name {
		return 0, false
	}
	return s.culvertStatus(t).Drops[reason], true
}
