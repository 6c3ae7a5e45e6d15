package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// SubjectConfig is the subject under which a server pushes a [Document]; SubjectPull that under which a client asks for it, with a
// document of no bytes.
const (
	SubjectConfig = "config"
	SubjectPull   = "pull"
)

// Document is what a server tells a client to set up. The zero value is nothing.
type Document struct {
	Addresses  []netip.Prefix // of the client's interface, with the length of the tunnel's network
	Routes     []netip.Prefix // through the tunnel; masked, of at least one bit
	DNS        []netip.Addr
	Domains    []string      // asked of them, with all below: "example.net", "~example.net" without completing short names; none: all
	Search     []string      // complete short names
	MTU        int           // bytes, 576 to 65535; 0: the client's own choice
	Keepalive  time.Duration // whole seconds up to 65535; 0: the client's own choice
	FullTunnel bool          // everything goes through the tunnel
}

type documentFields struct {
	Version    uint64   `cbor:"1,keyasint"`
	Addresses  [][]byte `cbor:"2,keyasint,omitempty"`
	Routes     [][]byte `cbor:"3,keyasint,omitempty"`
	DNS        [][]byte `cbor:"4,keyasint,omitempty"`
	Search     []string `cbor:"5,keyasint,omitempty"`
	MTU        uint64   `cbor:"6,keyasint,omitempty"`
	Keepalive  uint64   `cbor:"7,keyasint,omitempty"` // seconds
	FullTunnel bool     `cbor:"8,keyasint,omitempty"`
	Domains    []string `cbor:"9,keyasint,omitempty"`
}

// Encode writes the document, having checked it: errors name what is wrong.
func (d *Document) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	b, err := encoding.Marshal(documentFields{
		Version: 1, Addresses: pack(d.Addresses, packPrefix), Routes: pack(d.Routes, packPrefix), DNS: pack(d.DNS, packAddr),
		Domains: d.Domains, Search: d.Search, MTU: uint64(d.MTU), Keepalive: uint64(d.Keepalive / time.Second), FullTunnel: d.FullTunnel,
	})
	if err == nil && len(b) > MaxDocument {
		err = fmt.Errorf("what is pushed takes %d bytes, of at most %d", len(b), MaxDocument)
	}
	return b, err
}

// DecodeDocument reads what [Document.Encode] writes, and nothing else. Errors are ErrMalformed and ErrVersion.
func DecodeDocument(b []byte) (Document, error) {
	var f documentFields
	if err := decode(b, &f); err != nil {
		return Document{}, err
	}
	var d Document
	var a, r, s bool
	d.Addresses, a = unpack(f.Addresses, unpackPrefix)
	d.Routes, r = unpack(f.Routes, unpackPrefix)
	d.DNS, s = unpack(f.DNS, unpackAddr)
	if !a || !r || !s || f.MTU > maxMTU || f.Keepalive > maxKeepalive {
		return Document{}, ErrMalformed
	}
	d.Domains, d.Search, d.MTU, d.FullTunnel = f.Domains, f.Search, int(f.MTU), f.FullTunnel
	d.Keepalive = time.Duration(f.Keepalive) * time.Second
	if err := d.check(); err != nil {
		return Document{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return d, nil
}

const (
	minMTU       = 576   // RFC 791
	minMTU6      = 1280  // RFC 8200 section 5
	maxMTU       = 65535 // the largest packet
	maxKeepalive = 65535 // seconds
)

func (d *Document) check() error {
	six := false
	seen := map[netip.Addr]bool{}
	for _, p := range d.Addresses {
		a := p.Addr()
		if !p.IsValid() || a.Zone() != "" || a.Is4In6() || isSpecial(single(a)) || seen[a] {
			return fmt.Errorf("%v cannot be an address of a client", p)
		}
		seen[a], six = true, six || a.Is6()
	}
	routes := map[netip.Prefix]bool{}
	for _, p := range d.Routes {
		if err := checkRoute(p); err != nil {
			return err
		}
		if routes[p] {
			return fmt.Errorf("the route %v is there twice", p)
		}
		routes[p], six = true, six || p.Addr().Is6()
	}
	for _, a := range d.DNS {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() || isSpecial(single(a)) {
			return fmt.Errorf("%v cannot be a name server", a)
		}
	}
	for _, s := range d.Search {
		if !validHost(s) {
			return fmt.Errorf("%.64q is no domain", s)
		}
	}
	for _, s := range d.Domains {
		if name, only := strings.CutPrefix(s, "~"); !validHost(name) && !(only && name == ".") {
			return fmt.Errorf("%.64q is no domain", s)
		}
	}
	if len(d.DNS) == 0 && len(d.Domains) > 0 {
		return errors.New("domains are pushed, and no name server to ask for them")
	}
	for _, b := range []struct {
		what    string
		n, most int
	}{{"addresses", len(d.Addresses), MaxAddresses}, {"routes", len(d.Routes), MaxRoutes}, {"name servers", len(d.DNS), MaxServers}, {"domains", len(d.Domains), MaxDomains}, {"search domains", len(d.Search), MaxDomains}} {
		if b.n > b.most {
			return fmt.Errorf("%d %s are pushed, of at most %d", b.n, b.what, b.most)
		}
	}
	least := minMTU
	if six {
		least = minMTU6
	}
	if d.MTU != 0 && (d.MTU < least || d.MTU > maxMTU) {
		return fmt.Errorf("an MTU of %d bytes is not %d to %d", d.MTU, least, maxMTU)
	}
	if d.Keepalive < 0 || d.Keepalive > maxKeepalive*time.Second || d.Keepalive%time.Second != 0 {
		return fmt.Errorf("a keepalive of %v is not whole seconds up to %d", d.Keepalive, maxKeepalive)
	}
	return nil
}

// checkRoute checks a route that is pushed, or a network behind a client.
func checkRoute(p netip.Prefix) error {
	switch {
	case !p.IsValid() || p != p.Masked() || p.Addr().Is4In6():
		return fmt.Errorf("%v is no network", p)
	case p.Bits() == 0:
		return fmt.Errorf("%v is everything, which is what full_tunnel says", p)
	case isSpecial(p):
		return fmt.Errorf("%v is not reached through a tunnel", p)
	}
	return nil
}

// Equal reports whether two documents say the same.
func (d *Document) Equal(o *Document) bool {
	return slices.Equal(d.Addresses, o.Addresses) && slices.Equal(d.Routes, o.Routes) && slices.Equal(d.DNS, o.DNS) &&
		slices.Equal(d.Domains, o.Domains) && slices.Equal(d.Search, o.Search) && d.MTU == o.MTU && d.Keepalive == o.Keepalive && d.FullTunnel == o.FullTunnel
}

// Networks are the networks that lie behind the server, for the client that is told so: those of its addresses, the routes, and with
// a full tunnel everything of the families it has addresses of.
func (d *Document) Networks() []netip.Prefix {
	var out []netip.Prefix
	add := func(p netip.Prefix) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, a := range d.Addresses {
		if !a.IsSingleIP() {
			add(a.Masked())
		}
	}
	for _, r := range d.Routes {
		add(r)
	}
	for _, a := range d.Addresses {
		if d.FullTunnel {
			add(netip.PrefixFrom(a.Addr(), 0).Masked())
		}
	}
	return out
}
