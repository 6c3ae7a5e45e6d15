package server

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"culvert/crypto"
)

// Settings are what a client is told. A nil field is not said; what is said for a client goes before what is for its group, and that
// before what is for all. A list that is said stands for itself and is not added to.
type Settings struct {
	Routes     []netip.Prefix // through the tunnel
	DNS        []netip.Addr
	Domains    []string
	Search     []string
	MTU        *int
	Keepalive  *time.Duration
	FullTunnel *bool
}

// over is s where it says something, and below elsewhere. An empty list says something, nil does not.
func (s Settings) over(below Settings) Settings {
	return Settings{
		Routes: said(s.Routes, below.Routes), DNS: said(s.DNS, below.DNS), Domains: said(s.Domains, below.Domains), Search: said(s.Search, below.Search),
		MTU: cmp.Or(s.MTU, below.MTU), Keepalive: cmp.Or(s.Keepalive, below.Keepalive), FullTunnel: cmp.Or(s.FullTunnel, below.FullTunnel),
	}
}

func said[T any](list, below []T) []T {
	if list == nil {
		return below
	}
	return list
}

// ClientConfig is what a configuration says of one client.
type ClientConfig struct {
	Group     string         // "": the one it was invited to
	Addresses []netip.Addr   // its own, given to nobody else; where a family has none, one is leased
	Networks  []netip.Prefix // behind the client
	Settings  Settings
}

// Config is what a server goes by.
type Config struct {
	Tunnel    string         // for the audit
	Frames    bool           // the tunnel carries Ethernet frames
	Addresses []netip.Prefix // of the tunnel's own interface
	Pool      []netip.Prefix // masked; empty: the networks of Addresses
	Excluded  []netip.Prefix // what belongs to peers that are no clients
	Endpoints []string       // that invitations tell, host:port
	Others    []OtherServer  // that who joins is told of
	PublicKey crypto.PublicKey
	Reserved  map[crypto.PublicKey]bool // keys of peers that are no clients
	Push      Settings
	Groups    map[string]Settings
	SignIns   map[string]SignIn // groups whose clients need a second factor
	Clients   map[string]ClientConfig
}

// networks are those of the tunnel's own interface.
func (c *Config) networks() (out []netip.Prefix) {
	for _, a := range c.Addresses {
		if !a.IsSingleIP() {
			out = append(out, a.Masked())
		}
	}
	return out
}

// Prefixes are the pool's.
func (c *Config) Prefixes() []netip.Prefix {
	if len(c.Pool) > 0 {
		return c.Pool
	}
	return c.networks()
}

// pool is the pool, without what is somebody's already.
func (c *Config) pool() pool {
	excluded := slices.Clone(c.Excluded)
	for _, a := range c.Addresses {
		excluded = append(excluded, single(a.Addr()))
	}
	return newPool(c.Prefixes(), c.networks(), excluded)
}

// withLength is an address as the client's interface has it.
func (c *Config) withLength(a netip.Addr) netip.Prefix {
	for _, list := range [][]netip.Prefix{c.networks(), c.Prefixes()} {
		if n, ok := holding(list, a); ok {
			return netip.PrefixFrom(a, n.Bits())
		}
	}
	return single(a)
}

// ClientError is what is wrong with what a configuration says of a client.
type ClientError struct {
	Client string
	Err    error
}

func (e *ClientError) Error() string { return e.Err.Error() }
func (e *ClientError) Unwrap() error { return e.Err }

