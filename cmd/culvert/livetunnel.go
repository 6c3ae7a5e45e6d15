package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"culvert/cmd/culvert/resolve"
	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/setup"
	"culvert/setup/spec"
	"culvert/transport"
	"culvert/transport/stream"
	"culvert/tunnel"
	"culvert/tunnel/device"
)

// liveTunnel is one tunnel of a configuration file that is up.
type liveTunnel struct {
	kernel kernel
	log    *slog.Logger
	file   *config.File // in force, as is conf; both are changed under linkMu
	conf   config.Tunnel
	whole  wholeTunnel // conf with what clients or a server add to it: what is really in force
	hooks  hooks
	usage  *usageStore
	netns  string // the network namespace of its device; "" is the daemon's, where its socket always is

	exclusively func(ctx context.Context, f func())
	around      func(ctx context.Context) error
	publish     func(control.Event)

	engine   engine
	dev      device.Device
	wg       *wgSocket
	streams  *stream.Network
	resolver *resolve.Resolver
	undo     undo
	role     role
	isUp     bool // PostUp ran: PreDown and PostDown must as well

	linkMu sync.Mutex // guards what follows; the resolver takes it
	link   l3

	underlay    func() []netip.Addr // name servers that are asked past the tunnel
	certificate *tls.Certificate    // of its own, for TCP; nil before the first use
}

// surroundings are what the tunnels of a daemon share.
type surroundings struct {
	kernel kernel
	wgDir  string
	log    *slog.Logger
	out    io.Writer // for hooks
	remark func(text string)
	usage  *usageStore
	// underlay are the name servers that the machine asks without the tunnels.
	underlay func() []netip.Addr

	priority *priority
	clients  func(tunnel string) (*clientStore, error) // what a tunnel that is a server keeps

	publish func(control.Event) // tells of an event; nil: nobody is told

	exclusively func(ctx context.Context, f func()) // runs f while nothing else changes the instance, unless ctx ends before
	around      func(ctx context.Context) error     // makes the network around the tunnels what they need now; only exclusively
}

// startTunnel brings a tunnel up, or leaves nothing behind.
func startTunnel(ctx context.Context, s surroundings, file *config.File, conf config.Tunnel) (_ *liveTunnel, err error) {
	t, infof := newLiveTunnel(s, file, conf)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("tunnel %s: %w", conf.Name, err), t.undo.run())
		}
	}()
	if err := t.hooks.run(ctx, "PreUp", conf.Hooks.PreUp); err != nil {
		return nil, err
	}
	t.undoHooks("PostDown", func() []config.Hook { return t.conf.Hooks.PostDown })
	if err := t.openRole(s); err != nil {
		return nil, err
	}
	t.whole = t.wholeOf(conf)
	conf = t.whole.Tunnel
	network, err := t.startEngine(infof)
	if err != nil {
		return nil, placed(conf.Pos, err)
	}
	change, err := t.firstChange(s, &t.whole)
	if err != nil {
		return nil, err
	}
	if err := t.engine.Configure(change); err != nil {
		return nil, err
	}
	if t.wg, err = s.kernel.serveWG(s.wgDir, conf.Name, t.engine, infof); err != nil {
		return nil, err
	}
	t.undoSockets()
	if err := t.link.up(ctx, conf.Name); err != nil {
		return nil, err
	}
	if err := network.wait(ctx, t.engine.Done()); err != nil {
		return nil, placed(listenPosition(&conf, err), err)
	}
	if err := t.setLink(ctx, &conf); err != nil {
		return nil, err
	}
	if err := t.startResolver(infof); err != nil {
		return nil, err
	}
	if err := t.hooks.run(ctx, "PostUp", conf.Hooks.PostUp); err != nil {
		return nil, err
	}
	t.startRole()
	t.isUp = true
	t.undoHooks("PreDown", func() []config.Hook { return t.conf.Hooks.PreDown })
	return t, nil
}

// undoHooks has commands run at the end, if the tunnel has come up.
func (t *liveTunnel) undoHooks(which string, commands func() []config.Hook) {
	t.undo.add("run "+which, func() error {
		if !t.isUp {
			return nil
		}
		return t.hooks.run(context.Background(), which, commands())
	})
}

// undoSockets has what the interface has besides its device taken away at the end.
func (t *liveTunnel) undoSockets() {
	t.undo.add("close the socket for wg", t.wg.close)
	t.undo.add("take the interface's addresses and routes away", func() error {
		t.linkMu.Lock()
		defer t.linkMu.Unlock()
		return t.link.remove()
	})
}

// firstChange is the engine's first configuration.
func (t *liveTunnel) firstChange(s surroundings, conf *wholeTunnel) (tunnel.Change, error) {
	change, err := changeTo(conf, nil)
	if err != nil {
		return change, err
	}
	s.usage.restore(&change, conf.Name, nil)
	t.hold(&change)
	return change, nil
}

