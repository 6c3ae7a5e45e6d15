package spec

import (
	"net/netip"
	"time"
)

// Spec is everything one instance declares. References between its parts are by key: that of a link in Links, or of the peer of a
// veth; and by the names of namespaces.
type Spec struct {
	Instance  string // names the owner in every mark; file name characters, at most 64 bytes
	Netns     []Netns
	Links     []Link
	Shaping   []Shaping
	XConnects []XConnect
	Services  []Service
	Routes    []Route // beside those of the links
	Rules     []Rule
	NAT       []NAT
	Sysctls   []Sysctl
}

// Netns is a named network namespace, as ip-netns(8) knows it. The empty name, which is never declared, is the namespace culvert
// runs in.
type Netns struct {
	Place
	Name     string
	External bool // it is there already and stays
}

// Link is a virtual device, or one that is only referenced (External), or a tunnel's own.
type Link struct {
	Place
	Key   string // in the file; what references name
	Name  string // of the device, at most 15 bytes; "" is Key
	Netns string
	Type  Type
	// External says that the device is there already. It is never created and never deleted; what is declared of it is set, and
	// set back to what it was when it is declared no longer.
	External bool

	MTU        int // bytes; 0 leaves the kernel's
	MAC        *MAC
	TxQueueLen *uint32 // packets
	Up         *bool   // nil: true, but for an external link, where nil leaves it as it is
	Addresses  []Address
	Routes     []Route // into this link; their Link is not set

	// What one type takes; nil for all others.
	Tun    *Tun    // tun, tap; a tunnel's as well
	Veth   *Veth   // veth
	Bridge *Bridge // bridge
	Bond   *Bond   // bond
	Team   *Team   // team
	VLAN   *VLAN   // vlan
	Stack  *Stack  // macvlan, macvtap, ipvlan, ipvtap

	Ports    []Port    // of a bridge, bond or team, in the file's order
	Handover *Handover // of a tap, macvtap or ipvtap

	// GuestAddresses of an ipvtap are the addresses its guest uses: they are put on the host's side too, without which the kernel
	// delivers nothing to it.
	GuestAddresses []Address

	Client *Client // of a tunnel
	Serves *Serves // of a tunnel
}

// DeviceName is the name the kernel knows the link by.
func (l *Link) DeviceName() string {
	if l.Name != "" {
		return l.Name
	}
	return l.Key
}

// Type is the kind of a link, by the name that ip-link(8) has for it.
type Type string

// The types of links.
const (
	TypeTun     Type = "tun"
	TypeTap     Type = "tap"
	TypeVeth    Type = "veth"
	TypeBridge  Type = "bridge"
	TypeBond    Type = "bond"
	TypeTeam    Type = "team"
	TypeMacvlan Type = "macvlan"
	TypeMacvtap Type = "macvtap"
	TypeIPvlan  Type = "ipvlan"
	TypeIPvtap  Type = "ipvtap"
	TypeIfb     Type = "ifb"
	TypeVLAN    Type = "vlan"
	// TypeTunnel is the tun or tap of a tunnel, which the tunnel's daemon makes and owns: Tun.Mode says which. It goes with the daemon.
	TypeTunnel Type = "tunnel"
	// TypeExternal is the type of an external link of which none is said.
	TypeExternal Type = ""
)

// Types are all types a link may be declared with.
var Types = []Type{TypeTun, TypeTap, TypeVeth, TypeBridge, TypeBond, TypeTeam, TypeMacvlan, TypeMacvtap, TypeIPvlan, TypeIPvtap,
	TypeIfb, TypeVLAN, TypeTunnel}

// Tun is a tun or tap, made persistent unless it is a tunnel's.
type Tun struct {
	Mode    Type    // of a tunnel: TypeTun or TypeTap; else that of the link
	Queues  int     // 0 and 1: one; more: multi-queue (IFF_MULTI_QUEUE), the number being the most a hand-over gives
	Owner   *uint32 // user that may open it
	Group   *uint32 // and group
	VNetHdr *bool   // IFF_VNET_HDR
}

// Veth says what is at the other end of the cable. The peer is a link of its own for references: its key is Peer.Key.
type Veth struct {
	Peer Peer
}

// Peer is the second end of a veth pair.
type Peer struct {
	Place
	Key        string // the "name" in the file
	Netns      string
	MTU        int
	MAC        *MAC
	TxQueueLen *uint32
	Up         *bool
	Addresses  []Address
	Routes     []Route
}

// Bridge holds a bridge's own settings. Times are those of IEEE 802.1D.
type Bridge struct {
	STP          *bool
	Priority     *uint16        // of the bridge identifier
	ForwardDelay *time.Duration // 2 to 30 s
	HelloTime    *time.Duration // 1 to 10 s
	MaxAge       *time.Duration // 6 to 40 s
	AgeingTime   *time.Duration
	VLAN         BridgeVLAN
	Multicast    BridgeMulticast
}

