package control

import (
	"net/netip"
	"time"

	"culvert/crypto"
)

// Instance is what `culvert status --json` prints for one running process. Its JSON form is stable: fields are added,
// never renamed, removed or given another unit. Bytes and packets are totals since the peer was added, times are
// RFC 3339 in UTC, durations are seconds. Private and preshared keys are not in it.
type Instance struct {
	Name    string    `json:"instance"`
	Kind    string    `json:"kind"` // "up" for a configuration file, "wg" for a device that wg configures
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	File    string    `json:"file,omitempty"`
	Tunnels []Tunnel  `json:"tunnels"`
}

// Tunnel is one tunnel of an instance.
type Tunnel struct {
	Interface  string            `json:"interface"`
	Up         bool              `json:"up"`
	PublicKey  string            `json:"public_key,omitempty"` // absent without a private key
	ListenPort uint16            `json:"listen_port,omitempty"`
	FwMark     uint32            `json:"fwmark,omitempty"`
	MTU        int               `json:"mtu"`
	UnderLoad  bool              `json:"under_load"`
	Peers      []Peer            `json:"peers"`
	Drops      map[string]uint64 `json:"drops"` // packets by reason; reasons that never occurred are absent
	Transport  Transport         `json:"transport"`
	Handshakes Handshakes        `json:"handshakes"`
}

// Peer is one peer of a tunnel.
type Peer struct {
	PublicKey         crypto.PublicKey `json:"public_key"`
	Name              string           `json:"name,omitempty"` // in the configuration file
	PresharedKey      bool             `json:"preshared_key"`  // whether there is one
	Endpoint          string           `json:"endpoint,omitempty"`
	Source            string           `json:"source,omitempty"` // local address its packets came to
	AllowedIPs        []netip.Prefix   `json:"allowed_ips"`
	Keepalive         int              `json:"persistent_keepalive,omitempty"` // seconds
	LatestHandshake   time.Time        `json:"latest_handshake,omitzero"`
	HandshakeAttempts int              `json:"handshake_attempts,omitempty"` // unanswered ones
	Wire              string           `json:"wire"`                         // "culvert" or "wireguard"
	Suite             string           `json:"suite,omitempty"`              // of the current session
	PostQuantum       bool             `json:"post_quantum"`                 // whether the key exchange is hybrid
	ReceivedBytes     uint64           `json:"received_bytes"`               // UDP payload, as the other counts
	SentBytes         uint64           `json:"sent_bytes"`
	ReceivedPackets   uint64           `json:"received_packets"`
	SentPackets       uint64           `json:"sent_packets"`
	StagedBytes       int              `json:"staged_bytes,omitempty"` // waiting for a handshake
	Native            *Native          `json:"native,omitempty"`       // absent on the wireguard wire
}

// Native is what is known of a peer on the native wire besides.
type Native struct {
	PathMTU     int      `json:"path_mtu"`                // bytes of UDP payload known to arrive in one datagram
	InnerMTU    int      `json:"inner_mtu"`               // bytes of a packet that needs no fragments
	PathSettled bool     `json:"path_mtu_settled"`        // the search for a larger one is over
	RTT         float64  `json:"rtt,omitempty"`           // smoothed, in seconds; these three are absent before the first
	RTTMin      float64  `json:"rtt_min,omitempty"`       // of the last minute, in seconds
	RTTVar      float64  `json:"rtt_deviation,omitempty"` // mean deviation, in seconds
	Loss        *float64 `json:"loss,omitempty"`          // of what is sent to the peer, 0 to 1; absent before it is known
	Agent       string   `json:"agent,omitempty"`         // the peer's program, as it says
	PeerMTU     int      `json:"peer_mtu,omitempty"`      // of the peer's interface, as it says
}

// Transport counts what the tunnel's UDP socket did since it was opened.
type Transport struct {
	SentDatagrams     uint64 `json:"sent_datagrams"`
	SentBytes         uint64 `json:"sent_bytes"`
	SentCalls         uint64 `json:"sent_calls"`
	ReceivedDatagrams uint64 `json:"received_datagrams"`
	ReceivedBytes     uint64 `json:"received_bytes"`
	ReceivedCalls     uint64 `json:"received_calls"`
	SegmentFallbacks  uint64 `json:"segment_fallbacks"`
	SourceFallbacks   uint64 `json:"source_fallbacks"`
	SendErrors        uint64 `json:"send_errors"`
	Truncated         uint64 `json:"truncated"`
	SegmentOffload    bool   `json:"segment_offload"`
	ReceiveOffload    bool   `json:"receive_offload"`
}

// Handshakes counts handshake messages since the tunnel started.
type Handshakes struct {
	InitiationsSent     uint64 `json:"initiations_sent"`
	InitiationsReceived uint64 `json:"initiations_received"`
	ResponsesSent       uint64 `json:"responses_sent"`
	ResponsesReceived   uint64 `json:"responses_received"`
	CookiesSent         uint64 `json:"cookies_sent"`
	CookiesReceived     uint64 `json:"cookies_received"`
	Completed           uint64 `json:"completed"`
}