// newLiveTunnel is a tunnel of which nothing is up yet, and where its remarks go.
func newLiveTunnel(s surroundings, file *config.File, conf config.Tunnel) (t *liveTunnel, infof func(string, ...any)) {
	netns := netnsOf(file, conf.Name)
	log := s.log.With("interface", conf.Name)
	infof = func(format string, args ...any) { log.Info(fmt.Sprintf(format, args...)) }
	warnf := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		log.Warn(text)
		s.remark("culvert: " + conf.Name + ": warning: " + text)
	}
	t = &liveTunnel{
		kernel: s.kernel, log: log, file: file, conf: conf, whole: wholeTunnel{Tunnel: conf}, netns: netns, usage: s.usage,
		underlay: s.underlay, exclusively: s.exclusively, around: s.around, publish: s.publish,
		hooks: hooks{ifname: conf.Name, out: s.out, logf: infof, priority: s.priority},
		link: l3{apply: s.kernel.apply, standing: s.kernel.standing, inherit: s.kernel.inherit, warnf: warnf,
			namespace: setup.NamespacePath(netns)},
	}
	return t, infof
}

// startEngine opens the device and starts the engine on it.
func (t *liveTunnel) startEngine(infof func(string, ...any)) (*observedNetwork, error) {
	dev, err := t.openDevice()
	if err != nil {
		return nil, err
	}
	return t.runEngine(dev, stream.New(t.kernel.network), nil, infof)
}

// runEngine starts the engine on a device and a network, where from is not nil to go on from there.
func (t *liveTunnel) runEngine(dev device.Device, streams *stream.Network, from *tunnel.State, infof func(string, ...any)) (*observedNetwork, error) {
	t.streams = streams
	if err := t.acceptTCP(&t.conf); err != nil { // nothing is opened yet
		return nil, errors.Join(err, dev.Close())
	}
	network := observe(t.streams)
	e, err := t.kernel.newEngine(dev, network, tunnel.Options{
		Logf:             infof,
		Debugf:           func(format string, args ...any) { t.log.Debug(fmt.Sprintf(format, args...)) },
		HandshakeFailing: t.handshakeFailing,
		LinkUp:           t.linkUp,
		Pushed:           t.role.pushed,
		Greeted:          t.role.greeted,
		Greet:            true,
		Agent:            agent(),
		Restore:          from,
	})
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	t.engine, t.dev = e, dev
	t.undo.add("close the device", e.Close)
	return network, nil
}

func (t *liveTunnel) openDevice() (device.Device, error) {
	namespace := setup.NamespacePath(t.netns)
	if t.conf.Mode == config.ModeTap {
		return t.kernel.openTap(namespace, t.conf.Name, t.conf.MAC, queuesOf(&t.conf))
	}
	return t.kernel.openTun(namespace, t.conf.Name, queuesOf(&t.conf))
}

// maxAutoQueues is how many queues a tunnel has at most that is not told how many. Half the processors are for what the kernel
// does with the packets, and for the rest of the machine.
const maxAutoQueues = 8

// queuesOf is how many queues a tunnel's device has, and workers each way.
func queuesOf(t *config.Tunnel) int {
	if t.Queues != 0 {
		return t.Queues
	}
	return autoQueues(runtime.GOMAXPROCS(0))
}

// autoQueues is how many queues a tunnel has by itself on a machine of so many processors.
func autoQueues(processors int) int { return min(max(processors/2, 1), maxAutoQueues) }

// netnsOf is the network namespace that a file has a tunnel's device in; "" is the daemon's.
func netnsOf(file *config.File, tunnel string) string {
	for i := range file.Setup.Links {
		if l := &file.Setup.Links[i]; l.Type == spec.TypeTunnel && l.Key == tunnel {
			return l.Netns
		}
	}
	return ""
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
	if t.link.isStanding() {
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
	names := make(map[crypto.PublicKey]string, len(t.whole.Peers))
	for i := range t.whole.Peers {
		names[t.whole.Peers[i].PublicKey] = t.whole.Peers[i].Name
	}
	return names
}

func (t *liveTunnel) setMark(mark uint32) error {
	return t.engine.Configure(tunnel.Change{Mark: &mark})
}

func (t *liveTunnel) startResolver(infof func(string, ...any)) error {
	targets, err := peerTargets(&t.whole.Tunnel)
	if err != nil {
		return err
	}
	r := resolve.New(resolve.Options{Lookup: t.lookup, Use: t.useEndpoint, Logf: infof})
	t.linkMu.Lock()
	t.resolver = r
	t.linkMu.Unlock()
	t.undo.add("end the resolver", func() error { r.Close(); return nil })
	r.Set(targets)
	return nil
}

// lookup resolves the name of an endpoint. Where all traffic goes into the tunnel, or nothing else gets out, the servers of the underlay
// are asked directly, by packets with the tunnel's mark: whatever is resolved otherwise is asked through the tunnel, which needs the
// endpoint first.
func (t *liveTunnel) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	t.linkMu.Lock()
	mark, past := t.whole.Mark, t.whole.KillSwitch || !t.whole.FullTunnel.None()
	t.linkMu.Unlock()
	if !past || t.underlay == nil {
		return t.kernel.lookup(ctx, name)
	}
	return t.kernel.lookupPast(ctx, name, mark, t.underlay())
}

