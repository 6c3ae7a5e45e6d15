package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"culvert/cmd/culvert/resolve"
	"culvert/config"
	"culvert/crypto"
	"culvert/setup"
	"culvert/transport"
	"culvert/tunnel"
)

// liveTunnel is one tunnel of a configuration file that is up.
type liveTunnel struct {
	kernel kernel
	log    *slog.Logger
	file   *config.File // in force, as is conf; both are changed under linkMu
	conf   config.Tunnel
	hooks  hooks

	engine   engine
	resolver *resolve.Resolver
	undo     undo
	isUp     bool // PostUp ran: PreDown and PostDown must as well

	linkMu  sync.Mutex // guards what follows; the resolver takes it
	link    l3
	dropDNS func() error // nil where none is set
}

// surroundings are what the tunnels of a daemon share.
type surroundings struct {
	kernel kernel
	wgDir  string
	log    *slog.Logger
	out    io.Writer // for hooks
	remark func(text string)
}

// startTunnel brings a tunnel up, or leaves nothing behind.
func startTunnel(ctx context.Context, s surroundings, file *config.File, conf config.Tunnel) (_ *liveTunnel, err error) {
	log := s.log.With("interface", conf.Name)
	infof := func(format string, args ...any) { log.Info(fmt.Sprintf(format, args...)) }
	warnf := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		log.Warn(text)
		s.remark("culvert: " + conf.Name + ": warning: " + text)
	}
	t := &liveTunnel{
		kernel: s.kernel, log: log, file: file, conf: conf,
		hooks: hooks{ifname: conf.Name, out: s.out, logf: infof},
		link:  l3{apply: s.kernel.apply, warnf: warnf},
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("tunnel %s: %w", conf.Name, err), t.undo.run())
		}
	}()
	if err := t.hooks.run(ctx, "PreUp", conf.Hooks.PreUp); err != nil {
		return nil, err
	}
	t.undo.add("run PostDown", func() error {
		if !t.isUp {
			return nil
		}
		return t.hooks.run(context.Background(), "PostDown", t.conf.Hooks.PostDown)
	})
	network, err := t.startEngine(infof)
	if err != nil {
		return nil, placed(conf.Pos, err)
	}
	change, err := changeTo(&conf, nil)
	if err != nil {
		return nil, err
	}
	if err := t.engine.Configure(change); err != nil {
		return nil, err
	}
	sock, err := s.kernel.serveWG(s.wgDir, conf.Name, t.engine, infof)
	if err != nil {
		return nil, err
	}
	t.undo.add("close the socket for wg", sock.close)
	t.undo.add("take the interface's addresses and routes away", func() error {
		t.linkMu.Lock()
		defer t.linkMu.Unlock()
		return t.link.remove()
	})
	if err := t.link.up(ctx, conf.Name); err != nil {
		return nil, err
	}
	if err := network.wait(ctx, t.engine.Done()); err != nil {
		return nil, placed(conf.ListenPos, err)
	}
	if err := t.setLink(ctx, &conf); err != nil {
		return nil, err
	}
	t.undo.add("take the name servers away", t.removeDNS)
	if err := t.setDNS(conf.DNS); err != nil {
		return nil, placed(conf.DNS.Pos, err)
	}
	if err := t.startResolver(infof); err != nil {
		return nil, err
	}
	if err := t.hooks.run(ctx, "PostUp", conf.Hooks.PostUp); err != nil {
		return nil, err
	}
	t.isUp = true
	t.undo.add("run PreDown", func() error {
		return t.hooks.run(context.Background(), "PreDown", t.conf.Hooks.PreDown)
	})
	return t, nil
}

// startEngine opens the device and starts the engine on it.
func (t *liveTunnel) startEngine(infof func(string, ...any)) (*observedNetwork, error) {
	dev, err := t.kernel.openTun(t.conf.Name)
	if err != nil {
		return nil, err
	}
	network := observe(t.kernel.network)
	e, err := t.kernel.newEngine(dev, network, tunnel.Options{
		Logf:             infof,
		Debugf:           func(format string, args ...any) { t.log.Debug(fmt.Sprintf(format, args...)) },
		HandshakeFailing: t.handshakeFailing,
		LinkUp:           t.linkUp,
		Agent:            agent(),
	})
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	t.engine = e
	t.undo.add("close the device", e.Close)
	return network, nil
}

