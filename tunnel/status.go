package tunnel

import (
	"net/netip"
	"slices"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel/access"
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
	Refused    []Refusal           `json:"refused,omitempty"` // handshakes, the most recent first
	Workers    int                 `json:"workers"`           // in each direction: the queues of the interface
	Switch     *SwitchStatus       `json:"switch,omitempty"`  // nil where the device carries IP packets
}

// PeerStatus is a snapshot of one peer.
type PeerStatus struct {
	PublicKey         crypto.PublicKey    `json:"public_key"`
	PresharedKey      crypto.PresharedKey `json:"-"`
	HasPresharedKey   bool                `json:"preshared_key"`
	Endpoint          transport.Endpoint  `json:"-"`
	EndpointText      string              `json:"endpoint,omitempty"`
	OverTCP           bool                `json:"tcp,omitempty"`    // the endpoint is that of a TCP connection
	Source            string              `json:"source,omitempty"` // sticky source address
	AllowedIPs        []netip.Prefix      `json:"allowed_ips"`
	Keepalive         time.Duration       `json:"keepalive_ns"`
	LastHandshake     time.Time           `json:"last_handshake,omitzero"`
	LastHeard         time.Time           `json:"last_heard,omitzero"`          // when something authenticated last came in
	Session           bool                `json:"session"`                      // there is one to send under
	HandshakeAttempts int                 `json:"handshake_attempts,omitempty"` // initiations sent since the last answer
	Wire              string              `json:"wire"`
	Suite             string              `json:"suite,omitempty"` // on the native wire that of the current session
	PostQuantum       bool                `json:"post_quantum"`    // the wire's handshake is hybrid
	ReceivedBytes     uint64              `json:"received_bytes"`  // UDP payload bytes, handshakes and keepalives included
	SentBytes         uint64              `json:"sent_bytes"`
	ReceivedPackets   uint64              `json:"received_packets"`
	SentPackets       uint64              `json:"sent_packets"`
	StagedBytes       int                 `json:"staged_bytes,omitempty"` // memory of packets that wait for a handshake
	Native            *NativeStatus       `json:"native,omitempty"`       // nil on WireGuard's wire
	Port              *PortStatus         `json:"port,omitempty"`         // nil where the device carries IP packets
	Access            *access.Status      `json:"access,omitempty"`       // nil where the peer is not restricted
}

