package config

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"culvert/crypto"
	"culvert/setup/spec"
)

// A Server is what a tunnel gives to clients: who they may be, which addresses they get and what they are told.
type Server struct {
	spec.Place
	Pool       []netip.Prefix // masked; nil stands for the networks of the tunnel's addresses
	Endpoints  []Endpoint     // that invitations tell
	Others     []OtherServer  // that clients are told of when they join, in file order
	Push       ClientSettings // for all
	Access     *Access        // what all may do; nil: everything that their addresses let them
	AnyAddress *bool          // of a tap tunnel: their frames are not held to their addresses; nil: not said
	Mix        *bool          // whether they reach each other; nil: true
	Forward    bool           // their packets are forwarded
	NAT        bool           // and leave with the machine's own address
	Groups     []ClientGroup  // in file order
	Clients    []ServerClient // in file order
}

// GroupAccess is what the clients of a group ("" is none) may do of which the file says nothing by themselves: what is said for the group,
// else for all; nil for everything.
func (s *Server) GroupAccess(group string) *Access {
	if i := slices.IndexFunc(s.Groups, func(g ClientGroup) bool { return g.Name == group }); i >= 0 && s.Groups[i].Access != nil {
		return s.Groups[i].Access
	}
	return s.Access
}

// MayUseAnyAddress reports whether the frames of a client, whose group is given, may come from any IP address: what is said for it, else for
// its group, else for all.
func (s *Server) MayUseAnyAddress(client, group string) bool {
	if i := slices.IndexFunc(s.Clients, func(c ServerClient) bool { return c.Name == client }); i >= 0 && s.Clients[i].AnyAddress != nil {
		return *s.Clients[i].AnyAddress
	}
	if i := slices.IndexFunc(s.Groups, func(g ClientGroup) bool { return g.Name == group }); i >= 0 && s.Groups[i].AnyAddress != nil {
		return *s.Groups[i].AnyAddress
	}
	return s.AnyAddress != nil && *s.AnyAddress
}

// Mixes reports whether a client may reach others, and they it: what is said for the client goes before what is for its group, and that
// before what is for all.
func (s *Server) Mixes(client, group string) bool {
	said := s.Mix
	if i := slices.IndexFunc(s.Groups, func(g ClientGroup) bool { return g.Name == group }); i >= 0 && s.Groups[i].Mix != nil {
		said = s.Groups[i].Mix
	}
	if i := slices.IndexFunc(s.Clients, func(c ServerClient) bool { return c.Name == client }); i >= 0 && s.Clients[i].Mix != nil {
		said = s.Clients[i].Mix
	}
	return said == nil || *said
}

// pool are the networks that clients' addresses are from.
func (t *Tunnel) pool() (list []netip.Prefix) {
	if len(t.Server.Pool) > 0 {
		return t.Server.Pool
	}
	for _, a := range t.Addresses {
		if !a.IsSingleIP() {
			list = append(list, a.Masked())
		}
	}
	return list
}

// serving is what the machine does for a tunnel's clients; nil for nothing.
func (f *File) serving(t *Tunnel) *spec.Serves {
	if t.Server == nil || !t.Server.Forward && !t.Server.NAT {
		return nil
	}
	return &spec.Serves{Place: spec.Place{Origin: t.Server.Origin, Path: "tunnels." + t.Name + ".server"}, Pool: t.pool(), NAT: t.Server.NAT, Listen: t.Listen}
}

// pulls reports whether a server says what the tunnel is to set up.
func (t *Tunnel) pulls() bool {
	return slices.ContainsFunc(t.Peers, func(p Peer) bool { return p.Pull })
}

// serves reports whether the tunnel is a server for clients or the client of one.
func (t *Tunnel) serves() bool { return t.Server != nil || t.pulls() }

// An OtherServer is one that clients go to when this one does not answer.
type OtherServer struct {
	spec.Place
	Name      string
	PublicKey crypto.PublicKey
	Endpoints []Endpoint
}

// A ClientGroup is settings that several clients have.
type ClientGroup struct {
	spec.Place
	Name       string
	Access     *Access
	AnyAddress *bool
	Mix        *bool
	SignIn     *SignIn // nil: none
	ClientSettings
}

