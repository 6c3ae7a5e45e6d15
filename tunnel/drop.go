package tunnel

import "sync/atomic"

// DropReason says why a packet or message went no further. Each has a counter, shown by status.
type DropReason uint8

const (
	// Outbound: from the device.
	DropOutMalformed    DropReason = iota // no valid IP packet, or its offload does not fit it
	DropOutNoRoute                        // no peer's allowed IPs cover the destination
	DropOutNoEndpoint                     // the peer's address is not known yet
	DropOutRoutingLoop                    // one of this tunnel's own datagrams, routed back into it
	DropOutStagedFull                     // pushed out of a full queue of packets that await a handshake
	DropOutHandshake                      // gave up: the handshake it waited for never completed
	DropOutNoKey                          // the tunnel has no private key, so no handshake can be made
	DropOutSendFailed                     // the underlay refused the datagram
	DropOutSessionEnded                   // its session was erased while it was sealed
	DropOutPeerRemoved                    // the peer went away while the packet waited
	DropOutTunnelDown                     // the interface is down
	DropOutStagedMemory                   // all peers' waiting packets together reached their bound
	DropOutTooBig                         // the interface to the underlay takes no datagram as large
	DropOutTooLarge                       // more fragments than a packet may have
	DropOutLoop                           // frame while the interface is blocked because of a loop
	DropOutSameSide                       // frame for an address that is on this end's side as well
	DropOutLinkLocal                      // frame for the nearest bridge alone
	DropOutVLAN                           // frame of a VLAN that is not its peer's
	DropOutPinned                         // frame from an address that is pinned to a peer
	DropOutProbe                          // loop probe beyond the rate, or malformed
	DropOutStreamFull                     // the stream to the peer is slower than what is sent
	DropOutStreamGone                     // the stream to the peer has ended
	DropOutDenied                         // the rules do not allow it, nor does it answer anything
	DropOutRate                           // beyond the rate to the peer
	DropOutQuota                          // the peer's quota is used up
	DropOutShut                           // the peer is held, or its time is over or not now
	// Inbound: from the underlay.
	DropInMessage       // no message of this protocol: type, reserved bytes or length
	DropInIndex         // unknown receiver index
	DropInExpired       // the session is too old
	DropInDecrypt       // does not authenticate
	DropInReplay        // replayed, or behind the window
	DropInMalformed     // inner packet is no valid IP packet
	DropInSource        // inner source is not within the peer's allowed IPs
	DropInCongestion    // outer header says congestion, inner transport cannot be told (RFC 6040)
	DropInDevice        // the device refused the packet
	DropInMAC1          // handshake message with a wrong mac1
	DropInQueueFull     // handshake message while the queue of them was full
	DropInUnderLoad     // handshake message under load without a valid cookie
	DropInRateLimit     // handshake message beyond its source's rate
	DropInHandshake     // handshake message that does not verify
	DropInUnknownPeer   // initiation from a key that is no peer's
	DropInOldInitiation // initiation with a timestamp not newer than the last, or too soon after it
	DropInCookie        // cookie reply that does not verify
	DropInWire          // handshake message of another wire than the peer's
	DropInMAC2          // handshake message of the native wire with a mac2 neither zero nor right
	DropInKEM           // second part of an initiation whose first is not here
	DropInKind          // content of a kind that is not known, or too short for its trailer
	DropInLayer         // Ethernet frame for an IP tunnel, or the other way round
	DropInFragment      // malformed fragment, or one that contradicts another of its packet
	DropInReassembly    // packet of which fragments were missing for too long, or pushed out by others
	DropInControl       // malformed control message
	DropInControlRate   // control message beyond the peer's rate, or while the queue of them was full
	DropInOversize      // frame larger than the interface's MTU allows
	DropInLoop          // frame while the interface is blocked because of a loop
	DropInHorizon       // frame for a peer that this one's frames do not go to
	DropInSameSide      // frame for an address behind the peer it comes from
	DropInLinkLocal     // frame for the nearest bridge alone
	DropInVLAN          // frame of a VLAN that is not the peer's
	DropInPinned        // frame from an address pinned to somebody else or the interface's own, or not among the peer's
	DropInAddresses     // frame from one address more than the peer may have
	DropInBroadcast     // broadcast beyond the peer's rate
	DropInMulticast     // multicast beyond the peer's rate
	DropInUnknown       // frame for an unknown address beyond the peer's rate
	DropInProbe         // loop probe beyond the rate, or malformed
	DropInOtherAddress  // frame with or about an IP address that is not the peer's
	DropInDenied        // the rules do not allow it, nor does it answer anything
	DropInRate          // beyond the peer's rate
	DropInQuota         // the peer's quota is used up
	DropInShut          // packet or handshake of a peer that is held, or whose time is over or not now
	dropReasons
)

