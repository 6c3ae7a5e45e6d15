package tunnel

import (
	"net/netip"
	"time"

	"culvert/crypto"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/switching"
)

// This file is what a tunnel that carries Ethernet frames is configured with, and what it tells of itself, besides what every
// tunnel has.

// SwitchChange is how a tunnel that carries Ethernet frames forwards them, as a whole.
type SwitchChange struct {
	// Ageing is after how long an address that sent nothing is forgotten; 0 is DefaultAgeing.
	Ageing time.Duration
	// LinkLocal forwards frames to 01:80:c2:00:00:00 to 0f, such as spanning tree's, also between more than two. Between two
	// ends they always cross.
	LinkLocal bool
	// Proxy answers ARP requests and IPv6 neighbour solicitations for known stations at the other peers' ends, instead of
	// sending them there.
	Proxy bool
	// KeepLoops turns the detection of loops off.
	KeepLoops bool
	// KeepCarrier leaves the interface's carrier on, whether or not any peer is reached.
	KeepCarrier bool
}

// DefaultAgeing is that of the forwarding database.
const DefaultAgeing = switching.DefaultAgeing

// PortChange is how frames to and from one peer are treated, as a whole. Limits count frames a second that come from the peer;
// 0 stands for the default, or less where each frame goes to so many others that together they were more than FloodBudget, and
// -1 for no limit. Between two ends only limits that are given hold.
type PortChange struct {
	// Spoke has frames that come from this peer sent on to others as well. Without it they go to the interface and to spokes
	// only, so that in a full mesh nothing comes twice (RFC 4762 §4.4, §10).
	Spoke bool
	// Pinned are the only source addresses accepted from the peer, and are accepted from nobody else; none is any.
	Pinned []ethernet.Address
	// Sources are the only IP addresses that frames from the peer may come from or claim, besides link-local ones of IPv6 (package
	// sourceguard); nil is any, and an empty list none.
	Sources []netip.Prefix
	// MaxAddresses is how many addresses are learned of the peer; 0 is DefaultMaxAddresses. Frames from more are dropped.
	MaxAddresses int
	// Held has the addresses that were learned of the peer taken from no other peer, and none taken over from others that sent from it within
	// the ageing time, for as long as there is a session with it. They do not age but where there are MaxAddresses of them.
	Held bool
	// PVID is the VLAN of the peer's untagged frames, 1 to 4094; frames of it go to the peer untagged. 0: untagged frames
	// stay so.
	PVID uint16
	// VLANs are the VLANs whose frames cross tagged, 1 to 4094. With PVID or VLANs set all others are dropped.
	VLANs []uint16
	// Closed has no frame cross, whatever else is said: the peer is there for what is said beside frames.
	Closed bool

	Broadcast, Multicast, UnknownUnicast int
}

// Defaults of PortChange.
const (
	DefaultMaxAddresses   = 1024
	DefaultBroadcast      = 1000
	DefaultMulticast      = 10000
	DefaultUnknownUnicast = 2000
	// FloodBudget is how many copies a second the frames of one peer may become by default.
	FloodBudget = 50000
)

// SwitchStatus is a snapshot of how a tunnel forwards frames.
type SwitchStatus struct {
	Wire      bool           `json:"wire"`    // two ends: everything crosses, nothing is learned
	Carrier   bool           `json:"carrier"` // whether a peer is reached
	Blocked   bool           `json:"blocked"` // frames do not cross between the interface and the peers, because of a loop
	Loops     uint64         `json:"loops"`   // how often a loop was found
	Moves     uint64         `json:"moves"`   // addresses that turned up elsewhere
	Answers   uint64         `json:"answers"` // questions of ARP and neighbour discovery answered in a station's place
	Addresses []AddressEntry `json:"addresses"`
}

// AddressEntry is one learned address.
type AddressEntry struct {
	Address ethernet.Address `json:"mac"`
	VLAN    uint16           `json:"vlan,omitempty"` // 0: untagged; with 0x1000 a service VLAN of IEEE 802.1ad
	Local   bool             `json:"local"`          // on this end's side
	Peer    crypto.PublicKey `json:"peer,omitzero"`  // otherwise the peer it is behind
	Age     time.Duration    `json:"age_ns"`         // since it sent last; -1: it is pinned and sent nothing yet
	Pinned  bool             `json:"pinned,omitempty"`
}

// PortStatus is a peer's part of it.
type PortStatus struct {
	Spoke     bool `json:"spoke"`
	Mutual    bool `json:"mutual,omitempty"` // each end calls the other a spoke, so that neither relays for the other
	Alive     bool `json:"alive"`            // answers
	Addresses int  `json:"addresses"`
}
