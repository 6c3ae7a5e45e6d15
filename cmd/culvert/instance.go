package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"culvert/cmd/culvert/control"
	"culvert/config"
)

// instance is the body of an "up" daemon: the tunnels of one configuration file.
type instance struct {
	d      *daemon
	kernel kernel
	file   *config.File // in force
	ctx    context.Context
	fail   func(error)

	mu      sync.Mutex // guards tunnels, for status
	tunnels []*liveTunnel
}

func (in *instance) surroundings() surroundings {
	return surroundings{kernel: in.kernel, wgDir: in.d.p.wgDir, log: in.d.log, out: in.d.out, remark: in.d.ready.remark}
}

func (in *instance) start(ctx context.Context, fail func(error)) error {
	in.ctx, in.fail = ctx, fail
	for _, conf := range in.file.Tunnels {
		if err := in.add(ctx, in.file, conf); err != nil {
			return err // serve tears down what is up already
		}
	}
	return nil
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
		c.Interface = t.hooks.ifname
		out = append(out, c)
	}
	return out
}

// teardown stops the tunnels, the last started first.
func (in *instance) teardown() error {
	var errs []error
	live := in.live()
	for i := len(live) - 1; i >= 0; i-- {
		errs = append(errs, live[i].stop())
	}
	in.mu.Lock()
	in.tunnels = nil
	in.mu.Unlock()
	return errors.Join(errs...)
}

// reload reads the file again and applies the differences. A wrong file changes nothing; where a right one cannot be
// applied, what was changed goes back, except for tunnels the file no longer has.
func (in *instance) reload(ctx context.Context) (remarks []string, err error) {
	file, err := loadConfig(in.d.file)
	if err != nil {
		return nil, err
	}
	if file.Instance != in.file.Instance {
		return nil, fmt.Errorf("%s now names the instance %s: take %s down and bring the file up", in.d.file, file.Instance, in.file.Instance)
	}
	for _, w := range file.Warnings {
		remarks = append(remarks, "warning: "+w.Error())
	}
	wanted := make(map[string]bool)
	for _, conf := range file.Tunnels {
		wanted[conf.Name] = true
	}
	running := make(map[string]*liveTunnel)
	for _, t := range in.live() {
		running[t.hooks.ifname] = t
	}

	// What can fail comes before what cannot be taken back.
	var back undo
	for _, conf := range file.Tunnels {
		if t := running[conf.Name]; t != nil {
			before, beforeFile := t.conf, t.file
			more, err := t.reload(ctx, file, conf)
			if err != nil {
				return remarks, errors.Join(err, back.run())
			}
			back.add("go back to the configuration of "+conf.Name, func() error {
				_, err := t.reload(context.WithoutCancel(ctx), beforeFile, before)
				return err
			})
			remarks = append(remarks, more...)
			continue
		}
		if err := in.add(in.ctx, file, conf); err != nil {
			return remarks, errors.Join(err, back.run())
		}
		remarks = append(remarks, conf.Name+": new, up")
		back.add("stop "+conf.Name, func() error { return in.drop(conf.Name) })
	}
	in.file = file
	var errs []error
	for name := range running {
		if !wanted[name] {
			errs = append(errs, in.drop(name))
			remarks = append(remarks, name+": no longer in the file, down")
		}
	}
	return remarks, errors.Join(errs...)
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
