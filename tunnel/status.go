package tunnel

import (
	"net/netip"
	"time"

	"culvert/crypto"
	"culvert/transport"
)

// Status is a snapshot of a tunnel. Private and preshared keys print as "(hidden)" and never appear in JSON.
type Status struct {
	Name       string              `json:"name"`
	Up         bool                `json:"up"` // the interface is administratively up and the socket open
	PrivateKey crypto.PrivateKey   `json:"-"`
	PublicKey  crypto.PublicKey    `json:"public_key"` // zero without a private key
	ListenPort uint16              `json:"listen_port"`
	Mark       uint32              `json:"fwmark"`
	MTU        int                 `json:"mtu"`
	UnderLoad  bool                `json:"under_load"`
	Peers      []PeerStatus        `json:"peers"` // in order of public key
	Drops      map[string]uint64   `json:"drops"` // dropped packets by reason, without the zero ones
	Transport  transport.Counters  `json:"transport"`
	Handshakes HandshakeStatistics `json:"handshakes"`
}

// PeerStatus is a snapshot of one peer.
type PeerStatus struct {
	PublicKey         crypto.PublicKey    `json:"public_key"`
	PresharedKey      crypto.PresharedKey `json:"-"`
	HasPresharedKey   bool                `json:"preshared_key"`
	Endpoint          transport.Endpoint  `json:"-"`
	EndpointText      string              `json:"endpoint,omitempty"`
	Source            string              `json:"source,omitempty"` // sticky source address
	AllowedIPs        []netip.Prefix      `json:"allowed_ips"`
	Keepalive         time.Duration       `json:"keepalive_ns"`
	LastHandshake     time.Time           `json:"last_handshake,omitzero"`
	HandshakeAttempts int                 `json:"handshake_attempts,omitempty"` // initiations sent since the last answer
	Wire              string              `json:"wire"`
	Suite             string              `json:"suite"`
	ReceivedBytes     uint64              `json:"received_bytes"` // UDP payload bytes, handshakes and keepalives included
	SentBytes         uint64              `json:"sent_bytes"`
	ReceivedPackets   uint64              `json:"received_packets"`
	SentPackets       uint64              `json:"sent_packets"`
	StagedBytes       int                 `json:"staged_bytes,omitempty"`
}

// HandshakeStatistics count handshake messages since the tunnel started.
type HandshakeStatistics struct {
	InitiationsSent     uint64 `json:"initiations_sent"`
	InitiationsReceived uint64 `json:"initiations_received"` // verified ones
	ResponsesSent       uint64 `json:"responses_sent"`
	ResponsesReceived   uint64 `json:"responses_received"` // verified ones
	CookiesSent         uint64 `json:"cookies_sent"`
	CookiesReceived     uint64 `json:"cookies_received"` // verified ones
	Completed           uint64 `json:"completed"`
}