// NativeStatus is what is known of a peer on the native wire besides. What the peer says of itself is only that.
type NativeStatus struct {
	PathMTU      int           `json:"path_mtu"`             // largest UDP payload known to arrive, in bytes
	InnerMTU     int           `json:"inner_mtu"`            // largest packet from the interface that needs no fragments for it
	PathSettled  bool          `json:"path_settled"`         // the search for a larger one is over
	RTT          time.Duration `json:"rtt_ns,omitempty"`     // smoothed, 0: not measured yet
	RTTMin       time.Duration `json:"rtt_min_ns,omitempty"` // of the last minute
	RTTDeviation time.Duration `json:"rtt_deviation_ns,omitempty"`
	Loss         *float64      `json:"loss,omitempty"`     // of what is sent to the peer, 0 to 1, over about a minute; nil: not measured yet
	Agent        string        `json:"agent,omitempty"`    // the peer's program
	PeerMTU      int           `json:"peer_mtu,omitempty"` // of the peer's interface
	Lanes        []LaneStatus  `json:"lanes,omitempty"`    // in order of number; none where there is one lane
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

// Sessions counts the peers there are, and those that have a session to send under. It takes next to nothing, also of many peers.
func (t *Tunnel) Sessions() (live, peers int) {
	now := t.clock.now()
	t.peersMu.RLock()
	defer t.peersMu.RUnlock()
	for _, p := range t.peers {
		if p.current.Load().maySend(now) {
			live++
		}
	}
	return live, len(t.peers)
}

// Status returns a snapshot of the tunnel.
func (t *Tunnel) Status() Status {
	t.configuring.Lock()
	defer t.configuring.Unlock()
	now := t.clock.now()
	s := Status{
		Name:       t.name(),
		Up:         t.isUp,
		Workers:    t.workerCount(),
		ListenPort: t.wantPort,
		Mark:       t.mark,
		MTU:        int(t.mtu.Load()),
		UnderLoad:  t.underLoad(now),
		Drops:      t.drops.snapshot(),
		Handshakes: t.statistics.snapshot(),
		Refused:    t.refused.snapshot(),
		Switch:     t.switchStatus(now),
		Peers:      []PeerStatus{},
	}
	if id := t.identity.Load(); id != nil {
		s.PrivateKey, s.PublicKey = id.private, id.noise.Public()
	}
	if b := t.bound.Load(); b != nil {
		s.Transport = b.socket.Counters()
	}
	_ = t.lanePorts.Load().each(func(p transport.Socket) error {
		s.Transport = s.Transport.Plus(p.Counters())
		return nil
	})
	peers := t.snapshotPeers()
	s.Peers = slices.Grow(s.Peers, len(peers))
	for _, p := range peers {
		s.Peers = append(s.Peers, p.status(t, now))
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int { return a.PublicKey.Compare(b.PublicKey) })
	return s
}

// status is the peer's part. Configuration is locked.
func (p *peer) status(t *Tunnel, now time.Duration) PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PeerStatus{
		PublicKey:         p.public,
		PresharedKey:      p.psk,
		HasPresharedKey:   !p.psk.IsZero(),
		AllowedIPs:        make([]netip.Prefix, 0, p.allowed.size()),
		Keepalive:         time.Duration(p.timers.interval.Load()),
		Session:           p.current.Load().maySend(now),
		HandshakeAttempts: int(p.timers.attempts.Load()),
		Wire:              p.wire().String(),
		ReceivedBytes:     p.receivedBytes.Load(),
		SentBytes:         p.sentBytes.Load(),
		ReceivedPackets:   p.receivedPackets.Load(),
		SentPackets:       p.sentPackets.Load(),
		StagedBytes:       p.staged.bytes,
		Port:              p.portStatus(now),
	}
	if a := p.access.Load(); a != nil {
		s.Access = new(a.Status(now))
	}
	if s.Native = p.nativeStatus(now); s.Native != nil {
		s.PostQuantum = true
		if kp := p.current.Load(); kp != nil {
			s.Suite = kp.Suite().String()
		}
	} else {
		s.Suite = crypto.ChaCha20Poly1305.String()
	}
	if ep := p.endpoint.Load(); ep != nil {
		s.Endpoint, s.EndpointText, s.OverTCP = *ep, ep.Remote.String(), ep.Stream != 0
		if ep.Source.IsValid() {
			s.Source = ep.Source.String()
		}
	}
	if at := p.lastHandshake.Load(); at != 0 {
		s.LastHandshake = time.Unix(0, at)
		s.LastHeard = s.LastHandshake
	}
	if at := time.Duration(p.heardAt.Load()); at != 0 {
		if heard := t.clock.wall().Add(-max(now-at, 0)); heard.After(s.LastHeard) {
			s.LastHeard = heard
		}
	}
	for prefix := range p.allowed.all() {
		s.AllowedIPs = append(s.AllowedIPs, prefix)
	}
	slices.SortFunc(s.AllowedIPs, func(a, b netip.Prefix) int { return a.Compare(b) })
	return s
}

func (s *statistics) snapshot() HandshakeStatistics {
	return HandshakeStatistics{
		InitiationsSent:     s.initiationsSent.Load(),
		InitiationsReceived: s.initiationsReceived.Load(),
		ResponsesSent:       s.responsesSent.Load(),
		ResponsesReceived:   s.responsesReceived.Load(),
		CookiesSent:         s.cookiesSent.Load(),
		CookiesReceived:     s.cookiesReceived.Load(),
		Completed:           s.completed.Load(),
	}
}