// A ServerClient is what a file says of one client. Who has joined stands in no file.
type ServerClient struct {
	spec.Place
	Name       string
	Group      string // "": the one it was invited to
	Addresses  []netip.Addr
	Networks   []netip.Prefix // behind it
	Access     *Access
	AnyAddress *bool
	Mix        *bool
	ClientSettings
}

// ClientSettings are what clients are told. What is nil is not said; an empty list is said to be none.
type ClientSettings struct {
	Routes     []netip.Prefix
	DNS        ClientDNS
	MTU        *int
	Keepalive  *time.Duration
	FullTunnel *bool
}

// ClientDNS is what clients are to resolve names with.
type ClientDNS struct {
	Servers []netip.Addr
	Domains []string // asked of Servers, as a tunnel's own; an empty list: all
	Search  []string
}

// Accept is what a client lets its server decide.
type Accept struct {
	Routes     []netip.Prefix // networks that a route has to lie in; nil: any
	DNS        bool
	FullTunnel bool
}

// Bounds of what a server's tunnel may hold.
const (
	MaxClients        = 16384 // clients named in a file
	MaxGroups         = 256   // groups of clients
	MaxServers        = 16    // servers of one client
	MaxOthers         = 7     // other servers that clients are told of
	MaxToldEndpoint   = 255   // bytes of an endpoint that clients are told
	MaxPools          = 16    // prefixes of a pool
	MaxClientPins     = 16    // addresses of one client
	MaxClientNetworks = 256   // networks behind one client
	MaxPushedRoutes   = 512   // routes told to a client
	MaxPushedDNS      = 16    // name servers, domains and search domains, told to a client
)

// serverShape is the part of a tunnel that makes it a server. Clients' files have nothing of it.
var serverShape = &shape{name: "server", where: "server", keys: []key{
	{name: "pool", field: "Pool", absent: "the networks of the tunnel's addresses", doc: "where clients' addresses are from",
		form: list{of: network(), most: MaxPools, example: `[10.20.0.0/24, "fd20::/64"]`}},
	{name: "endpoints", field: "Endpoints", absent: "nobody can be invited", doc: "where clients find the server, in this order",
		form: list{of: endpoint, most: MaxEndpoints, example: `["vpn.example.net:51820"]`}},
	{name: "others", field: "Others", absent: "none", doc: "servers that clients who join go to when this one does not answer, in this order",
		form: table{of: otherShape, field: "Name", check: clientName, pattern: clientPattern, what: "name", long: maxPeerName, most: MaxOthers}},
	{name: "push", field: "Push", absent: "addresses alone", doc: "what all clients are told", form: pushShape},
	clientAccess("everything"), anyAddress("`false`"), clientToClient("`true`"),
	{name: "forward", field: "Forward", absent: "`false`; `true` with `nat`", doc: "whether this machine forwards packets to and from clients", form: truth},
	{name: "nat", field: "NAT", absent: "`false`", doc: "whether what clients send beyond this machine leaves with the machine's own address", form: truth},
	{name: "groups", field: "Groups", absent: "none", doc: "what those of a group are told instead",
		form: table{of: groupShape, field: "Name", check: clientName, pattern: clientPattern, what: "name", long: maxPeerName, most: MaxGroups}},
	{name: "clients", field: "Clients", absent: "all are alike", doc: "what is particular to some; anybody else can be invited as well",
		form: table{of: clientShape, field: "Name", check: clientName, pattern: clientPattern, what: "name", long: maxPeerName, most: MaxClients}},
}}

var otherShape = &shape{name: "other server", where: "another server", keys: []key{
	{name: "public_key", field: "PublicKey", doc: "its public key", form: publicKey},
	{name: "endpoints", field: "Endpoints", doc: "where it is found, in this order",
		form: list{of: endpoint, most: MaxEndpoints, example: `["vpn2.example.net:51820"]`}},
}}

// publicKey is the base64 form of a key.
var publicKey = written("public key", map[string]any{"type": "string", "minLength": 44, "maxLength": 44}, parsePublicKey)

