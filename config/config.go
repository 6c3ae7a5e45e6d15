package config

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"culvert/crypto"
	"culvert/setup/spec"
)

// Bounds on what a configuration file may hold. A file beyond one of them is refused with an error that names it.
const (
	MaxFileSize   = 4 << 20 // bytes of a configuration file
	MaxKeyFile    = 4096    // bytes of a key file
	MaxTunnels    = 64      // tunnels in one file
	MaxPeers      = 16384   // peers of one tunnel
	MaxAddresses  = 256     // addresses of one tunnel
	MaxAllowedIPs = 65536   // allowed IPs of one tunnel, over all its peers
	MaxMACs       = 4096    // pinned MAC addresses of one tunnel, over all its peers
	MaxLearned    = 65536   // MAC addresses learned of one peer, as configured
	MaxQueues     = 16      // queues of one tunnel's device
	MaxEndpoints  = 8       // endpoints of one peer
	MaxDNS        = 64      // name servers of one tunnel, and as many search domains
	MaxExcept     = 64      // networks that a tunnel does not take
	MaxHooks      = 64      // commands per kind of hook
	MaxOn         = 16      // programs for events
	MaxOnEvents   = 64      // kinds of events for one
	MaxOnRun      = 64      // arguments of one, its path among them
	MaxHookSize   = 4096    // bytes of one hook's command
	MaxNetns      = 1024    // namespaces declared in one file
	MaxLinks      = 4096    // links declared in one file, tunnels aside
	MaxPorts      = 1024    // ports of one bridge (the kernel's bound, BR_MAX_PORTS), bond or team
	MaxTargets    = 16      // targets of a bond's ARP or ND monitor (the kernel's bound), and link watches of a team
	MaxSources    = 4096    // MAC addresses that one macvlan takes frames from
	MaxRoutes     = 4096    // routes of one link, and those beside the links
	MaxRules      = 4096    // policy rules
	MaxNAT        = 256     // masquerades, and sources of one
	MaxSysctls    = 256     // settings of the kernel
	MaxShaping    = 4096    // shaped devices
	MaxXConnects  = 2048    // cross-connected pairs
	MaxServices   = 256     // services
	MaxArguments  = 1024    // ranges, hosts or options of one service
	MaxDepth      = 16      // nested mappings and sequences in YAML
	MaxErrors     = 100     // errors reported for one file; one more says that the rest is left out
)

// The nice values there are (sched(7)).
const (
	MinNice = -20
	MaxNice = 19
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
	Nice     *int     // the daemon's nice value, MinNice to MaxNice; nil where the file says nothing
	Confine  Confine  // what the daemon gives up when it is up
	Monitor  Monitor  // where it tells of itself over HTTP; the zero Monitor is nowhere
	On       []On     // programs that are run at events
	Tunnels  []Tunnel // in file order; exactly one for a wg-quick file, and maybe none where Setup declares anything
	// Setup is the network around the tunnels, each of which is a link of it. It is valid where DeclaresSetup.
	Setup    spec.Spec
	Warnings []*Error // what is odd without being wrong, in file order

	declares bool       // any key of the setup layer
	source   *source    // for ErrorAt
	comments []Position // of a wg-quick file, for ImportWGQuick
}

// DeclaresSetup reports whether the file says anything about the network around its tunnels, or what they do to their machine.
func (f *File) DeclaresSetup() bool {
	return f.declares || slices.ContainsFunc(f.Setup.Links, func(l spec.Link) bool { return l.Client != nil || l.Serves != nil })
}

// Tunnel is the tunnel of a name, nil where there is none.
func (f *File) Tunnel(name string) *Tunnel {
	if i := slices.IndexFunc(f.Tunnels, func(t Tunnel) bool { return t.Name == name }); i >= 0 {
		return &f.Tunnels[i]
	}
	return nil
}

// Confine is what a daemon gives up when it is up.
type Confine string

const (
	ConfineByItself Confine = ""      // system calls; files where it is not root with all rights
	ConfineFiles    Confine = "files" // files whoever it is
	ConfineNothing  Confine = "false"
)

// Format is the language of a configuration file.
type Format string

