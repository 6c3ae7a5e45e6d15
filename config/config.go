package config

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"time"

	"culvert/crypto"
)

// Bounds on what a configuration file may hold. A file beyond one of them is refused with an error that names it.
const (
	MaxFileSize   = 1 << 20 // bytes of a configuration file
	MaxKeyFile    = 4096    // bytes of a key file
	MaxTunnels    = 64      // tunnels in one file
	MaxPeers      = 8192    // peers of one tunnel
	MaxAddresses  = 256     // addresses of one tunnel
	MaxAllowedIPs = 65536   // allowed IPs of one tunnel, over all its peers
	MaxEndpoints  = 8       // endpoints of one peer
	MaxDNS        = 64      // name servers of one tunnel, and as many search domains
	MaxHooks      = 64      // commands per kind of hook
	MaxHookSize   = 4096    // bytes of one hook's command
	MaxDepth      = 16      // nested mappings and sequences in YAML
	MaxErrors     = 100     // errors reported for one file; one more says that the rest is left out
)

// A Position is a place in a configuration file. Line and Column count from 1, Column in characters. Line 0 stands for
// the file as a whole, and the zero Position for nowhere.
type Position struct {
	File   string
	Line   int
	Column int
}

// String gives file:line:column, or the file alone where there is no line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
}

// A File is one loaded configuration file, checked in itself: keys are read, relations between its parts hold.
type File struct {
	Path     string   // as given to Load
	Format   Format   // what the file was written in
	Instance string   // the file's name without extension unless the file says otherwise
	Tunnels  []Tunnel // in file order; exactly one for a wg-quick file
	Warnings []*Error // what is odd without being wrong, in file order

	source   *source    // for ErrorAt
	comments []Position // of a wg-quick file, for ImportWGQuick
}

// Format is the language of a configuration file.
type Format string

const (
	FormatYAML    Format = "yaml"
	FormatWGQuick Format = "wg-quick"
)

// Mode is what a tunnel carries. Only ModeTun is accepted in this version.
type Mode string

const (
	ModeTun Mode = "tun" // IP packets
	ModeTap Mode = "tap" // Ethernet frames
)

// Wire is the protocol spoken with a peer on the underlay. A peer is pinned to one; none falls back to the other.
type Wire string

const (
	WireCulvert   Wire = "culvert"   // the native wire, YAML's default
	WireWireGuard Wire = "wireguard" // WireGuard's, that of wg-quick files
)

// A Tunnel is one device and its peers.
type Tunnel struct {
	Name string // the device's name: 1 to 15 of the characters A-Z a-z 0-9 _ = + . -
	Pos  Position
	Mode Mode

	Wire    Wire // of the peers that have none of their own
	WirePos Position

	PostQuantum    bool // required of all peers: the native wire, which has no mode without it
	PostQuantumPos Position

	Listen    uint16 // UDP port; 0 lets the kernel pick one
	ListenPos Position

	PrivateKey     crypto.PrivateKey
	PrivateKeyFile string // the file as named in the configuration; empty where a wg-quick file holds the key itself
	PrivateKeyPos  Position

	Addresses []Prefix // with host bits, in file order, each once
	MTU       int      // bytes of an inner packet, 576 (1280 where the tunnel carries IPv6) to 65535; 0 is auto
	MTUPos    Position

	FwMark    FwMark
	FwMarkPos Position
	Table     Table
	TablePos  Position

	DNS   DNS
	Hooks Hooks

	SaveConfig    bool // of wg-quick files alone
	SaveConfigPos Position

	Peers []Peer // in file order
}

// Speaks reports whether any peer is on wire w; a tunnel without peers speaks its own.
func (t *Tunnel) Speaks(w Wire) bool {
	for i := range t.Peers {
		if cmp.Or(t.Peers[i].Wire, t.Wire) == w {
			return true
		}
	}
	return len(t.Peers) == 0 && t.Wire == w
}

// A Peer is the far end of a tunnel.
type Peer struct {
	Name string // the key in YAML; peer1, peer2... for a wg-quick file
	Pos  Position

	Wire    Wire     // its own or the tunnel's; "" stands for the tunnel's where no file was read
	WirePos Position // the zero Position where it is the tunnel's

	PostQuantum    bool     // required of it or by the tunnel of all
	PostQuantumPos Position // the zero Position where the tunnel requires it

	PublicKey    crypto.PublicKey
	PublicKeyPos Position

	PresharedKey     crypto.PresharedKey // zero where there is none
	PresharedKeyFile string              // as named in the configuration; empty where a wg-quick file holds the key itself
	PresharedKeyPos  Position

	Endpoints  []Endpoint // to be tried in this order; none waits for the peer to call
	AllowedIPs []Prefix   // masked, in file order, each given to one peer only

	Keepalive    time.Duration // whole seconds up to 65535 s; 0 is off
	KeepalivePos Position
}

// A Prefix is an address or network with its place in the file.
type Prefix struct {
	netip.Prefix
	Pos Position
}

// Prefixes strips the positions.
func Prefixes(ps []Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(ps))
	for i, p := range ps {
		out[i] = p.Prefix
	}
	return out
}

// An Endpoint is a peer's place on the underlay, not resolved.
type Endpoint struct {
	Host string // a name, or an IP address without brackets, possibly with an IPv6 zone
	Port uint16 // never 0
	Pos  Position
}

// String gives host:port, IPv6 addresses in brackets.
func (e Endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// FwMark is the mark of outgoing datagrams. The zero value is auto: a mark is picked where a default route needs one,
// and none is set otherwise. Set with Value 0 is off.
type FwMark struct {
	Set   bool
	Value uint32
}

// Table says where routes to allowed IPs go. The zero value is auto: the main table, and for default routes a table of
// their own with policy rules. Off adds none; otherwise Number is the routing table's number, never 0.
type Table struct {
	Off    bool
	Number uint32
}

// Auto reports whether the table is neither off nor numbered.
func (t Table) Auto() bool { return !t.Off && t.Number == 0 }

// DNS is what to resolve names with while the tunnel is up. Pos is the zero Position where neither is configured.
type DNS struct {
	Servers []netip.Addr
	Search  []string
	Pos     Position
}

// Hooks are shell commands run around a tunnel's going up and down, each list in file order.
type Hooks struct {
	PreUp, PostUp, PreDown, PostDown []Hook
}

// A Hook is one shell command, with %i standing for the device's name.
type Hook struct {
	Command string
	Pos     Position
}
