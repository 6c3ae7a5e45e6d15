package tunnel

import (
	"net/netip"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel/access"
)

// Options are what a tunnel is born with; everything else is changed while it runs through [Tunnel.Configure].
type Options struct {
	// Logf receives control-plane remarks (never one per packet, never a key). nil is silence.
	Logf func(format string, args ...any)
	// Debugf receives finer control-plane remarks, such as each handshake. nil is silence.
	Debugf func(format string, args ...any)
	// HandshakeFailing is called, from a goroutine of its own and at most once per peer and retry, when an initiation to a
	// peer went unanswered: the moment to resolve its endpoint's name again. nil is no call.
	HandshakeFailing func(peer crypto.PublicKey)
	// LinkUp is called, from a goroutine of its own, when the interface has come up again after it was down: the kernel has
	// dropped its routes and IPv6 addresses meanwhile. nil is no call.
	LinkUp func()
	// Pushed is called, in order, with each document that a peer on the native wire has sent by [Tunnel.Push]. The peer is
	// authenticated but not trusted, and may send one again. It is called from the control loop and must not block or call
	// the tunnel. nil ignores them.
	Pushed func(from crypto.PublicKey, subject string, document []byte)
	// Greeted is called once for each session with a peer on the native wire, when it has said hello under it from the given endpoint: the
	// moment to push. It is called from the control loop as Pushed is. nil is no call.
	Greeted func(peer crypto.PublicKey, from netip.AddrPort)
	// Greet calls peers on the native wire as soon as the interface is up and an endpoint of theirs is known, not with the first packet
	// for them: a peer that had a session with an earlier life of this end, one that was killed, would go on using it for up to 15 s.
	Greet bool
	// Sleep, where it is not nil, calls woke after each time that the machine was suspended, with how long that was, until stop is closed. It
	// returns soon after that. The monotonic clock, by which the engine goes, has stood still meanwhile.
	Sleep func(stop <-chan struct{}, woke func(slept time.Duration))
	// Agent is how this program names itself to peers on the native wire, at most 64 printable bytes.
	Agent string
	// Restore is the state of a tunnel that was suspended, which this one goes on with: it is up once it was configured for the first time, with
	// the same key and the same peers. The network has to give it the sockets that the other had (see [Tunnel.Suspend]). nil begins anew.
	Restore *State
	// Suites is what is offered on the native wire; zero measures which are fast here.
	Suites crypto.Suites
}

// Change is one transaction on a running tunnel, with the semantics of the cross-platform userspace API's `set`
// (https://www.wireguard.com/xplatform/). A nil field leaves things as they are. It is validated as a whole before
// anything is changed.
type Change struct {
	PrivateKey   *crypto.PrivateKey // the zero key removes it
	ListenPort   *uint16            // 0 picks a free port
	Mark         *uint32            // fwmark of outgoing datagrams, 0 for none
	Switch       *SwitchChange      // only where the device carries Ethernet frames
	PostQuantum  *bool              // from now on refuse peers that are not on the native wire, whoever adds them
	ReplacePeers bool               // peers not named by a later entry of Peers are removed
	Peers        []PeerChange
}

// PeerChange adds, changes or removes one peer.
type PeerChange struct {
	PublicKey         crypto.PublicKey
	Remove            bool
	UpdateOnly        bool  // do nothing where the peer does not exist
	Wire              *Wire // a new peer has WireGuard's without it; another one ends the session
	PresharedKey      *crypto.PresharedKey
	Endpoint          *transport.Endpoint
	Keepalive         *time.Duration // whole seconds up to 65535 s; 0 turns it off
	ReplaceAllowedIPs bool
	AllowedIPs        []AllowedIPChange
	Streams           *[]transport.StreamTarget // where streams to it are dialled, in turn, when UDP does not reach it; none: nowhere
	Port              *PortChange               // only where the device carries Ethernet frames
	// Access is what the peer may do from now on; access.Unrestricted ends all restrictions. A peer keeps its policy through
	// ReplacePeers: who does not know of policies, such as `wg syncconf`, does not lift them.
	Access *access.Policy
	Usage  *access.Usage // what it has used of its quota before, of a state that was kept
	Held   *bool         // nothing but control messages passes as long as it is
}

// AllowedIPChange moves a prefix to the peer (from whichever peer had it), or removes it from this peer.
type AllowedIPChange struct {
	Prefix netip.Prefix
	Remove bool
}
