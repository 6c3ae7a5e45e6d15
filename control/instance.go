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
	Name string `json:"instance"`
	// Kind is "up" for a configuration file, "wg" for a device that wg configures, "apply" for a change on trial, "applied" where no
	// process runs: pid is 0 then, version and started are empty.
	Kind    string    `json:"kind"`
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started,omitzero"`
	// Goroutines is how many the process has: a figure that grows for days is a defect.
	Goroutines  int          `json:"goroutines,omitempty"`
	Confinement *Confinement `json:"confinement,omitempty"` // absent until the daemon is up
	File        string       `json:"file,omitempty"`
	Tunnels     []Tunnel     `json:"tunnels"`
	Network     *Network     `json:"network,omitempty"` // where the file declares one
}

// Confinement is what a daemon has given up for as long as it runs: "confined", or "open: " and why not.
type Confinement struct {
	Files string `json:"files"` // all but its own, by Landlock
	Calls string `json:"calls"` // system calls that it has no use for, by seccomp
}

// Network is the network that an instance's file declares around its tunnels.
type Network struct {
	Items       int       `json:"items"`                 // things declared
	Checked     time.Time `json:"checked,omitzero"`      // when the running system was last compared with them
	Drift       []Drift   `json:"drift"`                 // what is not as declared; nothing repairs it but a reload
	Error       string    `json:"error,omitempty"`       // why it could not be compared
	Unconfirmed float64   `json:"unconfirmed,omitempty"` // seconds until the change is undone, of the kind "apply"
	Abandoned   bool      `json:"abandoned,omitempty"`   // a change waits to be confirmed, and nothing undoes it any more
	Interrupted bool      `json:"interrupted,omitempty"` // an apply or destroy is half-way: it is at work, or was killed
}

// Drift is a thing that is not as declared.
type Drift struct {
	ID   string `json:"id"`             // as in "link br0", "attachment eth0"
	Is   string `json:"is"`             // "gone", "changed", "extra", or "conflict" where a reload cannot repair it
	Text string `json:"text"`           // as in "br0 port eth0: gone"
	Line string `json:"line,omitempty"` // file:line:column of what declares it
}

// Tunnel is one tunnel of an instance.
type Tunnel struct {
	Interface  string            `json:"interface"`
	Mode       string            `json:"mode"` // "tun" (IP packets) or "tap" (Ethernet frames)
	Up         bool              `json:"up"`
	PublicKey  string            `json:"public_key,omitempty"` // absent without a private key
	ListenPort uint16            `json:"listen_port,omitempty"`
	FwMark     uint32            `json:"fwmark,omitempty"`
	MTU        int               `json:"mtu"`
	Workers    int               `json:"workers"` // in each direction: the queues of the interface
	UnderLoad  bool              `json:"under_load"`
	Peers      []Peer            `json:"peers"`
	Drops      map[string]uint64 `json:"drops"` // packets by reason; reasons that never occurred are absent
	Transport  Transport         `json:"transport"`
	Handshakes Handshakes        `json:"handshakes"`
	Refused    []Refusal         `json:"refused,omitempty"` // whose handshakes come to nothing here, the most recent first, at most 24
	Switch     *Switch           `json:"switch,omitempty"`  // of a tap tunnel
	Server     bool              `json:"server,omitempty"`  // clients can join: "culvert client list" shows them
	Pulls      bool              `json:"pulls,omitempty"`   // it is the client of a server, which says what to set up
	Pulled     bool              `json:"pulled,omitempty"`  // and has said so
	SignIn     *SignIn           `json:"sign_in,omitempty"` // what the server asks of the user; absent where nothing
}

// Peer is one peer of a tunnel.
type Peer struct {
	PublicKey         crypto.PublicKey `json:"public_key"`
	Name              string           `json:"name,omitempty"` // in the configuration file
	PresharedKey      bool             `json:"preshared_key"`  // whether there is one
	Endpoint          string           `json:"endpoint,omitempty"`
	TCP               bool             `json:"tcp,omitempty"`    // the endpoint is that of a TCP connection
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
	Port              *Port            `json:"port,omitempty"`         // of a tap tunnel
	Access            *Access          `json:"access,omitempty"`       // absent where it may do everything
}

// Access is what a peer may do, and what was refused because of it.
type Access struct {
	Default      string      `json:"default"` // "allow" or "deny"
	Rules        int         `json:"rules"`
	Flows        int         `json:"flows"`                    // whose answers are let through
	Held         bool        `json:"held,omitempty"`           // nothing passes until it is released
	Closed       string      `json:"closed,omitempty"`         // "expired" or "outside its schedule": it has no session
	Expires      time.Time   `json:"expires,omitzero"`         // when it will have none any more
	Scheduled    bool        `json:"scheduled,omitempty"`      // there are times at which it has none
	FromPeerRate uint64      `json:"from_peer_rate,omitempty"` // bits a second
	ToPeerRate   uint64      `json:"to_peer_rate,omitempty"`
	Quota        *Quota      `json:"quota,omitempty"`
	FromPeer     AccessDrops `json:"refused_from_peer"`
	ToPeer       AccessDrops `json:"refused_to_peer"`
}