var pushShape = &shape{name: "push", where: "push", keys: settingKeys("")}

var groupShape = &shape{name: "client group", where: "a group", keys: append([]key{
	clientAccess("the server's"), anyAddress("the server's"), clientToClient("the server's"),
	{name: "sign_in", field: "SignIn", absent: "none", doc: "a second factor, without which nothing passes", form: signInShape},
}, settingKeys("ClientSettings.")...)}

// clientAccess is what clients may do.
func clientAccess(absent string) key {
	return key{name: "access", field: "Access", form: accessShape, absent: absent, doc: "what clients may do: rules, rates, quota, times"}
}

// anyAddress is whether frames are held to clients' addresses.
func anyAddress(absent string) key {
	return key{name: "any_address", field: "AnyAddress", form: truth, absent: absent,
		doc: "of a tunnel of frames: whether these may come from any IP address, as of a client that bridges a network"}
}

// clientToClient is whether clients reach each other.
func clientToClient(absent string) key {
	return key{name: "client_to_client", field: "Mix", form: truth, absent: absent, doc: "whether clients reach each other through the server"}
}

var clientShape = &shape{name: "client", where: "a client", keys: append([]key{
	{name: "group", field: "Group", absent: "the one it was invited to", doc: "its group", form: groupRef},
	{name: "addresses", field: "Addresses", absent: "leased from the pool", doc: "its own, given to nobody else",
		form: list{of: host(0), most: MaxClientPins, example: "[10.20.0.7]"}},
	{name: "networks", field: "Networks", absent: "none", doc: "what lies behind it",
		form: list{of: network(), most: MaxClientNetworks, example: "[192.168.7.0/24]"}},
	clientAccess("its group's, or the server's"), anyAddress("its group's, or the server's"), clientToClient("its group's, or the server's"),
}, settingKeys("ClientSettings.")...)}

// settingKeys are the keys of ClientSettings, which a struct has under the given path.
func settingKeys(path string) []key {
	return []key{
		{name: "routes", field: path + "Routes", absent: "the more general one's", doc: "networks that clients reach through the tunnel",
			form: list{of: network(), most: MaxPushedRoutes, example: "[10.30.0.0/16]"}},
		{name: "dns", field: path + "DNS", absent: "the more general one's", doc: "what clients resolve names with", form: clientDNSShape},
		{name: "mtu", field: path + "MTU", absent: "the more general one's", doc: "bytes of a packet in the tunnel", form: whole(minMTU, maxMTU)},
		{name: "keepalive", field: path + "Keepalive", absent: "the more general one's", doc: "how often a client keeps a silent line alive", form: keepalive},
		{name: "full_tunnel", field: path + "FullTunnel", absent: "the more general one's", doc: "whether all of a client's traffic goes through the tunnel", form: truth},
	}
}

var clientDNSShape = &shape{name: "client dns", where: "dns", keys: []key{
	{name: "servers", field: "Servers", absent: "the more general one's", doc: "addresses of name servers",
		form: list{of: host(0), most: MaxPushedDNS, example: "[10.20.0.1]"}},
	{name: "domains", field: "Domains", absent: "the more general one's; all names", doc: "domains whose names are asked of them, as in a tunnel's own `dns`",
		form: list{of: askedDomain, most: MaxPushedDNS, example: `[corp.example, "~9.10.in-addr.arpa"]`}},
	{name: "search", field: "Search", absent: "the more general one's", doc: "search domains",
		form: list{of: searchDomain, most: MaxPushedDNS, example: "[example.net]"}},
}}

// acceptShape is what a peer that is pulled from may decide.
var acceptShape = &shape{name: "accept", where: "accept", keys: []key{
	{name: "routes", field: "Routes", absent: "any", doc: "networks that routes from the server have to lie in; of no networks, none is accepted",
		form: list{of: network(), most: MaxPushedRoutes, example: "[10.0.0.0/8]"}},
	{name: "dns", field: "DNS", absent: "`true`", doc: "whether name servers and search domains are accepted", form: truth},
	{name: "full_tunnel", field: "FullTunnel", absent: "`true`", doc: "whether the server may have all traffic sent through the tunnel", form: truth},
}}