// BridgeVLAN are the settings of VLAN filtering (IEEE 802.1Q).
type BridgeVLAN struct {
	Filtering   *bool
	DefaultPVID *uint16 // 0: none
	Protocol    string  // "802.1q" or "802.1ad"; "" leaves it
	Self        []PortVLAN
}

// BridgeMulticast are the settings of IGMP and MLD snooping.
type BridgeMulticast struct {
	Snooping *bool
	Querier  *bool
}

// Port is a link enslaved to a bridge, bond or team. The settings but Link are for one kind of master.
type Port struct {
	Place
	Link string // key

	// Of a bridge.
	Cost      *uint32 // path cost, 1 to 65535
	Priority  *uint16 // 0 to 63, in the upper bits of the port identifier
	Hairpin   *bool
	Isolated  *bool
	Learning  *bool
	Flood     *bool // unknown unicast
	Guard     *bool // BPDU guard
	RootBlock *bool
	FastLeave *bool
	VLANs     []PortVLAN // all there are to be; nil leaves the kernel's

	// Of a bond or team.
	QueueID *uint16
	Prio    *int32 // the preference among ports
	Sticky  *bool  // team: keeps being active when a better one returns
	Key     *uint16
}

// PortVLAN is a VLAN of a bridge's port, or a range of them.
type PortVLAN struct {
	VID, To  uint16 // 1 to 4094; To 0 is VID
	PVID     bool   // untagged frames belong to it
	Untagged bool   // it leaves untagged
}

// Bond holds the bonding driver's settings (Documentation/networking/bonding.rst).
type Bond struct {
	Mode            string // balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb
	MIIMon          *time.Duration
	UpDelay         *time.Duration
	DownDelay       *time.Duration
	ARPInterval     *time.Duration
	ARPTargets      []netip.Addr // IPv4
	NSTargets       []netip.Addr // IPv6
	ARPValidate     string       // none, active, backup, all, filter, filter_active, filter_backup
	ARPAllTargets   string       // any, all
	MissedMax       *uint8
	LACPRate        string // slow, fast
	LACPActive      *bool
	ADSelect        string // stable, bandwidth, count
	XmitHashPolicy  string // layer2, layer3+4, layer2+3, encap2+3, encap3+4, vlan+srcmac
	Primary         string // key of a port
	PrimaryReselect string // always, better, failure
	FailOverMAC     string // none, active, follow
	MinLinks        *uint32
	AllPortsActive  *bool
	PacketsPerPort  *uint32
	ResendIGMP      *uint32
	NumPeerNotify   *uint8
}

// Team holds what teamd.conf(5) says of a team.
type Team struct {
	Runner    Runner
	LinkWatch []LinkWatch
}

// Runner is the team's way of choosing ports.
type Runner struct {
	Place
	Name         string   // roundrobin, activebackup, loadbalance, lacp, broadcast, random
	TxHash       []string // eth, vlan, ipv4, ipv6, ip, l3, tcp, udp, sctp, l4
	TxBalancer   string   // "" or basic
	FastRate     *bool
	Active       *bool
	SysPrio      *uint16
	MinPorts     *int
	AggSelect    string // lacp_prio, lacp_prio_stable, bandwidth, count, port_config
	HWAddrPolicy string // activebackup: same_all, by_active, only_active
}

// LinkWatch is one of the ways a team finds out whether a port works.
type LinkWatch struct {
	Place
	Name             string // ethtool, arp_ping, nsna_ping
	Interval         time.Duration
	InitWait         time.Duration
	MissedMax        int
	SourceHost       netip.Addr // arp_ping
	TargetHost       netip.Addr // arp_ping IPv4, nsna_ping IPv6
	ValidateActive   *bool
	ValidateInactive *bool
	SendAlways       *bool
	DelayUp          time.Duration // ethtool
	DelayDown        time.Duration
}

// VLAN is a device for one tagged VLAN of its parent.
type VLAN struct {
	Parent   string // key
	VID      uint16 // 1 to 4094
	Protocol string // "" and 802.1q, or 802.1ad
}

// Stack is a device on top of a parent: macvlan, macvtap, ipvlan, ipvtap.
type Stack struct {
	Parent string // key
	Mode   string // macvlan, macvtap: bridge, vepa, private, passthru, source; ipvlan, ipvtap: l2, l3, l3s
	Flag   string // ipvlan, ipvtap: bridge, private, vepa; "" leaves it
	MACs   []MAC  // of mode source: who may send to it
}

// Handover gives the device's descriptors to a virtual machine's process.
type Handover struct {
	Place
	Socket string  // absolute path of a unix socket on which they are given out (SCM_RIGHTS)
	Mode   *uint32 // permissions of the socket, 0600 unless said
	Owner  *uint32 // user and group it belongs to
	Group  *uint32
}

// Address is an address of a link, host part included.
type Address struct {
	Place
	Prefix netip.Prefix
	NoDAD  bool // IPv6: usable at once, without duplicate address detection
}

