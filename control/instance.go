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
	Name string `json:"instance"` // its name
	// "up" for a configuration file, "wg" for a device that wg configures, "apply" for a change on trial, "applied" where no
	// process runs: pid is 0 then, version and started are empty.
	Kind    string    `json:"kind"`
	PID     int       `json:"pid"`              // of the daemon's process
	Version string    `json:"version"`          // of the program, as "culvert version" prints it
	Started time.Time `json:"started,omitzero"` // when the daemon was
	// Goroutines is how many the process has: a figure that grows for days is a defect.
	Goroutines  int          `json:"goroutines,omitempty"`
	Confinement *Confinement `json:"confinement,omitempty"` // absent until the daemon is up
	File        string       `json:"file,omitempty"`        // configuration file, with its full path; absent for "wg"
	Tunnels     []Tunnel     `json:"tunnels"`               // that are up
	Network     *Network     `json:"network,omitempty"`     // around them; absent where the file declares none
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
	Interface  string            `json:"interface"`             // its name
	Mode       string            `json:"mode"`                  // "tun" (IP packets) or "tap" (Ethernet frames)
	Up         bool              `json:"up"`                    // the interface is up, and the port open
	PublicKey  string            `json:"public_key,omitempty"`  // absent without a private key
	ListenPort uint16            `json:"listen_port,omitempty"` // UDP port
	FwMark     uint32            `json:"fwmark,omitempty"`      // of the datagrams it sends
	MTU        int               `json:"mtu"`                   // of the interface, in bytes
	Workers    int               `json:"workers"`               // in each direction: the queues of the interface
	UnderLoad  bool              `json:"under_load"`            // more handshakes come than are answered: who calls has to show a cookie first
	Peers      []Peer            `json:"peers"`                 // in order of their keys
	Drops      map[string]uint64 `json:"drops"`                 // packets by reason; reasons that never occurred are absent
	Transport  Transport         `json:"transport"`             // what its sockets did
	Handshakes Handshakes        `json:"handshakes"`            // its messages
	Refused    []Refusal         `json:"refused,omitempty"`     // whose handshakes come to nothing here, the most recent first, at most 24
	Switch     *Switch           `json:"switch,omitempty"`      // of a tap tunnel
	Server     bool              `json:"server,omitempty"`      // clients can join: "culvert client list" shows them
	Pulls      bool              `json:"pulls,omitempty"`       // it is the client of a server, which says what to set up
	Pulled     bool              `json:"pulled,omitempty"`      // and has said so
	Given      *Given            `json:"given,omitempty"`       // what of it is in force; absent before
	SignIn     *SignIn           `json:"sign_in,omitempty"`     // what the server asks of the user; absent where nothing
}

// Given is what the server of a tunnel has said to set up, as far as it was accepted and the file does not say otherwise.
type Given struct {
	Addresses  []netip.Prefix `json:"addresses,omitempty"`   // of the interface
	Routes     []netip.Prefix `json:"routes,omitempty"`      // into the tunnel
	DNS        []netip.Addr   `json:"dns,omitempty"`         // name servers
	Domains    []string       `json:"domains,omitempty"`     // asked of them; absent: all
	Search     []string       `json:"search,omitempty"`      // domains that complete short names
	FullTunnel bool           `json:"full_tunnel,omitempty"` // everything goes into the tunnel
}

// Peer is one peer of a tunnel.
type Peer struct {
	PublicKey         crypto.PublicKey `json:"public_key"`                     // by which it is known
	Name              string           `json:"name,omitempty"`                 // in the configuration file
	PresharedKey      bool             `json:"preshared_key"`                  // whether there is one
	Endpoint          string           `json:"endpoint,omitempty"`             // address:port where it is sent to
	TCP               bool             `json:"tcp,omitempty"`                  // the endpoint is that of a TCP connection
	Source            string           `json:"source,omitempty"`               // local address its packets came to
	AllowedIPs        []netip.Prefix   `json:"allowed_ips"`                    // that it has inside
	Keepalive         int              `json:"persistent_keepalive,omitempty"` // seconds
	LatestHandshake   time.Time        `json:"latest_handshake,omitzero"`      // when one was last completed
	LastHeard         time.Time        `json:"last_heard,omitzero"`            // when anything last came in from it
	Connected         bool             `json:"connected"`                      // there is a session: made less than 180 seconds ago, and ended by neither end
	HandshakeAttempts int              `json:"handshake_attempts,omitempty"`   // unanswered ones
	Wire              string           `json:"wire"`                           // "culvert" or "wireguard"
	Suite             string           `json:"suite,omitempty"`                // of the current session
	PostQuantum       bool             `json:"post_quantum"`                   // whether the key exchange is hybrid
	ReceivedBytes     uint64           `json:"received_bytes"`                 // UDP payload, as the other counts
	SentBytes         uint64           `json:"sent_bytes"`                     // the same
	ReceivedPackets   uint64           `json:"received_packets"`               // messages
	SentPackets       uint64           `json:"sent_packets"`                   // messages
	StagedBytes       int              `json:"staged_bytes,omitempty"`         // waiting for a handshake
	Native            *Native          `json:"native,omitempty"`               // absent on the wireguard wire
	Port              *Port            `json:"port,omitempty"`                 // of a tap tunnel
	Access            *Access          `json:"access,omitempty"`               // absent where it may do everything
}