const maxPeerName = 64

// clientName checks the name of a client or a group, which is typed on command lines.
func clientName(s string) *problem {
	const rule = "use 1 to 64 of the characters A-Z a-z 0-9 _ . - @ +"
	if s == "" || len(s) > maxPeerName {
		return wrong(rule, "%s cannot be the name of a client or a group", quote(s))
	}
	for _, r := range s {
		if r >= 0x80 || r == '=' || r != '@' && !nameRune(r) {
			return wrong(rule, "the name %s contains %q", quote(s), r)
		}
	}
	return nil
}

const clientPattern = `^[A-Za-z0-9_.@+-]+$`

// server reads what makes a tunnel one that clients join.
func (y *yamlReader) server(e entry) *Server {
	s := &Server{Place: spec.Place{Origin: spec.Origin(e.pos), Path: "server"}}
	serverShape.readFor(y, e.value, e.pos, reflect.ValueOf(s), spot{place: &s.Place}, variant{})
	return s
}

// acceptAll is what holds where accept is left out.
var acceptAll = Accept{DNS: true, FullTunnel: true}

// accept reads what the server may decide.
func (y *yamlReader) accept(e entry, a *Accept) {
	acceptShape.readFor(y, e.value, e.pos, reflect.ValueOf(a), spot{place: &spec.Place{Origin: spec.Origin(e.pos), Path: "accept"}}, variant{})
}

// relateServer checks what a tunnel that gives or takes configuration goes with.
func (r *report) relateServer(t *Tunnel) {
	if s := t.Server; s != nil {
		r.relateClients(t, s.Origin, s.Access, s.AnyAddress, &s.Push, nil)
		r.warnOfServer(t)
		r.relateOthers(t, s.Others)
		for i := range s.Groups {
			g := &s.Groups[i]
			r.relateClients(t, g.Origin, g.Access, g.AnyAddress, &g.ClientSettings, nil)
			r.relateSignIn(g)
		}
		for i := range s.Clients {
			c := &s.Clients[i]
			r.relateClients(t, c.Origin, c.Access, c.AnyAddress, &c.ClientSettings, c.Networks)
		}
	}
	servers := 0
	for i := range t.Peers {
		p := &t.Peers[i]
		switch {
		case !p.Pull && p.AcceptPos != (Position{}):
			r.fail(p.AcceptPos, `add "pull: true", or take accept out`, "accept says what may be pulled from peer %s, and nothing is", hideKeys(p.Name))
		case !p.Pull:
		case t.Server != nil:
			r.fail(p.PullPos, "give the two roles a tunnel each", "the tunnel is a server for clients (line %d), and cannot be a client itself", t.Server.Origin.Line)
		case p.Wire == WireWireGuard:
			r.fail(p.PullPos, `write "wire: culvert" if the peer runs it, or take pull out`, "nothing can be pulled from peer %s: the wireguard wire has no messages for it", hideKeys(p.Name))
		default:
			if servers++; servers == MaxServers+1 {
				r.fail(p.PullPos, "", "the tunnel has more than %d servers", MaxServers)
			}
		}
	}
}

// relateOthers checks which servers clients are told of besides.
func (r *report) relateOthers(t *Tunnel, others []OtherServer) {
	for i := range others {
		o := &others[i]
		at := Position(o.Origin)
		switch {
		case len(o.Endpoints) == 0:
			r.fail(at, "add its endpoints", "the other server %s has no endpoints", hideKeys(o.Name))
		case o.PublicKey.IsZero(): // left out, which has been said
		case o.PublicKey.IsLowOrder():
			r.fail(at, "write what culvert pubkey says there", "the public key of the other server %s is no key", hideKeys(o.Name))
		case o.PublicKey == t.PrivateKey.Public():
			r.fail(at, "take it out: the server's own addresses are its endpoints", "the other server %s has this server's own key", hideKeys(o.Name))
		case slices.ContainsFunc(others[:i], func(b OtherServer) bool { return b.PublicKey == o.PublicKey }):
			r.fail(at, "several addresses of one server are its endpoints", "the other server %s has the key of another", hideKeys(o.Name))
		}
	}
}

