package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/config"
	"culvert/crypto"
	"culvert/server"
)

// pullKeepalive is how often a client keeps a silent line to its server alive where nobody says otherwise: the server is to reach it, and
// most NATs forget after 30 s (RFC 4787 section 4.3 asks for two minutes).
const pullKeepalive = 25 * time.Second

// pulledFrom is the index of the first peer that says what to set up, or -1.
func pulledFrom(t *config.Tunnel) int {
	return slices.IndexFunc(t.Peers, func(p config.Peer) bool { return p.Pull })
}

// serversOf are the keys of all of them, in order.
func serversOf(t *config.Tunnel) (list []crypto.PublicKey) {
	for i := range t.Peers {
		if t.Peers[i].Pull {
			list = append(list, t.Peers[i].PublicKey)
		}
	}
	return list
}

// serverIn is the index of the server that is used of those of a configuration, or -1.
func (t *liveTunnel) serverIn(conf *config.Tunnel) int {
	if key, ok := t.role.order.use(); ok {
		if i := slices.IndexFunc(conf.Peers, func(p config.Peer) bool { return p.Pull && p.PublicKey == key }); i >= 0 {
			return i
		}
	}
	return pulledFrom(conf)
}

// pull asks the server that is used what to set up, which also begins the session that it answers under.
func (t *liveTunnel) pull() {
	if i := t.serverIn(&t.conf); i >= 0 {
		t.ask(t.conf.Peers[i].PublicKey)
	}
}

func (t *liveTunnel) ask(key crypto.PublicKey) {
	if err := t.engine.Push(key, server.SubjectPull, nil); err != nil {
		t.log.Debug("the server cannot be asked", "server", key, "error", err)
	}
}

// askServers asks who is to be asked now, where there are several, and returns when to do so again; the zero time where there is no need.
func (t *liveTunnel) askServers(now time.Time) time.Time {
	t.role.changing.Lock()
	defer t.role.changing.Unlock()
	for _, key := range t.role.order.due(now) {
		t.ask(key)
	}
	return t.role.order.next()
}

// pushedTo sets up what the server says, or nothing of it. It is of the instance's as a reload is: what is pushed may be about the machine.
func (t *liveTunnel) pushedTo(ctx context.Context, m *roleMail) {
	t.exclusively(ctx, func() {
		t.role.changing.Lock()
		defer t.role.changing.Unlock()
		t.takePushed(ctx, m)
	})
}

func (t *liveTunnel) takePushed(ctx context.Context, m *roleMail) {
	i := slices.IndexFunc(t.conf.Peers, func(p config.Peer) bool { return p.Pull && p.PublicKey == m.peer })
	if i < 0 {
		return
	}
	d, err := server.DecodeDocument(m.document)
	if err != nil {
		t.log.Warn("what the server says to set up is refused", "error", err)
		return
	}
	policy := acceptPolicy(&t.conf, i)
	accepted, refused, err := policy.Accept(d, t.serverAddresses(&t.conf, i))
	if err != nil {
		t.log.Warn("what the server says to set up is refused", "error", err)
		return
	}
	t.role.signIn.configured(m.peer)
	order, before, by := t.role.order, t.role.pulled, t.role.pulledBy
	if !t.role.order.answered(m.peer, time.Now()) || before != nil && by == m.peer && before.Equal(&d) {
		return
	}
	t.role.pulled, t.role.pulledBy = &d, m.peer
	if err := t.applyPulled(ctx); err != nil {
		t.role.order, t.role.pulled, t.role.pulledBy = order, before, by
		t.log.Error("what the server says cannot be set up", "error", err)
		return
	}
	if used, ok := t.role.order.use(); ok && before != nil && by != m.peer && used == m.peer {
		t.serverChanged(by, m.peer)
	}
	t.log.Info("set up what the server says", "server", t.conf.Peers[i].Name, "addresses", accepted.Addresses, "routes", accepted.Routes,
		"full_tunnel", accepted.FullTunnel, "dns", accepted.DNS, "mtu", accepted.MTU)
	if len(refused) > 0 {
		t.log.Warn("the server says more than is accepted", "refused", strings.Join(refused, "; "))
	}
}

// applyPulled makes what was pulled so: of the tunnel first, and then of what it does to its machine. Where either fails both are as before.
func (t *liveTunnel) applyPulled(ctx context.Context) error {
	to := t.wholeOf(t.conf)
	if _, err := t.file.With(to.Tunnel); err != nil {
		return err
	}
	before := t.whole
	if err := t.applyWhole(ctx, to); err != nil {
		return err
	}
	err := t.around(ctx)
	if err != nil {
		err = errors.Join(err, t.applyWhole(context.WithoutCancel(ctx), before))
	}
	return err
}