// Route is an entry of a routing table.
type Route struct {
	Place
	Netns   string       // of a route outside a link
	Link    string       // key; "" where the gateway's own route tells
	Prefix  netip.Prefix // the destination; its host part is ignored
	Gateway netip.Addr   // may be zero
	Source  netip.Addr   // preferred source address, may be zero
	Table   uint32       // 0: main
	Metric  uint32       // 0: the kernel's choice
	MTU     int          // 0: none
	Type    string       // "" and unicast; blackhole, unreachable, prohibit
	OnLink  bool         // the gateway is a neighbour whatever the addresses say
}

// Rule chooses a routing table (ip-rule(8)).
type Rule struct {
	Place
	Netns             string
	Family            int // 4 or 6; 0: that of From or To, else both
	Priority          uint32
	Not               bool
	From, To          netip.Prefix // may be zero
	IIf, OIf          string       // keys or device names
	Mark, Mask        uint32       // Mask 0 with a Mark: all bits
	Table             uint32       // 0: main
	SuppressPrefixLen *uint32
	Action            string // "" and lookup; blackhole, unreachable, prohibit
}

// NAT is masquerading: what leaves by Out from one of the sources gets the address of Out.
type NAT struct {
	Place
	Netns   string
	Out     string         // key or device name
	Sources []netip.Prefix // none: all, per Family
	Family  int            // 4 or 6; 0: those of Sources, else 4
}

// Sysctl is a setting of the kernel's network, sysctl(8).
type Sysctl struct {
	Place
	Netns string
	Name  string // with dots, as net.ipv4.ip_forward; below net
	Value string // as the kernel shows it, with one space between words
}

// Shaping limits what a device receives, by way of an ifb, and what it sends.
type Shaping struct {
	Place
	Source    string // key
	IngressTo string // key of an ifb; "" for none
	Qdisc     *Qdisc // root of the ifb
	Egress    *Qdisc // root of the source
}

// Qdisc is a queueing discipline; exactly one of its fields is set.
type Qdisc struct {
	Place
	SFQ     *SFQ
	HTB     *HTB
	TBF     *TBF
	FQCodel *FQCodel
	Cake    *Cake
}

// Kind is the name of the discipline that is set, "" for none.
func (q *Qdisc) Kind() string {
	switch {
	case q.SFQ != nil:
		return "sfq"
	case q.HTB != nil:
		return "htb"
	case q.TBF != nil:
		return "tbf"
	case q.FQCodel != nil:
		return "fq_codel"
	case q.Cake != nil:
		return "cake"
	}
	return ""
}

// SFQ is stochastic fairness queueing (tc-sfq(8)).
type SFQ struct {
	Perturb *time.Duration // whole seconds
	Quantum *Size
	Limit   *uint32 // packets
	Divisor *uint32
}

// HTB is one class of hierarchical token bucket with a leaf (tc-htb(8)).
type HTB struct {
	Rate   BitRate
	Ceil   *BitRate
	Burst  *Size
	CBurst *Size
	Leaf   *Qdisc // nil: a FIFO of the device's transmit queue length
}

// TBF is the token bucket filter (tc-tbf(8)). One of Limit and Latency says how much may wait.
type TBF struct {
	Rate    BitRate
	Burst   Size
	Limit   *Size
	Latency *time.Duration // nil with no Limit: 50 ms
	Peak    *BitRate
	MTU     *Size // of the peak bucket
}

// FQCodel is fair queueing with controlled delay (tc-fq_codel(8)).
type FQCodel struct {
	Limit    *uint32 // packets
	Flows    *uint32
	Target   *time.Duration
	Interval *time.Duration
	Quantum  *Size
	ECN      *bool
	Memory   *Size
}

// Cake is tc-cake(8).
type Cake struct {
	Bandwidth *BitRate // nil: unlimited
	RTT       *time.Duration
	Diffserv  string // besteffort, precedence, diffserv3, diffserv4, diffserv8
	FlowMode  string // flowblind, srchost, dsthost, hosts, flows, dual-srchost, dual-dsthost, triple-isolate
	NAT       *bool
	Wash      *bool
	AckFilter string // no-ack-filter, ack-filter, ack-filter-aggressive
	Overhead  *int
	MPU       *uint32
	ATM       string // noatm, atm, ptm
	Memory    *Size
	Ingress   *bool
	SplitGSO  *bool
}

// XConnect joins two links frame for frame: what comes in by one goes out by the other.
type XConnect struct {
	Place
	A, B string // keys
}

// Service is a program that is run for the network; exactly one field is set. The team daemons are no services: they come with
// their links.
type Service struct {
	Place
	Dnsmasq *Dnsmasq
}

// Dnsmasq gives out addresses and names on one interface.
type Dnsmasq struct {
	Netns     string
	Interface string       // key
	Ranges    []string     // dnsmasq's --dhcp-range
	Hosts     []string     // --dhcp-host
	Options   []string     // --dhcp-option
	Domain    string       // --domain
	Servers   []netip.Addr // upstream name servers; none: the service answers no names
	DNS       bool         // listens on port 53
	LeaseFile string       // "" is one in the state directory
}
