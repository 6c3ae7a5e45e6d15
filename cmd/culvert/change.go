package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"culvert/cmd/culvert/resolve"
	"culvert/config"
	"culvert/crypto"
	"culvert/setup"
	"culvert/transport"
	"culvert/tunnel"
)

// targets are a peer's endpoints as the resolver takes them: interface names in IPv6 zones become indices.
func targets(p *config.Peer) ([]resolve.Target, error) {
	var out []resolve.Target
	for _, e := range p.Endpoints {
		host := e.Host
		if a, err := netip.ParseAddr(host); err == nil && a.Zone() != "" {
			if _, err := strconv.ParseUint(a.Zone(), 10, 31); err != nil {
				i, err := net.InterfaceByName(a.Zone())
				if err != nil {
					return nil, fmt.Errorf("%s: endpoint %s: there is no interface %s", e.Pos, e, a.Zone())
				}
				host = a.WithZone(strconv.Itoa(i.Index)).String()
			}
		}
		out = append(out, resolve.Target{Host: host, Port: e.Port})
	}
	return out, nil
}

// peerTargets are the targets of all peers that have any.
func peerTargets(t *config.Tunnel) (map[crypto.PublicKey][]resolve.Target, error) {
	out := make(map[crypto.PublicKey][]resolve.Target)
	for i := range t.Peers {
		ts, err := targets(&t.Peers[i])
		if err != nil {
			return nil, err
		}
		if len(ts) > 0 {
			out[t.Peers[i].PublicKey] = ts
		}
	}
	return out, nil
}

// wireOf is the wire of that name in a configuration. config has no other names.
func wireOf(w config.Wire) tunnel.Wire {
	if w == config.WireCulvert {
		return tunnel.Culvert
	}
	return tunnel.WireGuard
}

// overheadOf is what a packet of a tunnel grows by on its way, for an automatic MTU.
func overheadOf(t *config.Tunnel) int {
	if t.Speaks(config.WireCulvert) {
		return setup.NativeOverhead
	}
	return setup.WireGuardOverhead
}

// changeTo is the change that makes a tunnel what its configuration says. before is the configuration in force, nil
// for a new tunnel; what did not change there is left alone where the tunnel may have moved on by itself: endpoints,
// which follow roaming peers, and a port that the kernel picked.
func changeTo(whole *wholeTunnel, before *config.Tunnel) (tunnel.Change, error) {
	t := &whole.Tunnel
	c := tunnel.Change{PrivateKey: &t.PrivateKey, PostQuantum: &t.PostQuantum, ReplacePeers: true}
	if before == nil || before.Listen != t.Listen {
		c.ListenPort = &t.Listen
	}
	if before == nil || before.FwMark != t.FwMark || before.Mark != t.Mark {
		c.Mark = &t.Mark // 0 unless it is set, or needed
	}
	tap := t.Mode == config.ModeTap
	if tap {
		c.Switch = switchOf(t)
	}
	known := make(map[crypto.PublicKey]*config.Peer)
	if before != nil {
		for i := range before.Peers {
			known[before.Peers[i].PublicKey] = &before.Peers[i]
		}
	}
	for i := range t.Peers {
		p := &t.Peers[i]
		wire := wireOf(p.Wire)
		pc := tunnel.PeerChange{
			PublicKey: p.PublicKey, Wire: &wire, PresharedKey: &p.PresharedKey, Keepalive: &p.Keepalive, ReplaceAllowedIPs: !tap,
		}
		if tap {
			pc.Port = portOf(p)
		}
		pc.Streams = streamTargets(p)
		policy, err := policyOf(p, whole.apart)
		if err != nil {
			return tunnel.Change{}, err
		}
		pc.Access = policy
		for _, a := range p.AllowedIPs {
			pc.AllowedIPs = append(pc.AllowedIPs, tunnel.AllowedIPChange{Prefix: a.Prefix})
		}
		if old := known[p.PublicKey]; old == nil || !sameEndpoints(old, p) {
			ts, err := targets(p)
			if err != nil {
				return tunnel.Change{}, err
			}
			if len(ts) > 0 {
				if ap, ok := ts[0].Literal(); ok {
					pc.Endpoint = &transport.Endpoint{Remote: ap}
				}
			}
		}
		c.Peers = append(c.Peers, pc)
	}
	return c, nil
}

func sameEndpoints(a, b *config.Peer) bool {
	return slices.EqualFunc(a.Endpoints, b.Endpoints, func(x, y config.Endpoint) bool {
		return x.Host == y.Host && x.Port == y.Port
	})
}

// linkOf is what the interface of a tunnel needs. mtu is the configured or the computed one.
func linkOf(t *config.Tunnel, mtu int) setup.L3 {
	c := setup.L3{Link: t.Name, MTU: mtu, Addresses: config.Prefixes(t.Addresses)}
	c.Mark = t.Mark
	if t.Table.Off {
		return c
	}
	pool := poolOf(t)
	for _, p := range pool { // in place of a route for each client
		c.Routes = append(c.Routes, setup.Route{Prefix: p, Table: t.Table.Number})
	}
	for _, p := range t.Peers {
		for _, e := range p.Endpoints {
			if a, err := netip.ParseAddr(e.Host); err == nil {
				c.Endpoints = append(c.Endpoints, a.WithZone(""))
			}
		}
		for _, a := range p.AllowedIPs {
			if a.IsSingleIP() && slices.ContainsFunc(pool, func(p netip.Prefix) bool { return p.Contains(a.Addr()) }) {
				continue
			}
			if t.Takes(a.Addr()) {
				continue // by the plan's route, which leads everything into the tunnel but its own datagrams
			}
			c.Routes = append(c.Routes, setup.Route{Prefix: a.Masked(), Table: t.Table.Number})
		}
	}
	return c
}

func sameHooks(a, b config.Hooks) bool {
	same := func(x, y []config.Hook) bool {
		return slices.EqualFunc(x, y, func(p, q config.Hook) bool { return p.Command == q.Command })
	}
	return same(a.PreUp, b.PreUp) && same(a.PostUp, b.PostUp) && same(a.PreDown, b.PreDown) && same(a.PostDown, b.PostDown)
}