func (t *liveTunnel) handshakeFailing(peer crypto.PublicKey) {
	t.linkMu.Lock()
	r := t.resolver
	t.linkMu.Unlock()
	if r != nil {
		r.Failing(peer)
	}
}

// linkUp puts back what the kernel took from the interface while it was down.
func (t *liveTunnel) linkUp() {
	t.linkMu.Lock()
	defer t.linkMu.Unlock()
	if t.link.base == nil { // going away
		return
	}
	if err := t.link.restore(context.Background(), t.setMark); err != nil {
		t.log.Warn("the interface was down; its addresses and routes cannot all be put back", "error", err)
		return
	}
	t.log.Info("the interface was down; its addresses and routes are back")
}

// peerNames are the names that peers have in a YAML file. A wg-quick file gives none.
func (t *liveTunnel) peerNames() map[crypto.PublicKey]string {
	t.linkMu.Lock()
	defer t.linkMu.Unlock()
	if t.file.Format != config.FormatYAML {
		return nil
	}
	names := make(map[crypto.PublicKey]string, len(t.conf.Peers))
	for i := range t.conf.Peers {
		names[t.conf.Peers[i].PublicKey] = t.conf.Peers[i].Name
	}
	return names
}

func (t *liveTunnel) setMark(mark uint32) error {
	return t.engine.Configure(tunnel.Change{Mark: &mark})
}

func (t *liveTunnel) startResolver(infof func(string, ...any)) error {
	targets, err := peerTargets(&t.conf)
	if err != nil {
		return err
	}
	r := resolve.New(resolve.Options{Lookup: t.kernel.lookup, Use: t.useEndpoint, Logf: infof})
	t.linkMu.Lock()
	t.resolver = r
	t.linkMu.Unlock()
	t.undo.add("end the resolver", func() error { r.Close(); return nil })
	r.Set(targets)
	return nil
}

// useEndpoint gives a peer another endpoint, unless it is in good contact where it is: it may have called in the meantime
// from somewhere else.
func (t *liveTunnel) useEndpoint(peer crypto.PublicKey, to netip.AddrPort) {
	const contact = 180 * time.Second // a session's lifetime
	status := t.engine.Status()
	status.PrivateKey.Zero()
	for _, p := range status.Peers {
		if p.PublicKey == peer && p.Endpoint.Remote.IsValid() && p.HandshakeAttempts == 0 && time.Since(p.LastHandshake) < contact {
			return
		}
	}
	t.log.Debug("endpoint", "peer", peer, "address", to)
	err := t.engine.Configure(tunnel.Change{Peers: []tunnel.PeerChange{{
		PublicKey: peer, UpdateOnly: true, Endpoint: &transport.Endpoint{Remote: to},
	}}})
	if err != nil {
		t.log.Warn("cannot set an endpoint", "peer", peer, "error", err)
		return
	}
	t.refreshMTU()
}

// refreshMTU computes an automatic MTU again: endpoints have become known, or others.
func (t *liveTunnel) refreshMTU() {
	t.linkMu.Lock()
	defer t.linkMu.Unlock()
	if t.link.base == nil || t.conf.MTU != 0 {
		return
	}
	mtu, err := t.computeMTU(context.Background(), &t.conf)
	if err == nil && mtu != t.link.have.MTU {
		want := t.link.have
		want.MTU = mtu
		err = t.link.set(context.Background(), want)
	}
	if err != nil {
		t.log.Warn("cannot set the MTU", "error", err)
	}
}

// computeMTU is the configured MTU, or what the way to the peers leaves room for.
func (t *liveTunnel) computeMTU(ctx context.Context, conf *config.Tunnel) (int, error) {
	if conf.MTU != 0 {
		return conf.MTU, nil
	}
	status := t.engine.Status()
	status.PrivateKey.Zero()
	var endpoints []netip.Addr
	for _, p := range status.Peers {
		if p.Endpoint.Remote.IsValid() {
			endpoints = append(endpoints, p.Endpoint.Remote.Addr())
		}
	}
	mtu, err := t.kernel.autoMTU(ctx, conf.Name, status.Mark, overheadOf(conf), endpoints)
	if err != nil {
		return 0, err
	}
	// What a path allows may be less than IPv6 in the tunnel can live with; then outer packets are fragmented.
	return max(mtu, minAutoMTU), nil
}