// Silent reports whether the peer does not answer handshakes. The first one may be on its way.
func (p *Peer) Silent() bool { return p.HandshakeAttempts > 1 }

// Access is what a peer may do, and what was refused because of it.
type Access struct {
	Default      string      `json:"default"`                  // "allow" or "deny"
	Rules        int         `json:"rules"`                    // how many there are
	Flows        int         `json:"flows"`                    // whose answers are let through
	Held         bool        `json:"held,omitempty"`           // nothing passes until it is released
	Closed       string      `json:"closed,omitempty"`         // "expired" or "outside its schedule": it has no session
	Expires      time.Time   `json:"expires,omitzero"`         // when it will have none any more
	Scheduled    bool        `json:"scheduled,omitempty"`      // there are times at which it has none
	FromPeerRate uint64      `json:"from_peer_rate,omitempty"` // bits a second
	ToPeerRate   uint64      `json:"to_peer_rate,omitempty"`   // the same
	Quota        *Quota      `json:"quota,omitempty"`          // absent where there is none
	FromPeer     AccessDrops `json:"refused_from_peer"`        // what was refused of what it sent
	ToPeer       AccessDrops `json:"refused_to_peer"`          // what was refused of what is for it
}

// Quota is a peer's, in bytes of the packets inside, both directions together.
type Quota struct {
	Bytes uint64    `json:"bytes"`          // that it may use in each
	Every string    `json:"every"`          // "day", "week", "month" or "total"
	Used  uint64    `json:"used"`           // of them
	Since time.Time `json:"since,omitzero"` // when the present one began
}

// AccessDrops are packets, super-packets counting as one.
type AccessDrops struct {
	Denied    uint64 `json:"denied"`     // by the rules
	OverRate  uint64 `json:"over_rate"`  // more than the rate lets through
	OverQuota uint64 `json:"over_quota"` // the quota is used up
	ShutOut   uint64 `json:"shut_out"`   // it is held, expired or outside its schedule
}

// Switch is how a tap tunnel forwards frames.
type Switch struct {
	Wire      bool      `json:"wire"`      // between two ends all frames cross, whatever was learned
	Carrier   bool      `json:"carrier"`   // of the interface
	Blocked   bool      `json:"blocked"`   // because of a loop no frames cross between the interface and the peers
	Loops     uint64    `json:"loops"`     // how often one was found
	Moves     uint64    `json:"moves"`     // addresses that turned up elsewhere
	Addresses []Address `json:"addresses"` // that are known
}

// Address is a MAC address the switch knows. It is on this end's side or behind a peer.
type Address struct {
	MAC    string           `json:"mac"`              // six bytes in hexadecimal, with colons
	VLAN   uint16           `json:"vlan,omitempty"`   // absent: untagged; 4096 more than its number where it is a service VLAN of IEEE 802.1ad
	Local  bool             `json:"local"`            // it is on this end's side
	Peer   crypto.PublicKey `json:"peer,omitzero"`    // that it is behind; absent where it is local
	Name   string           `json:"name,omitempty"`   // the peer's, in the configuration file
	Age    int              `json:"age"`              // seconds since it was last heard of
	Pinned bool             `json:"pinned,omitempty"` // by the file: it does not move
}

