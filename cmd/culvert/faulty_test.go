package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"culvert/config"
	"culvert/setup"
	"culvert/setup/apply"
	"culvert/setup/plan"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
)

// faultsEnv makes this test binary culvert, in which something happens to one of the steps that it and its daemons do. It names a folder:
//
//	fault   what becomes of which step, counted from 1, and which try this is, as in "kill 3 7"
//	steps   the steps begun, with the try's number before each
//
// Without the file fault nothing happens, and nothing is written. The tests that use it are internal/scenes'.
const faultsEnv = "CULVERT_FAULTS"

// errFault is a step's failure that a test wants.
var errFault = errors.New("injected")

// faults counts a process's steps: those of plans, and those that a tunnel's device, sockets and addresses are made in. What happens to
// one of them:
//
//	fail         it is not done, and fails; a step that takes something of a tunnel back cannot
//	kill         the process gets SIGKILL before it
//	kill-after   and before what comes after it
type faults struct {
	folder string

	mu   sync.Mutex
	text string // of the file fault, when n was 0
	try  string
	what string
	at   int
	n    int
}

func faultyProgram(folder string) *program {
	f := &faults{folder: folder}
	p := newProgram(os.Stdin, os.Stdout, os.Stderr)
	p.machineOf = func(instance string) machine {
		m := p.linuxMachine(instance)
		m.Kernel = &faultyParts{m.Kernel.(*apply.Parts), f}
		return m
	}
	p.kernelOf = func() kernel { return f.around(linux()) }
	return p
}

// ahead says what is to happen to one of the next n steps, and to which of them, from 0; "" where nothing is. It counts none.
func (f *faults) ahead(n int) (what string, at int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text, err := os.ReadFile(filepath.Join(f.folder, "fault"))
	if err != nil {
		f.text, f.try = "", ""
		return "", 0
	}
	if string(text) != f.text {
		f.text, f.n = string(text), 0
		if _, err := fmt.Sscanf(f.text, "%s %d %s", &f.what, &f.at, &f.try); err != nil {
			panic(err)
		}
	}
	if at := f.at - f.n - 1; at >= 0 && at < n {
		return f.what, at
	}
	return "", 0
}

// begin counts a step.
func (f *faults) begin(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.try == "" {
		return
	}
	file, err := os.OpenFile(filepath.Join(f.folder, "steps"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(file, "%s %s\n", f.try, strings.ReplaceAll(name, "\n", " "))
	file.Close()
}

// step does a step, or what is to become of it.
func (f *faults) step(name string, do func() error) error {
	what, _ := f.ahead(1)
	f.begin(name)
	switch what {
	case "fail":
		return errFault
	case "kill":
		die()
	}
	err := do()
	if what == "kill-after" {
		die()
	}
	return err
}

// failing reports whether a step is to fail.
func (f *faults) failing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.try != "" && f.what == "fail"
}

// back is a step that takes back what another did. It does not fail, and does not count where steps do.
func (f *faults) back(name string, do func() error) error {
	what, _ := f.ahead(1)
	if f.failing() {
		return do()
	}
	f.begin(name)
	if what == "kill" {
		die()
	}
	err := do()
	if what == "kill-after" {
		die()
	}
	return err
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// faultyParts are the running system's, with faults.
type faultyParts struct {
	*apply.Parts
	faults *faults
}

func (k *faultyParts) Do(ctx context.Context, s *plan.Step) (done apply.Done, err error) {
	err = k.faults.step(fmt.Sprintf("%s %s", s.Op, s.ID), func() (err error) {
		done, err = k.Parts.Do(ctx, s)
		return err
	})
	return done, err
}

// DeleteLinks counts each of the steps. A failure is that of the step by itself, since all are tried one after the other then; killed,
// those before it are gone.
func (k *faultyParts) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	what, at := k.faults.ahead(len(steps))
	if what == "fail" {
		return errFault
	}
	n := len(steps)
	switch what {
	case "kill":
		n = at
	case "kill-after":
		n = at + 1
	}
	for i := range steps {
		k.faults.begin(fmt.Sprintf("%s %s", steps[i].Op, steps[i].ID))
	}
	var err error
	if n > 0 {
		err = k.Parts.DeleteLinks(ctx, steps[:n])
	}
	if what != "" {
		die()
	}
	return err
}

// around is a kernel with faults in what makes and takes away a tunnel.
func (f *faults) around(k kernel) kernel {
	openTun, openTap, newEngine, serveWG, setLink := k.openTun, k.openTap, k.newEngine, k.serveWG, k.apply
	k.openTun = func(namespace, name string, queues int) (d device.Device, err error) {
		err = f.step("open tun "+name, func() (err error) { d, err = openTun(namespace, name, queues); return err })
		return d, err
	}
	k.openTap = func(namespace, name string, address config.MAC, queues int) (d device.Device, err error) {
		err = f.step("open tap "+name, func() (err error) { d, err = openTap(namespace, name, address, queues); return err })
		return d, err
	}
	k.newEngine = func(d device.Device, n transport.Network, o tunnel.Options) (e engine, err error) {
		if err = f.step("start engine", func() (err error) { e, err = newEngine(d, n, o); return err }); err != nil {
			return nil, err
		}
		return &faultyEngine{e, f}, nil
	}
	k.network = &faultyNetwork{k.network, f}
	k.serveWG = func(folder, name string, e engine, logf func(string, ...any)) (s *wgSocket, err error) {
		if err = f.step("serve wg "+name, func() (err error) { s, err = serveWG(folder, name, e, logf); return err }); err != nil {
			return nil, err
		}
		end := s.close
		return &wgSocket{s.removed, func() error { return f.back("close wg "+name, end) }, s.listener}, nil
	}
	k.apply = func(ctx context.Context, c setup.L3) (a applied, err error) {
		name := linkStep(&c)
		if f.ahead(1); f.failing() && len(c.Routes) > 0 && c.Routes[0].Metric == setup.StandInMetric {
			return setLink(ctx, c) // where it fails a reload goes on
		}
		if err = f.step("set "+name, func() (err error) { a, err = setLink(ctx, c); return err }); err != nil {
			return applied{}, err
		}
		remove := a.remove
		a.remove = func() error { return f.back("take back "+name, remove) }
		return a, nil
	}
	return k
}

// linkStep says what of a link is set.
func linkStep(c *setup.L3) string {
	var b strings.Builder
	fmt.Fprintf(&b, "link %s", c.Link)
	if c.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", c.MTU)
	}
	for _, p := range c.Addresses {
		fmt.Fprintf(&b, " address %s", p)
	}
	for _, r := range c.Routes {
		fmt.Fprintf(&b, " route %s", r.Prefix)
	}
	return b.String()
}

// faultyNetwork opens ports, or does not.
type faultyNetwork struct {
	transport.Network
	faults *faults
}

func (n *faultyNetwork) Open(o transport.Options) (s transport.Socket, err error) {
	err = n.faults.step(fmt.Sprint("open port ", o.Port), func() (err error) { s, err = n.Network.Open(o); return err })
	return s, err
}

// faultyEngine is killed where it ends.
type faultyEngine struct {
	engine
	faults *faults
}

func (e *faultyEngine) Close() error { return e.faults.back("end engine", e.engine.Close) }