// acceptPolicy is what a configuration lets the server decide that is one of its peers. What the file says itself is not for it to decide.
func acceptPolicy(conf *config.Tunnel, peer int) server.Policy {
	accept := &conf.Peers[peer].Accept
	return server.Policy{
		AnyRoute: accept.Routes == nil, Routes: accept.Routes, Except: config.Prefixes(conf.Except), DNS: accept.DNS,
		Frames: conf.Mode == config.ModeTap, FullTunnel: accept.FullTunnel && (conf.FullTunnelPos == config.Position{} || !conf.FullTunnel.None()),
	}
}

// serverAddresses are where the server is reached, for all that is known.
func (t *liveTunnel) serverAddresses(conf *config.Tunnel, peer int) (out []netip.Addr) {
	p := &conf.Peers[peer]
	for _, e := range p.Endpoints {
		if a, err := netip.ParseAddr(e.Host); err == nil {
			out = append(out, a.WithZone("").Unmap())
		}
	}
	if t.engine == nil {
		return out
	}
	status := t.engine.Status()
	status.PrivateKey.Zero()
	for i := range status.Peers {
		if s := &status.Peers[i]; s.PublicKey == p.PublicKey && s.Endpoint.Remote.IsValid() {
			out = append(out, s.Endpoint.Remote.Addr().WithZone("").Unmap())
		}
	}
	return out
}

// withPulled is a configuration with what its server says and it accepts. What the file says itself goes before.
func (t *liveTunnel) withPulled(conf config.Tunnel) config.Tunnel {
	i := t.serverIn(&conf)
	if i < 0 {
		return conf
	}
	conf.Peers = slices.Clone(conf.Peers)
	p := &conf.Peers[i]
	if p.KeepalivePos == (config.Position{}) && p.Keepalive == 0 {
		p.Keepalive = pullKeepalive
	}
	if t.role.pulled == nil || t.role.pulledBy != p.PublicKey {
		return conf
	}
	policy := acceptPolicy(&conf, i)
	d, _, err := policy.Accept(*t.role.pulled, t.serverAddresses(&conf, i))
	if err != nil { // the server has moved to where its own addresses lie
		t.log.Warn("what the server says to set up is refused", "error", err)
		return conf
	}
	if d.Keepalive != 0 && p.KeepalivePos == (config.Position{}) {
		p.Keepalive = d.Keepalive
	}
	if conf.MTU == 0 {
		conf.MTU = d.MTU
	}
	if len(conf.DNS.Servers)+len(conf.DNS.Domains)+len(conf.DNS.Search) == 0 {
		conf.DNS.Servers, conf.DNS.Domains, conf.DNS.Search = d.DNS, d.Domains, d.Search
		if conf.DNS.Pos == (config.Position{}) {
			conf.DNS.Pos = p.PullPos
		}
	}
	if d.FullTunnel && conf.FullTunnelPos == (config.Position{}) {
		conf.FullTunnel, conf.FullTunnelPos = config.Families{IPv4: true, IPv6: true}, p.PullPos
	}
	conf.Addresses = slices.Clone(conf.Addresses)
	for _, a := range d.Addresses {
		if !slices.ContainsFunc(conf.Addresses, func(b config.Prefix) bool { return b.Addr() == a.Addr() }) {
			conf.Addresses = append(conf.Addresses, config.Prefix{Prefix: a, Pos: p.PullPos})
		}
	}
	if conf.Mode == config.ModeTap {
		return conf
	}
	taken := make(map[netip.Prefix]bool) // another peer's by the file
	for j := range conf.Peers {
		for _, a := range conf.Peers[j].AllowedIPs {
			taken[a.Prefix] = true
		}
	}
	p.AllowedIPs = slices.Clone(p.AllowedIPs)
	// Where the file itself has all go into the tunnel, the server is who it goes to.
	d.FullTunnel = d.FullTunnel || !conf.FullTunnel.None()
	for _, n := range d.Networks() {
		if !taken[n] && (n.Bits() > 0 || conf.Takes(n.Addr())) {
			p.AllowedIPs = append(p.AllowedIPs, config.Prefix{Prefix: n, Pos: p.PullPos})
		}
	}
	return conf
}
