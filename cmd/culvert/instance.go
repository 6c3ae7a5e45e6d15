package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"culvert/cmd/culvert/events"
	"culvert/cmd/culvert/monitor"
	"culvert/config"
	"culvert/control"
)

// instance is the body of an "up" daemon: the tunnels of one configuration file.
type instance struct {
	d      *daemon
	kernel kernel
	file   *config.File // in force
	ctx    context.Context
	fail   func(error)

	net     *network      // what is around the tunnels; nil where no file has declared anything
	started bool          // all of it came up: it is to be taken away at the end
	ending  bool          // no tunnel is started any more
	clients clientFile    // of tunnels that are servers
	hooks   *events.Hooks // run at events
	watched networkWatch  // how the running system differs from the file

	usage     *usageStore // what peers have used of their quotas
	saving    sync.Mutex  // held while it is saved
	usageDone chan struct{}

	monitor *monitor.Monitor // nil where no file has asked for it
	isReady atomic.Bool      // all is up, and nothing is ending

	serversMu   sync.Mutex // guards what follows
	serversSeen []monitor.Server

	mu      sync.Mutex // guards tunnels, for status
	tunnels []*liveTunnel
}

func (in *instance) surroundings() surroundings {
	return surroundings{
		kernel: in.kernel, wgDir: in.d.p.wgDir, log: in.d.log, out: in.d.out, remark: in.d.ready.remark, usage: in.usage,
		priority: &in.d.p.priority, underlay: in.d.p.names(in.file.Instance).Underlay,
		clients: func(tunnel string) (*clientStore, error) {
			return in.clients.tunnel(in.d.p.clientDir(), in.file.Instance, tunnel)
		},
		exclusively: in.exclusively, around: in.pulledNetwork, publish: in.d.events.Publish,
	}
}

