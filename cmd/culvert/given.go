package main

import (
	"net/netip"
	"slices"
	"strings"

	"culvert/config"
	"culvert/control"
)

// givenOf is what the whole configuration of a client has from its server, besides what its file says; nil where there is nothing.
func givenOf(conf, whole *config.Tunnel) *control.Given {
	g := &control.Given{FullTunnel: conf.FullTunnel.None() && !whole.FullTunnel.None()}
	for _, a := range whole.Addresses {
		if !slices.ContainsFunc(conf.Addresses, func(b config.Prefix) bool { return b.Prefix == a.Prefix }) {
			g.Addresses = append(g.Addresses, a.Prefix)
		}
	}
	if len(conf.DNS.Servers)+len(conf.DNS.Domains)+len(conf.DNS.Search) == 0 {
		g.DNS, g.Domains, g.Search = whole.DNS.Servers, whole.DNS.Domains, whole.DNS.Search
	}
	for i := range whole.Peers {
		p := &whole.Peers[i]
		j := slices.IndexFunc(conf.Peers, func(q config.Peer) bool { return q.PublicKey == p.PublicKey })
		if !p.Pull || j < 0 {
			continue
		}
		for _, n := range p.AllowedIPs {
			own := func(q config.Prefix) bool { return q.Prefix == n.Prefix }
			inside := func(a netip.Prefix) bool { return a.Masked() == n.Prefix } // the tunnel's own network, which its address says
			if !slices.ContainsFunc(conf.Peers[j].AllowedIPs, own) && !slices.ContainsFunc(g.Addresses, inside) {
				g.Routes = append(g.Routes, n.Prefix)
			}
		}
	}
	if len(g.Addresses)+len(g.Routes)+len(g.DNS)+len(g.Domains)+len(g.Search) == 0 && !g.FullTunnel {
		return nil
	}
	return g
}

// writeGiven writes what a server has said to set up.
func writeGiven(field func(name, format string, args ...any), g *control.Given) {
	if g == nil {
		return
	}
	const shown = 8
	list := func(name string, texts []string) {
		if n := len(texts); n > shown {
			field(name+" from the server", "%s and %d more", strings.Join(texts[:shown], ", "), n-shown)
		} else if n > 0 {
			field(name+" from the server", "%s", strings.Join(texts, ", "))
		}
	}
	list("addresses", texts(g.Addresses))
	list("routes", texts(g.Routes))
	list("name servers", texts(g.DNS))
	list("domains", g.Domains)
	list("search domains", g.Search)
	if g.FullTunnel {
		field("full tunnel from the server", "everything goes into the tunnel")
	}
}