// Port is a peer's part of the switch.
type Port struct {
	Mutual    bool `json:"mutual,omitempty"` // it has this end as a spoke, too, so that neither relays for the other
	Spoke     bool `json:"spoke"`            // it is one of a hub, which this end is
	Alive     bool `json:"alive"`            // whether it answers
	Addresses int  `json:"addresses"`        // how many are known behind it
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
	Number          int    `json:"number"`             // from 0 on
	Open            bool   `json:"open"`               // data goes on it; otherwise on lane 0
	Endpoint        string `json:"endpoint,omitempty"` // address:port it leads to
	SentBytes       uint64 `json:"sent_bytes"`         // of UDP payload, as the peer's
	ReceivedBytes   uint64 `json:"received_bytes"`     // the same
	SentPackets     uint64 `json:"sent_packets"`       // messages
	ReceivedPackets uint64 `json:"received_packets"`   // messages
}

// Transport counts what the tunnel's UDP socket did since it was opened.
type Transport struct {
	SentDatagrams     uint64   `json:"sent_datagrams"`     // how many
	SentBytes         uint64   `json:"sent_bytes"`         // of UDP payload
	SentCalls         uint64   `json:"sent_calls"`         // system calls for them
	ReceivedDatagrams uint64   `json:"received_datagrams"` // how many
	ReceivedBytes     uint64   `json:"received_bytes"`     // of UDP payload
	ReceivedCalls     uint64   `json:"received_calls"`     // system calls for them
	SegmentFallbacks  uint64   `json:"segment_fallbacks"`  // trains that the kernel did not take, and that went as single datagrams
	SourceFallbacks   uint64   `json:"source_fallbacks"`   // datagrams that went without the source address wanted, which was gone
	SendErrors        uint64   `json:"send_errors"`        // datagrams that could not be sent
	Truncated         uint64   `json:"truncated"`          // datagrams that were longer than any message
	SegmentOffload    bool     `json:"segment_offload"`    // trains are sent in one call (UDP_SEGMENT)
	ReceiveOffload    bool     `json:"receive_offload"`    // trains are received in one call (UDP_GRO)
	Streams           *Streams `json:"streams,omitempty"`  // absent where there were none
}

// Streams counts TCP connections, and what they carried, since the socket was opened.
type Streams struct {
	Open              uint64 `json:"open"`               // now
	Dialled           uint64 `json:"dialled"`            // opened by this end
	Accepted          uint64 `json:"accepted"`           // opened by others
	Refused           uint64 `json:"refused"`            // too many of one address
	Evicted           uint64 `json:"evicted"`            // made room before anything authenticated had come
	Failed            uint64 `json:"failed"`             // no TLS, or no datagrams in it
	Silent            uint64 `json:"silent"`             // nothing authenticated came, or nothing at all for long
	Stuck             uint64 `json:"stuck"`              // took nothing for long
	SentDatagrams     uint64 `json:"sent_datagrams"`     // over them
	SentBytes         uint64 `json:"sent_bytes"`         // of those, without framing
	ReceivedDatagrams uint64 `json:"received_datagrams"` // over them
	ReceivedBytes     uint64 `json:"received_bytes"`     // of those, without framing
	Full              uint64 `json:"full"`               // datagrams dropped as the connection took no more
}

// Handshakes counts handshake messages since the tunnel started.
type Handshakes struct {
	InitiationsSent     uint64 `json:"initiations_sent"`     // first messages
	InitiationsReceived uint64 `json:"initiations_received"` // that were genuine
	ResponsesSent       uint64 `json:"responses_sent"`       // second messages
	ResponsesReceived   uint64 `json:"responses_received"`   // that were genuine
	CookiesSent         uint64 `json:"cookies_sent"`         // to those who called under load
	CookiesReceived     uint64 `json:"cookies_received"`     // that were genuine
	Completed           uint64 `json:"completed"`            // handshakes that made a session
}

// Refusal is why handshakes of one far end come to nothing here.
type Refusal struct {
	Reason string           `json:"reason"`                 // as among the drops
	Answer bool             `json:"answer,omitempty"`       // it was the answer to a handshake of this end
	Peer   crypto.PublicKey `json:"public_key"`             // of whoever was refused
	From   string           `json:"from"`                   // address:port it called from last
	Count  uint64           `json:"count"`                  // how often
	Last   time.Time        `json:"last"`                   // when it was so last
	Behind float64          `json:"clock_behind,omitempty"` // seconds by which its clock is behind what it once said, where that is the reason
}