// Check finds what is wrong in a configuration by itself: of clients everything, joined [ClientError]s.
func (c *Config) Check() error {
	prefixes := c.Prefixes()
	switch {
	case len(prefixes) == 0:
		return fmt.Errorf("there is no pool of addresses: the tunnel's addresses have no network, and no pool is given")
	case len(prefixes) > MaxPool:
		return fmt.Errorf("the pool has %d prefixes, of at most %d", len(prefixes), MaxPool)
	case len(c.Endpoints) > MaxEndpoints:
		return fmt.Errorf("there are %d endpoints, of at most %d", len(c.Endpoints), MaxEndpoints)
	}
	for _, e := range c.Endpoints {
		if err := checkEndpoint(e); err != nil {
			return fmt.Errorf("%s: %w", e, err)
		}
	}
	if err := checkOthers(c.Others); err != nil {
		return err
	}
	p := c.pool()
	pinned := map[netip.Addr]string{}
	behind := map[netip.Prefix]string{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Clients)) {
		conf := c.Clients[name]
		fail := func(format string, args ...any) { errs = append(errs, &ClientError{name, fmt.Errorf(format, args...)}) }
		if !ValidName(name) {
			return fmt.Errorf("%q cannot be a client's name", name)
		}
		if _, ok := c.Groups[conf.Group]; conf.Group != "" && !ok {
			fail("client %s is in the group %s, which there is none of", name, conf.Group)
		}
		if len(conf.Addresses) > MaxPins || len(conf.Networks) > MaxNetworks {
			return fmt.Errorf("client %s has more than %d addresses or %d networks", name, MaxPins, MaxNetworks)
		}
		for _, a := range conf.Addresses {
			_, inNetwork := holding(c.networks(), a)
			_, inPool := holding(prefixes, a)
			switch other, twice := pinned[a]; {
			case twice:
				fail("%v is given to the client %s and to %s", a, other, name)
			case !inNetwork && !inPool:
				fail("client %s cannot have %v, which is neither in the tunnel's networks nor in the pool", name, a)
			case !p.usable(a):
				fail("client %s cannot have %v: it is this tunnel's, another peer's, or no host's", name, a)
			}
			pinned[a] = name
		}
		for _, n := range conf.Networks {
			if err := checkRoute(n); err != nil {
				fail("client %s: %w", name, err)
			}
			if other, twice := behind[n]; twice {
				fail("%v is behind the client %s and behind %s", n, other, name)
			}
			if slices.Contains(c.Excluded, n) {
				fail("%v is behind the client %s and allowed to another peer", n, name)
			}
			behind[n] = name
		}
		if err := c.checkSettings("client "+name, c.settings(name, "")); err != nil {
			fail("%w", err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Groups)) {
		if !ValidName(name) {
			return fmt.Errorf("%q cannot be a group's name", name)
		}
		if err := c.checkSettings("group "+name, c.Groups[name].over(c.Push)); err != nil {
			return err
		}
	}
	if err := c.checkSignIns(); err != nil {
		return err
	}
	return c.checkSettings("push", c.Push)
}

func (c *Config) checkSettings(where string, s Settings) error {
	d := document(s, nil)
	for _, n := range c.Prefixes() {
		if n.Addr().Is6() && d.MTU != 0 && d.MTU < minMTU6 {
			return fmt.Errorf("%s: an MTU of %d bytes is too small for IPv6, which the pool has addresses of", where, d.MTU)
		}
	}
	if _, err := d.Encode(); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	return nil
}

// settings are those of a client that was invited to a group.
func (c *Config) settings(name, invited string) Settings {
	conf := c.Clients[name]
	return conf.Settings.over(c.Groups[c.group(name, invited)]).over(c.Push)
}

// group is the group of a client: what the configuration says goes before what it was invited to.
func (c *Config) group(name, invited string) string {
	if g := c.Clients[name].Group; g != "" {
		return g
	}
	return invited
}

// document is what settings and addresses are to a client.
func document(s Settings, addresses []netip.Prefix) Document {
	d := Document{Addresses: addresses, Routes: s.Routes, DNS: s.DNS, Domains: s.Domains, Search: s.Search}
	if len(d.DNS) == 0 {
		d.Domains = nil // there is nobody to be asked for them
	}
	if s.MTU != nil {
		d.MTU = *s.MTU
	}
	if s.Keepalive != nil {
		d.Keepalive = *s.Keepalive
	}
	if s.FullTunnel != nil {
		d.FullTunnel = *s.FullTunnel
	}
	return d
}