// useEndpoint gives a peer another endpoint, unless it is in good contact where it is: it may have called in the meantime
// from somewhere else.
func (t *liveTunnel) useEndpoint(peer crypto.PublicKey, to netip.AddrPort) {
	status := t.engine.Status()
	status.PrivateKey.Zero()
	for i := range status.Peers {
		if p := &status.Peers[i]; p.PublicKey == peer && p.Endpoint.Remote.IsValid() && p.HandshakeAttempts == 0 && p.Session {
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
	if t.link.base == nil || t.whole.MTU != 0 {
		return
	}
	mtu, err := t.computeMTU(context.Background(), &t.whole.Tunnel)
	if err == nil && mtu != t.link.have.MTU {
		want := t.link.have
		want.MTU = mtu
		err = t.link.set(context.Background(), want)
	}
	if err != nil {
		t.log.Warn("cannot set the MTU", "error", err)
	}
}

// computeMTU is the configured MTU, or what the way to the peers leaves room for; on a tap that of an Ethernet.
func (t *liveTunnel) computeMTU(ctx context.Context, conf *config.Tunnel) (int, error) {
	switch {
	case conf.MTU != 0:
		return conf.MTU, nil
	case conf.Mode == config.ModeTap:
		return defaultTapMTU, nil
	}
	status := t.engine.Status()
	status.PrivateKey.Zero()
	var endpoints []netip.Addr
	for _, p := range status.Peers {
		if p.Endpoint.Remote.IsValid() {
			endpoints = append(endpoints, p.Endpoint.Remote.Addr())
		}
	}
	own := conf.Name
	if t.netns != "" {
		own = "" // a link of that name here would be another's
	}
	mtu, err := t.kernel.autoMTU(ctx, own, status.Mark, overheadOf(conf), endpoints)
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

// reload makes another configuration the one in force. Where a step fails it goes back to the one before.
func (t *liveTunnel) reload(ctx context.Context, file *config.File, conf config.Tunnel) (remarks []string, err error) {
	t.role.changing.Lock()
	defer t.role.changing.Unlock()
	before := t.whole
	if err := t.configureRole(&conf); err != nil {
		return nil, placed(serverPosition(&conf), fmt.Errorf("tunnel %s: %w", conf.Name, err))
	}
	if err := t.change(ctx, t.wholeIn(file, conf), before); err != nil {
		return nil, errors.Join(fmt.Errorf("tunnel %s: %w", conf.Name, err), t.configureRole(&t.conf), t.change(context.WithoutCancel(ctx), before, t.whole))
	}
	if !sameHooks(t.conf.Hooks, conf.Hooks) {
		remarks = append(remarks, conf.Name+": changed hooks run from the next time on; PreDown and PostDown are the new ones")
	}
	remarks = append(remarks, accessChanges(&before, &t.whole)...)
	t.linkMu.Lock()
	t.file, t.conf = file, conf
	t.linkMu.Unlock()
	t.role.order.set(serversOf(&conf), time.Now())
	select {
	case t.role.refresh <- struct{}{}: // there may be more servers to be asked
	default:
	}
	t.tellAll()
	return remarks, nil
}

func (t *liveTunnel) change(ctx context.Context, to, from wholeTunnel) error {
	change, err := changeTo(&to, &from.Tunnel)
	if err != nil {
		return err
	}
	had := make(map[crypto.PublicKey]bool)
	for i := range from.Peers {
		had[from.Peers[i].PublicKey] = from.Peers[i].Access != nil && from.Peers[i].Access.Quota != nil
	}
	t.usage.restore(&change, to.Name, had)
	t.hold(&change)
	targets, err := peerTargets(&to.Tunnel)
	if err != nil {
		return err
	}
	// First only the peers that stay as they are, so that nothing found for an old endpoint overwrites a new one.
	old, err := peerTargets(&from.Tunnel)
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
	if err := t.acceptTCP(&to.Tunnel); err != nil {
		return err
	}
	if err := t.engine.Configure(change); err != nil {
		return err
	}
	t.linkMu.Lock()
	t.whole = to
	t.linkMu.Unlock()
	t.resolver.Set(targets)
	return t.setLink(ctx, &to.Tunnel)
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