// Quota is a peer's, in bytes of the packets inside, both directions together.
type Quota struct {
	Bytes uint64    `json:"bytes"`
	Every string    `json:"every"` // "day", "week", "month" or "total"
	Used  uint64    `json:"used"`
	Since time.Time `json:"since,omitzero"`
}

// AccessDrops are packets, super-packets counting as one.
type AccessDrops struct {
	Denied    uint64 `json:"denied"`
	OverRate  uint64 `json:"over_rate"`
	OverQuota uint64 `json:"over_quota"`
	ShutOut   uint64 `json:"shut_out"`
}

// Switch is how a tap tunnel forwards frames.
type Switch struct {
	Wire      bool      `json:"wire"`    // between two ends all frames cross, whatever was learned
	Carrier   bool      `json:"carrier"` // of the interface
	Blocked   bool      `json:"blocked"` // because of a loop no frames cross between the interface and the peers
	Loops     uint64    `json:"loops"`   // how often one was found
	Moves     uint64    `json:"moves"`   // addresses that turned up elsewhere
	Addresses []Address `json:"addresses"`
}

// Address is a MAC address the switch knows. It is on this end's side or behind a peer.
type Address struct {
	MAC    string           `json:"mac"`
	VLAN   uint16           `json:"vlan,omitempty"` // absent: untagged; 4096 more than its number where it is a service VLAN of IEEE 802.1ad
	Local  bool             `json:"local"`
	Peer   crypto.PublicKey `json:"peer,omitzero"`
	Name   string           `json:"name,omitempty"` // the peer's, in the configuration file
	Age    int              `json:"age"`            // seconds since it was last heard of
	Pinned bool             `json:"pinned,omitempty"`
}

// Port is a peer's part of the switch.
type Port struct {
	Mutual    bool `json:"mutual,omitempty"` // it has this end as a spoke, too, so that neither relays for the other
	Spoke     bool `json:"spoke"`
	Alive     bool `json:"alive"` // whether it answers
	Addresses int  `json:"addresses"`
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
	Lanes       []Lane   `json:"lanes,omitempty"`         // absent where the session has one
}

// Lane is one of a session's lanes, and what lanes of that number have carried.
type Lane struct {
	Number          int    `json:"number"`
	Open            bool   `json:"open"` // data goes on it; otherwise on lane 0
	Endpoint        string `json:"endpoint,omitempty"`
	SentBytes       uint64 `json:"sent_bytes"` // of UDP payload, as the peer's
	ReceivedBytes   uint64 `json:"received_bytes"`
	SentPackets     uint64 `json:"sent_packets"`
	ReceivedPackets uint64 `json:"received_packets"`
}

// Transport counts what the tunnel's UDP socket did since it was opened.
type Transport struct {
	SentDatagrams     uint64   `json:"sent_datagrams"`
	SentBytes         uint64   `json:"sent_bytes"`
	SentCalls         uint64   `json:"sent_calls"`
	ReceivedDatagrams uint64   `json:"received_datagrams"`
	ReceivedBytes     uint64   `json:"received_bytes"`
	ReceivedCalls     uint64   `json:"received_calls"`
	SegmentFallbacks  uint64   `json:"segment_fallbacks"`
	SourceFallbacks   uint64   `json:"source_fallbacks"`
	SendErrors        uint64   `json:"send_errors"`
	Truncated         uint64   `json:"truncated"`
	SegmentOffload    bool     `json:"segment_offload"`
	ReceiveOffload    bool     `json:"receive_offload"`
	Streams           *Streams `json:"streams,omitempty"` // absent where there were none
}

// Streams counts TCP connections, and what they carried, since the socket was opened.
type Streams struct {
	Open              uint64 `json:"open"` // now
	Dialled           uint64 `json:"dialled"`
	Accepted          uint64 `json:"accepted"`
	Refused           uint64 `json:"refused"` // too many of one address
	Evicted           uint64 `json:"evicted"` // made room before anything authenticated had come
	Failed            uint64 `json:"failed"`  // no TLS, or no datagrams in it
	Silent            uint64 `json:"silent"`  // nothing authenticated came, or nothing at all for long
	Stuck             uint64 `json:"stuck"`   // took nothing for long
	SentDatagrams     uint64 `json:"sent_datagrams"`
	SentBytes         uint64 `json:"sent_bytes"`
	ReceivedDatagrams uint64 `json:"received_datagrams"`
	ReceivedBytes     uint64 `json:"received_bytes"`
	Full              uint64 `json:"full"` // datagrams dropped as the connection took no more
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

// Refusal is why handshakes of one far end come to nothing here.
type Refusal struct {
	Reason string           `json:"reason"`           // as among the drops
	Answer bool             `json:"answer,omitempty"` // it was the answer to a handshake of this end
	Peer   crypto.PublicKey `json:"public_key"`
	From   string           `json:"from"`
	Count  uint64           `json:"count"`
	Last   time.Time        `json:"last"`
	Behind float64          `json:"clock_behind,omitempty"` // seconds by which its clock is behind what it once said, where that is the reason
}