const (
	FormatYAML    Format = "yaml"
	FormatWGQuick Format = "wg-quick"
)

// Mode is what a tunnel carries.
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

	Mode    Mode
	ModePos Position // the zero Position where it is not given

	Wire    Wire // of the peers that have none of their own
	WirePos Position

	PostQuantum    bool // required of all peers: the native wire, which has no mode without it
	PostQuantumPos Position

	Listen    uint16 // UDP port; 0 lets the kernel pick one
	ListenPos Position

	TCP TCP // where it accepts peers that UDP does not reach

	PrivateKey     crypto.PrivateKey
	PrivateKeyFile string // the file as named in the configuration; empty where a wg-quick file holds the key itself
	PrivateKeyPos  Position

	Addresses []Prefix // with host bits, in file order, each once
	MTU       int      // bytes of an inner packet, 576 (1280 where the tunnel carries IPv6) to 65535 (65513 in a frame); 0 is auto
	MTUPos    Position
	Queues    int // of the device, and workers each way, 1 to MaxQueues; 0 is auto
	QueuesPos Position

	FwMark    FwMark
	FwMarkPos Position
	Table     Table
	TablePos  Position

	DNS   DNS
	Hooks Hooks

	FullTunnel    Families // whose every packet goes into the tunnel
	FullTunnelPos Position
	Except        []Prefix // networks that are reached without it, masked
	KillSwitch    bool     // nothing leaves the machine but by the tunnel
	KillSwitchPos Position
	Mark          uint32 // what its datagrams carry: FwMark's, or one that was picked; 0 is none

	MAC         MAC // of the interface of a tap tunnel; zero is the kernel's choice
	MACPos      Position
	Switch      Switch // of a tap tunnel
	KeepCarrier bool   // of a tap tunnel's interface: it is on whether or not a peer is reached

	Server *Server // nil where nobody can join; of a tunnel of IP packets alone

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
	TCP        []Endpoint // where it is dialled when UDP does not get through, in this order; none: nowhere
	TCPText    string     // as written: a port, or host:port
	TCPPos     Position   // the zero Position where it is not given
	AllowedIPs []Prefix   // masked, in file order, each given to one peer only; none in a tap tunnel

	Keepalive    time.Duration // whole seconds up to 65535 s; 0 is off
	KeepalivePos Position      // the zero Position where it is not given

	Pull      bool     // the peer is a server, which says what to set up here
	PullPos   Position // the zero Position where it is not given
	Accept    Accept   // of what it says
	AcceptPos Position

	Access *Access // nil: everything that its allowed IPs, or its part of the switch, let it

	// What no file says of a peer.
	Apart   bool // a server's client that is kept from the others
	Invited bool // the end of an invitation: it carries nothing

	// Of a tap tunnel's peer.
	Spoke      bool      // frames from it are sent on to the other peers
	MACs       []Station // the only source addresses accepted from it, in file order; none is any
	MaxMACs    int       // addresses learned of it, 1 to MaxLearned; 0 is the default
	MaxMACsPos Position
	VLANs      VLANs
	Limits     Limits
	// Sources are the only IP addresses that frames from it may come from, of a server's client, which no file names; nil is any.
	Sources []netip.Prefix
	// HoldsMACs has the MAC addresses that such a client was heard with kept for it.
	HoldsMACs bool
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
	Servers  []netip.Addr
	Domains  []string // asked of Servers, with all below them; a ~ in front: not for completing names; "~.", and none: all
	Search   []string // for completing names
	Resolver string   // who is told: one of [spec.Resolvers], or ""
	Pos      Position
}

// Hooks are shell commands run around a tunnel's going up and down, each list in file order.
type Hooks struct {
	PreUp, PostUp, PreDown, PostDown []Hook
}

// On is a program that is run at events, without a shell: docs/api.md lists these.
type On struct {
	Events    []string // kinds, or groups of them; at least one
	EventsPos Position
	Run       []string // the program's full path, and its arguments
	Pos       Position
}

// A Hook is one shell command, with %i standing for the device's name.
type Hook struct {
	Command string
	Pos     Position
}