const minAutoMTU = 1280 // RFC 8200, section 5

// setLink brings addresses, routes and MTU about.
func (t *liveTunnel) setLink(ctx context.Context, conf *config.Tunnel) error {
	mtu, err := t.computeMTU(ctx, conf)
	if err != nil {
		return err
	}
	want := linkOf(conf, mtu)
	want.SetMark = t.setMark
	t.linkMu.Lock()
	defer t.linkMu.Unlock()
	err = t.link.set(ctx, want)
	return placed(linkPosition(conf, err), err)
}

func (t *liveTunnel) setDNS(dns config.DNS) error {
	remove, remark, err := applyDNS(t.kernel.program, t.conf.Name, dns)
	if err != nil {
		return err
	}
	if remark != "" {
		t.link.warnf("%s", remark)
	}
	t.dropDNS = remove
	return nil
}

func (t *liveTunnel) removeDNS() error {
	if t.dropDNS == nil {
		return nil
	}
	f := t.dropDNS
	t.dropDNS = nil
	return f()
}

// reload makes another configuration the one in force. Where a step fails it goes back to the one before.
func (t *liveTunnel) reload(ctx context.Context, file *config.File, conf config.Tunnel) (remarks []string, err error) {
	before := t.conf
	if err := t.change(ctx, conf, before); err != nil {
		return nil, errors.Join(fmt.Errorf("tunnel %s: %w", conf.Name, err), t.change(context.WithoutCancel(ctx), before, conf))
	}
	if !sameHooks(before.Hooks, conf.Hooks) {
		remarks = append(remarks, conf.Name+": changed hooks run from the next time on; PreDown and PostDown are the new ones")
	}
	t.linkMu.Lock()
	t.file = file
	t.linkMu.Unlock()
	return remarks, nil
}

func (t *liveTunnel) change(ctx context.Context, to, from config.Tunnel) error {
	change, err := changeTo(&to, &from)
	if err != nil {
		return err
	}
	targets, err := peerTargets(&to)
	if err != nil {
		return err
	}
	// First only the peers that stay as they are, so that nothing found for an old endpoint overwrites a new one.
	old, err := peerTargets(&from)
	if err != nil {
		old = nil
	}
	same := make(map[crypto.PublicKey][]resolve.Target)
	for key, ts := range targets {
		if equalTargets(old[key], ts) {
			same[key] = ts
		}
	}
	t.resolver.Set(same)
	if err := t.engine.Configure(change); err != nil {
		return err
	}
	t.linkMu.Lock()
	t.conf = to
	t.linkMu.Unlock()
	t.resolver.Set(targets)
	if err := t.setLink(ctx, &to); err != nil {
		return err
	}
	if sameDNS(to.DNS, from.DNS) {
		return nil
	}
	return errors.Join(t.removeDNS(), t.setDNS(to.DNS))
}

func equalTargets(a, b []resolve.Target) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// stop takes the tunnel away.
func (t *liveTunnel) stop() error {
	if err := t.undo.run(); err != nil {
		return fmt.Errorf("tunnel %s: %w", t.conf.Name, err)
	}
	return nil
}

// placed adds the line of the file an error comes from, where there is one.
func placed(pos config.Position, err error) error {
	if err == nil || pos == (config.Position{}) {
		return err
	}
	return fmt.Errorf("%s: %w", pos, err)
}

// linkPosition is the line of what could not be set on a link: of the address, or of the peer's network.
func linkPosition(conf *config.Tunnel, err error) config.Position {
	e, ok := errors.AsType[*setup.OpError](err)
	if !ok {
		return config.Position{}
	}
	at := func(p config.Prefix) bool {
		return strings.HasPrefix(e.Item, p.String()+" ") || strings.HasPrefix(e.Item, p.Masked().String()+" ")
	}
	for _, a := range conf.Addresses {
		if at(a) && strings.Contains(e.Op, "address") {
			return a.Pos
		}
	}
	for _, p := range conf.Peers {
		for _, a := range p.AllowedIPs {
			if at(a) && strings.Contains(e.Op, "route") {
				return a.Pos
			}
		}
	}
	return conf.Pos
}