var dropNames = [dropReasons]string{
	DropOutMalformed:    "out: malformed packet",
	DropOutNoRoute:      "out: no peer for destination",
	DropOutNoEndpoint:   "out: peer has no endpoint",
	DropOutRoutingLoop:  "out: routing loop",
	DropOutStagedFull:   "out: queue for handshake full",
	DropOutHandshake:    "out: handshake never completed",
	DropOutNoKey:        "out: no private key",
	DropOutSendFailed:   "out: send failed",
	DropOutSessionEnded: "out: session ended",
	DropOutPeerRemoved:  "out: peer removed",
	DropOutTunnelDown:   "out: tunnel down",
	DropOutStagedMemory: "out: memory for waiting packets full",
	DropOutTooBig:       "out: too large for the underlay's interface",
	DropOutTooLarge:     "out: too large for fragments",
	DropOutLoop:         "out: blocked because of a loop",
	DropOutSameSide:     "out: destination on this side",
	DropOutLinkLocal:    "out: for the nearest bridge alone",
	DropOutVLAN:         "out: VLAN not the peer's",
	DropOutPinned:       "out: source pinned to a peer",
	DropOutProbe:        "out: bad or too frequent loop probe",
	DropOutStreamFull:   "out: TCP stream full",
	DropOutStreamGone:   "out: TCP stream ended",
	DropOutDenied:       "out: denied by rule",
	DropOutRate:         "out: over the peer's rate",
	DropOutQuota:        "out: over the peer's quota",
	DropOutShut:         "out: peer shut out",
	DropInMessage:       "in: not a message",
	DropInIndex:         "in: unknown receiver index",
	DropInExpired:       "in: session expired",
	DropInDecrypt:       "in: authentication failed",
	DropInReplay:        "in: replayed",
	DropInMalformed:     "in: malformed inner packet",
	DropInSource:        "in: source not in allowed IPs",
	DropInCongestion:    "in: congestion mark on a packet without ECN",
	DropInDevice:        "in: device refused",
	DropInMAC1:          "in: wrong mac1",
	DropInQueueFull:     "in: handshake queue full",
	DropInUnderLoad:     "in: no cookie under load",
	DropInRateLimit:     "in: handshake rate limit",
	DropInHandshake:     "in: handshake failed",
	DropInUnknownPeer:   "in: unknown peer",
	DropInOldInitiation: "in: old or hurried initiation",
	DropInCookie:        "in: bad cookie reply",
	DropInWire:          "in: handshake of another wire",
	DropInMAC2:          "in: wrong mac2",
	DropInKEM:           "in: second part without first",
	DropInKind:          "in: unknown kind of content",
	DropInLayer:         "in: content of another mode",
	DropInFragment:      "in: bad fragment",
	DropInReassembly:    "in: fragments missing",
	DropInControl:       "in: malformed control message",
	DropInControlRate:   "in: control message rate limit",
	DropInOversize:      "in: frame larger than the MTU",
	DropInLoop:          "in: blocked because of a loop",
	DropInHorizon:       "in: destination beyond the split horizon",
	DropInSameSide:      "in: destination behind its own peer",
	DropInLinkLocal:     "in: for the nearest bridge alone",
	DropInVLAN:          "in: VLAN not the peer's",
	DropInPinned:        "in: source pinned to another",
	DropInAddresses:     "in: too many addresses",
	DropInBroadcast:     "in: broadcast rate limit",
	DropInMulticast:     "in: multicast rate limit",
	DropInUnknown:       "in: unknown destination rate limit",
	DropInDenied:        "in: denied by rule",
	DropInRate:          "in: over the peer's rate",
	DropInQuota:         "in: over the peer's quota",
	DropInShut:          "in: peer shut out",
	DropInProbe:         "in: bad or too frequent loop probe",
	DropInOtherAddress:  "in: IP address not the peer's",
}

// String returns the reason as status shows it.
func (r DropReason) String() string {
	if r >= dropReasons {
		return "unknown"
	}
	return dropNames[r]
}

// drops counts dropped packets by reason.
type drops [dropReasons]atomic.Uint64

func (d *drops) add(r DropReason, n int) { d[r].Add(uint64(n)) }

func (d *drops) snapshot() map[string]uint64 {
	m := make(map[string]uint64)
	for r := range d {
		if n := d[r].Load(); n > 0 {
			m[DropReason(r).String()] = n
		}
	}
	return m
}