// exclusively runs f while nothing else changes the instance. Where ctx ends before, f is not run: whoever ends it may hold the lock and
// wait for the caller.
func (in *instance) exclusively(ctx context.Context, f func()) {
	done := make(chan struct{})
	go func() {
		in.d.ops.Lock()
		defer in.d.ops.Unlock()
		defer close(done)
		if ctx.Err() == nil && !in.ending {
			f()
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (in *instance) start(ctx context.Context, fail func(error)) error {
	in.ctx, in.fail = ctx, fail
	for _, d := range unmet(in.file) {
		in.d.log.Warn(fmt.Sprintf("%s: %s needs %s, which this process has not got", d.at, d.what, capNames[d.capability]), "unit", dropInFolder+string(d.dropIn))
	}
	in.openHooks()
	in.startMonitor()
	if err := in.bringUp(ctx); err != nil {
		return err
	}
	in.isReady.Store(true)
	return nil
}

// bringUp starts the tunnels and makes the network around them.
func (in *instance) bringUp(ctx context.Context) error {
	in.usage = openUsage(in.d.p.usagePath(in.file.Instance), func(format string, args ...any) { in.d.log.Warn(fmt.Sprintf(format, args...)) })
	in.usageDone = make(chan struct{})
	go in.keepUsage(in.usageDone)
	if in.hasNetwork(in.file) {
		if err := in.openNetwork(ctx); err != nil {
			return err
		}
		before := in.net.interfaces()
		r, err := in.applyNetwork(ctx, in.file)
		if err != nil {
			return err
		}
		in.noteNetwork(r)
		in.started = true
		in.clearAfter(before)
		in.watchNetwork()
		return nil
	}
	for _, conf := range in.file.Tunnels {
		if err := in.add(ctx, in.file, conf); err != nil {
			return err // serve tears down what is up already
		}
	}
	in.started = true
	return nil
}

// clearAfter removes the sockets that a daemon which was killed has left of interfaces, where the file has no such tunnel any more.
func (in *instance) clearAfter(interfaces []string) {
	gone := slices.DeleteFunc(interfaces, in.isLive)
	if err := in.d.p.clearSockets(gone); err != nil {
		in.d.log.Warn("what a daemon that was killed has left cannot be removed", "error", err)
	}
}

func (in *instance) add(ctx context.Context, file *config.File, conf config.Tunnel) error {
	t, err := startTunnel(ctx, in.surroundings(), file, conf)
	if err != nil {
		return err
	}
	in.mu.Lock()
	in.tunnels = append(in.tunnels, t)
	in.mu.Unlock()
	go in.watch(t)
	return nil
}

// watch ends the daemon when a tunnel ends by itself.
func (in *instance) watch(t *liveTunnel) {
	<-t.engine.Done()
	if err := t.engine.Err(); err != nil {
		in.fail(fmt.Errorf("tunnel %s has ended: %w", t.hooks.ifname, err))
	}
}

func (in *instance) live() []*liveTunnel {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]*liveTunnel(nil), in.tunnels...)
}

func (in *instance) status() []control.Tunnel {
	out := []control.Tunnel{}
	for _, t := range in.live() {
		s := t.engine.Status()
		s.PrivateKey.Zero()
		c := statusOf(s, t.peerNames())
		c.Interface, c.Server = t.hooks.ifname, t.role.server != nil
		t.linkMu.Lock()
		if c.Pulls = pulledFrom(&t.conf) >= 0; c.Pulls {
			c.Given = givenOf(&t.conf, &t.whole.Tunnel)
		}
		t.linkMu.Unlock()
		c.SignIn, c.Pulled = t.role.signIn.status()
		out = append(out, c)
	}
	return out
}

func (in *instance) engines() (list []namedEngine) {
	for _, t := range in.live() {
		list = append(list, namedEngine{t.hooks.ifname, t.engine})
	}
	return list
}

// teardown takes the network away, with the tunnels in it, and stops what is left of these, the last started first.
func (in *instance) teardown() error {
	var errs []error
	in.ending = true
	in.stopMonitor()
	defer func() { in.clients.close() }()
	if in.usageDone != nil {
		close(in.usageDone)
		in.usageDone = nil
		if in.started {
			in.saveUsage()
		}
	}
	if in.net != nil {
		in.watched.stop()
		if in.started {
			errs = append(errs, in.destroyNetwork())
		}
		defer func() { in.net = nil }()
	}
	live := in.live()
	for i := len(live) - 1; i >= 0; i-- {
		errs = append(errs, live[i].stop())
	}
	in.mu.Lock()
	in.tunnels = nil
	in.mu.Unlock()
	if in.net != nil {
		errs = append(errs, in.net.close())
	}
	return errors.Join(errs...)
}

// reload reads the file again and applies the differences. A wrong file changes nothing; where a right one cannot be
// applied, what was changed goes back, except for tunnels the file no longer has.
func (in *instance) reload(ctx context.Context) (remarks []string, err error) {
	file, remarks, err := in.readAgain()
	if err != nil {
		return remarks, err
	}
	wanted := make(map[string]bool)
	for _, conf := range file.Tunnels {
		wanted[conf.Name] = true
	}
	running := make(map[string]*liveTunnel)
	for _, t := range in.live() {
		running[t.hooks.ifname] = t
	}

	for _, conf := range file.Tunnels {
		t := running[conf.Name]
		if t == nil {
			continue
		}
		if t.netns != netnsOf(file, conf.Name) {
			delete(running, conf.Name) // it is started anew, in another namespace
		}
	}
	if err := in.checkFixed(file); err != nil {
		return remarks, err
	}

	if in.net == nil && in.hasNetwork(file) {
		if err := in.openNetwork(ctx); err != nil {
			return remarks, err
		}
	}
	discard, commit, err := in.prepareMonitor(file)
	if err != nil {
		return remarks, err
	}
	defer func() {
		if err != nil {
			discard()
		}
	}()

	// What can fail comes before what cannot be taken back.
	in.saveUsage() // of quotas that this takes away for now
	var back undo
	for _, conf := range file.Tunnels {
		if t := running[conf.Name]; t != nil {
			before, beforeFile := t.conf, t.file
			more, err := t.reload(ctx, file, conf)
			if err != nil {
				return remarks, errors.Join(err, in.goBack(ctx, &back))
			}
			back.add("go back to the configuration of "+conf.Name, func() error {
				_, err := t.reload(context.WithoutCancel(ctx), beforeFile, before)
				return err
			})
			remarks = append(remarks, more...)
			continue
		}
		if in.net != nil {
			continue // a step of the plan
		}
		if err := in.add(in.ctx, file, conf); err != nil {
			return remarks, errors.Join(err, back.run())
		}
		remarks = append(remarks, conf.Name+": new, up")
		back.add("stop "+conf.Name, func() error { return in.drop(conf.Name) })
	}
	if in.net != nil {
		more, err := in.reloadNetwork(ctx, file)
		remarks = append(remarks, more...)
		if err != nil {
			return remarks, errors.Join(err, in.goBack(ctx, &back))
		}
	}
	in.file = file
	commit()
	in.hooks.Set(eventHooks(file))
	in.usage.keep(wanted)
	var errs []error
	for name := range running {
		if !wanted[name] && in.isLive(name) {
			errs = append(errs, in.drop(name))
			remarks = append(remarks, name+": no longer in the file, down")
		}
	}
	return remarks, errors.Join(errs...)
}

// goBack takes back what a reload has changed of tunnels. What the kernel has taken along of the network around them, as it does with the
// routes of a link that loses its last address, is put back as well.
func (in *instance) goBack(ctx context.Context, back *undo) error {
	if len(back.steps) == 0 {
		return nil
	}
	err := back.run()
	if in.net == nil || err != nil {
		return err
	}
	if _, err := in.reloadNetwork(context.WithoutCancel(ctx), in.file); err != nil {
		return fmt.Errorf("on the way back: %w", err)
	}
	return nil
}

func (in *instance) isLive(name string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.ContainsFunc(in.tunnels, func(t *liveTunnel) bool { return t.hooks.ifname == name })
}

// drop stops one tunnel.
func (in *instance) drop(name string) error {
	in.mu.Lock()
	var gone *liveTunnel
	for i, t := range in.tunnels {
		if t.hooks.ifname == name {
			gone = t
			in.tunnels = append(in.tunnels[:i:i], in.tunnels[i+1:]...)
			break
		}
	}
	in.mu.Unlock()
	if gone == nil {
		return nil
	}
	return gone.stop()
}