// warnOfServer says what a server cannot do for its clients, though nothing is wrong with its file.
func (r *report) warnOfServer(t *Tunnel) {
	s := t.Server
	at := Position(s.Origin)
	if t.Listen == 0 {
		r.warn(at, `add "listen: 51820" to the tunnel`, "the kernel picks another UDP port at each start, so that clients will not find this server again")
	}
	if s.Forward || s.NAT || t.Mode == ModeTap {
		return
	}
	const hint = `add "nat: true", or "forward: true" where others have a route back; or leave it so if the machine forwards by a setting of its own`
	full := func(at spec.Origin, who string, c *ClientSettings) {
		if c.FullTunnel != nil && *c.FullTunnel {
			r.warn(Position(at), hint, "%s are told to send all their traffic here, and nothing says that this machine forwards it", who)
		}
	}
	full(s.Origin, "clients", &s.Push)
	for i := range s.Groups {
		full(s.Groups[i].Origin, "clients of the group "+s.Groups[i].Name, &s.Groups[i].ClientSettings)
	}
	for i := range s.Clients {
		c := &s.Clients[i]
		if full(c.Origin, "programs of the client "+c.Name, &c.ClientSettings); len(c.Networks) > 0 {
			r.warn(Position(c.Origin), hint, "networks are behind the client %s, and nothing says that this machine forwards to them", c.Name)
		}
	}
}

// relateClients checks what is said of some clients of a server.
func (r *report) relateClients(t *Tunnel, at spec.Origin, a *Access, anyAddress *bool, s *ClientSettings, behind []netip.Prefix) {
	if a != nil {
		r.relateAccess(a)
	}
	if anyAddress != nil && *anyAddress && t.Mode != ModeTap {
		r.fail(Position(at), "take any_address out; name what is behind a client in its networks",
			"any_address is of a tunnel that carries Ethernet frames; in one of IP packets an address belongs to one client")
	}
	if t.Mode == ModeTap && (len(s.Routes) > 0 || s.FullTunnel != nil && *s.FullTunnel || len(behind) > 0) {
		r.fail(Position(at), `take routes, networks and full_tunnel out, or write "mode: tun"`,
			"the tunnel carries Ethernet frames (line %d), in which no network is behind a client or the server", t.ModePos.Line)
	}
}

var groupRef = written("name of a group", map[string]any{"type": "string", "maxLength": maxPeerName}, func(s string) (string, *problem) { return s, clientName(s) })

var askedDomain = inList("domains", written("domain", map[string]any{"type": "string"}, parseDomain))

var searchDomain = inList("domains", written("domain", map[string]any{"type": "string"}, func(s string) (string, *problem) { return s, hostName(s) }))

// endpoint is where a server is found. Unlike a peer's it is for another machine to read, so that it has no zone.
var endpoint = inList("endpoints", written("`host:port`", map[string]any{"type": "string"}, func(s string) (Endpoint, *problem) {
	e, p := parseEndpoint(s)
	if a, err := netip.ParseAddr(e.Host); p == nil && err == nil && a.Zone() != "" {
		p = wrong("write an address that means the same on every machine", "the endpoint %s has a zone", quote(s))
	}
	if n := len(e.String()); p == nil && n > MaxToldEndpoint {
		p = wrong("use a shorter name", "the endpoint %s has %d bytes, of at most %d that clients can be told", quote(s), n, MaxToldEndpoint)
	}
	return e, p
}))

// keepalive is an interval, or off.
var keepalive = scalar{text: "`off`, or whole seconds up to `65535s`", schema: map[string]any{"anyOf": []any{
	map[string]any{"enum": []any{"off"}}, map[string]any{"const": 0}, pattern(durationPattern)}},
	parse: func(y *yamlReader, v value) (any, bool) {
		s, ok := y.numberOrText(v)
		if !ok {
			return nil, false
		}
		d, p := parseDuration(s)
		return d, y.take(v.pos, p)
	}}
