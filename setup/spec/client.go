package spec

import (
	"net/netip"
	"slices"
	"strings"
)

// Client is what a tunnel does to the machine it is on, beyond its own device: how names are resolved, and what leaves by it. It is
// said in a file, or told by a server.
type Client struct {
	Place
	DNS *DNS
	// Full are the address families all of whose traffic goes into the tunnel: 4, 6. What Carries has not goes nowhere.
	Full []int
	// Carries are the families that the tunnel has an address of and whose default route a peer is allowed.
	Carries []int
	// Except are networks that are reached without the tunnel.
	Except []netip.Prefix
	// KillSwitch lets nothing out but by the tunnel, whether or not that is up.
	KillSwitch bool
	// Mark is the fwmark of the tunnel's own datagrams, Table the routing table that leads into it; not 0 where Full or KillSwitch is
	// said.
	Mark, Table uint32
	// Addresses are the tunnel's own, which nobody else may deliver to.
	Addresses []netip.Addr
	// Endpoints are where its datagrams go. AnyEndpoint says that more may come: names, peers that call, of more than MaxEndpoints.
	Endpoints   []netip.AddrPort
	AnyEndpoint bool
	Lookup      bool   // names of endpoints are to be resolved
	Listen      uint16 // UDP port at which peers call; 0 where the kernel picks it
}

// MaxEndpoints is how many endpoints of a tunnel a kill switch tells apart.
const MaxEndpoints = 64

// MaxExcept is how many networks can be excepted of a tunnel.
const MaxExcept = 64

// The priorities of the rules that a full tunnel takes in its namespace. They come before all that programs make commonly, and behind
// that of the table local.
const (
	FirstPriority = 6300
	LastPriority  = 6399
)

// IsFull reports whether all traffic of a family goes into the tunnel.
func (c *Client) IsFull(family int) bool { return slices.Contains(c.Full, family) }

// Resolvers are the ways of [DNS].
var Resolvers = []string{"auto", "resolved", "resolvconf", "file", "off"}

// DNS says who resolves names while the tunnel is up.
type DNS struct {
	Place
	Servers []netip.Addr
	// Domains are asked of Servers, with all below them. With a ~ in front they do not complete short names; "~." stands for all there
	// are. Without any, all are asked of them.
	Domains []string
	Search  []string // complete short names, and are asked of Servers
	// Resolver is who is told: "" and auto, resolved, resolvconf, file; off: nobody.
	Resolver string
}

// All is the domain of all names.
const All = "~."

// Routes are the domains as they are told to a resolver: sorted, and All among them where all names are to be asked of the servers.
func (d *DNS) Routes(full bool) []string {
	var list []string
	for _, name := range slices.Concat(d.Domains, d.Search) {
		if name != All {
			name = strings.TrimSuffix(name, ".")
		}
		list = append(list, name)
	}
	if len(d.Domains) == 0 || full {
		list = append(list, All)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
