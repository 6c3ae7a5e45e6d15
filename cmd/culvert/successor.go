package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"culvert/cmd/culvert/monitor"
	"culvert/config"
	"culvert/control"
	"culvert/succession"
	"culvert/tunnel"
)

const succeedCommand = "succeed"

// succeed is what a running daemon starts of the program that is to go on with its work; see predecessor.go.
func (p *program) succeed() *cobra.Command {
	var try bool
	cmd := &cobra.Command{
		Use:    succeedCommand + " FILE",
		Hidden: true,
		Args:   needArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			file, err := loadConfig(args[0])
			if err != nil {
				return err
			}
			if try {
				return json.NewEncoder(p.stdout).Encode(ability{Program: version(), Estate: []int{estateVersion}, State: []int{tunnel.StateVersion}})
			}
			h, err := takeSuccession()
			if err != nil {
				return err
			}
			if err := h.beginWith(file); err != nil {
				h.fail(err)
			}
			d := &daemon{p: p, name: file.Instance, kind: "up", file: args[0], nice: file.Nice, heir: h, started: h.begin.Started, refused: h.begin.Refused}
			h.in = &instance{d: d, kernel: p.kernel(), file: file}
			d.body = h.in
			err = d.serve(slog.Level(h.begin.StartLevel))
			if err != nil && !h.runs {
				h.fail(err)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&try, "try", false, "")
	return cmd
}

// heir is the part of a daemon that goes on for another process.
type heir struct {
	conn   *succession.Conn
	begin  *beginning
	lock   *os.File
	socket *os.File
	in     *instance

	tunnels []*heirTunnel
	runs    bool
}

// takeSuccession finds the pair of sockets in the environment.
func takeSuccession() (*heir, error) {
	fd, err := strconv.Atoi(takeEnv(succeedEnv))
	if err != nil || fd < 3 {
		return nil, errors.New("this is what a running daemon starts at an upgrade: culvert upgrade NAME is the command")
	}
	syscall.CloseOnExec(fd)
	conn, err := succession.Of(os.NewFile(uintptr(fd), "predecessor"))
	if err != nil {
		return nil, err
	}
	return &heir{conn: conn}, nil
}

// fail tells the other process why this one ends, and ends it at once: what it has is still the other's, and nothing may be taken away.
func (h *heir) fail(err error) {
	var text strings.Builder
	report(&text, err)
	h.conn.Send(successionMessage{Stage: stageFailed, Error: strings.TrimPrefix(strings.TrimSuffix(text.String(), "\n"), "culvert: "), Code: exitCode(err)})
	if h.in != nil && h.in.d.log != nil {
		h.in.d.log.Error("cannot go on for the process before", "error", err)
	}
	os.Exit(exitFailure)
}

// beginWith takes what the process begins with.
func (h *heir) beginWith(file *config.File) error {
	m, files, err := h.next(stageBegin)
	if err != nil {
		return err
	}
	if m.Begin == nil || len(files) != 2 {
		succession.CloseAll(files)
		return fmt.Errorf("the process before has sent %d descriptors", len(files))
	}
	h.begin, h.lock, h.socket = m.Begin, files[0], files[1]
	if h.begin.Instance != file.Instance {
		return fmt.Errorf("the file is now of the instance %s, and %s is what runs", file.Instance, h.begin.Instance)
	}
	return nil
}

// next receives the message of a stage. The other process is gone for good where there is none: it closes its end only when this one is dead.
func (h *heir) next(stage string) (m successionMessage, files []*os.File, err error) {
	files, err = h.conn.Receive(&m, time.Now().Add(2*upgradePatience))
	if err == nil && m.Stage != stage {
		succession.CloseAll(files)
		err = fmt.Errorf("the process before says %.20q where %q was expected", m.Stage, stage)
	}
	if err != nil {
		return m, nil, fmt.Errorf("waiting for %q: %w", stage, err)
	}
	return m, files, nil
}

func (h *heir) say(stage string) error { return h.conn.Send(successionMessage{Stage: stage}) }

func (h *heir) listen(d *daemon) (*control.Listener, error) {
	return control.Inherit(d.p.runDir, d.name, h.lock, h.socket)
}

// start is the daemon's. On an error nothing has been taken over, or nothing that the other could not begin anew.
func (h *heir) start(ctx context.Context, d *daemon) error {
	d.ops.Lock()
	defer d.ops.Unlock()
	in := h.in
	in.ctx, in.fail = ctx, func(err error) { d.stop(err) }
	d.level.Set(slog.Level(h.begin.Level))
	if err := h.say(stageHere); err != nil {
		return err
	}
	if _, _, err := h.next(stageStores); err != nil {
		return err
	}
	if err := h.holdStores(ctx); err != nil {
		return err
	}
	if err := h.say(stageHolds); err != nil {
		return err
	}
	e, files, err := h.takeEstate()
	if err != nil {
		return err
	}
	defer e.erase()
	if err := h.make(ctx, e, files); err != nil {
		return err
	}
	if err := h.say(stageReady); err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	if _, _, err := h.next(stageGo); err != nil && !errors.Is(err, io.EOF) {
		return err
	} else if err != nil {
		d.log.Warn("the process before has ended before it has said that this one is to go on: it goes on, as nobody else does")
	}
	if err := h.run(ctx); err != nil {
		return err
	}
	d.confine()
	h.runs = true
	if err := h.say(stageRuns); err != nil {
		d.log.Warn("the process before is gone already", "error", err)
	}
	h.settle(ctx)
	// The other one has named this process to the service manager when it has closed its end: before, nothing that this one says is heard.
	_, _ = h.conn.Receive(new(successionMessage), time.Now().Add(5*time.Second))
	h.conn.Close()
	d.up = true
	d.log.Info("goes on", "pid", os.Getpid(), "version", version(), "for", h.begin.From, "its_pid", h.begin.PID)
	d.tellReady()
	debug.FreeOSMemory()
	return nil
}

// holdStores opens the files that only one process can have, and makes the tunnels that they tell something of.
func (h *heir) holdStores(ctx context.Context) error {
	in := h.in
	s := in.surroundings()
	for _, conf := range in.file.Tunnels {
		t, infof := newLiveTunnel(s, in.file, conf)
		if err := t.openRole(s); err != nil {
			return fmt.Errorf("tunnel %s: %w", conf.Name, err)
		}
		h.tunnels = append(h.tunnels, &heirTunnel{liveTunnel: t, infof: infof})
	}
	if h.begin.Journal {
		return in.openNetwork(ctx)
	}
	return nil
}

// takeEstate takes what the other process has sent.
func (h *heir) takeEstate() (*estate, []*os.File, error) {
	m, files, err := h.next(stageEstate)
	if err != nil {
		return nil, nil, err
	}
	if len(files) != 1 {
		succession.CloseAll(files)
		return nil, nil, fmt.Errorf("the process before has sent %d descriptors", len(files))
	}
	b, err := succession.Unseal(files[0], maxEstate)
	if err != nil {
		return nil, nil, err
	}
	defer clear(b)
	var rest []*os.File
	for len(rest) < m.Files {
		_, more, err := h.next(stageFiles)
		rest = append(rest, more...)
		if err == nil && len(more) == 0 {
			err = errors.New("descriptors are missing")
		}
		if err != nil {
			succession.CloseAll(rest)
			return nil, nil, err
		}
	}
	e, err := decodeEstate(b)
	if err != nil {
		succession.CloseAll(rest)
		return nil, nil, err
	}
	return e, rest, nil
}

// make makes everything of what was handed over, but runs nothing. The descriptors are taken, also on an error, after which the process ends.
func (h *heir) make(ctx context.Context, e *estate, files []*os.File) error {
	in := h.in
	next := func(n int) ([]*os.File, error) {
		if n < 0 || n > len(files) {
			return nil, fmt.Errorf("%d descriptors are missing", n-len(files))
		}
		part := files[:n]
		files = files[n:]
		return part, nil
	}
	in.d.reloads.state = e.Reloads
	if len(e.Monitor) > 0 {
		in.monitor = monitor.New(in, in.d.log)
	}
	for _, at := range e.Monitor {
		f, err := next(1)
		if err != nil {
			return err
		}
		if err := in.monitor.Inherit(at, f[0]); err != nil {
			return err
		}
	}
	if len(e.Tunnels) != len(h.tunnels) {
		return fmt.Errorf("the file has %d tunnels now, and %d run: it was changed just now; try again", len(h.tunnels), len(e.Tunnels))
	}
	in.usage = openUsage(in.d.p.usagePath(in.file.Instance), func(format string, args ...any) { in.d.log.Warn(fmt.Sprintf(format, args...)) })
	s := in.surroundings()
	for i := range e.Tunnels {
		var t *heirTunnel
		for _, of := range h.tunnels {
			if of.conf.Name == e.Tunnels[i].Name {
				t = of
			}
		}
		if t == nil || t.estate != nil || t.netns != e.Tunnels[i].Netns {
			return fmt.Errorf("tunnel %s is no longer as it was: the file was changed just now; try again", e.Tunnels[i].Name)
		}
		t.estate, t.usage = &e.Tunnels[i], in.usage
		if err := t.make(ctx, s, next); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.conf.Name, err)
		}
	}
	if len(files) > 0 {
		return fmt.Errorf("%d descriptors too many", len(files))
	}
	return nil
}

// run has everything go on. From here on the other process does not, unless this one ends.
func (h *heir) run(ctx context.Context) error {
	in := h.in
	for _, t := range h.tunnels {
		if err := t.engine.Configure(t.change); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.conf.Name, err)
		}
	}
	for _, t := range h.tunnels {
		if err := t.goOn(ctx, in.d.p.wgDir); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.conf.Name, err)
		}
		in.mu.Lock()
		in.tunnels = append(in.tunnels, t.liveTunnel)
		in.mu.Unlock()
		go in.watch(t.liveTunnel)
	}
	in.started = true
	return nil
}

// settle does what needs not be done at once, and whose failure is no reason to go back: everything runs.
func (h *heir) settle(ctx context.Context) {
	in := h.in
	in.openHooks() // now, so that what goes on has not happened
	complain := func(what string, err error) {
		if err != nil {
			in.d.log.Error(what, "error", err)
		}
	}
	for _, t := range h.tunnels {
		t.ports.close()
		complain("addresses and routes of "+t.conf.Name, t.setLink(ctx, &t.whole.Tunnel))
		complain("endpoints of "+t.conf.Name, t.startResolver(t.infof))
		t.startRole()
		t.undoHooks("PreDown", func() []config.Hook { return t.conf.Hooks.PreDown })
	}
	in.usageDone = make(chan struct{})
	go in.keepUsage(in.usageDone)
	if in.monitor != nil {
		in.monitor.Start(in.file.Monitor, func(text string) { in.d.log.Warn(text) })
	} else {
		in.startMonitor()
	}
	if in.net != nil {
		remarks, err := in.reloadNetwork(ctx, in.file)
		for _, r := range remarks {
			in.d.log.Info(r)
		}
		complain("the network around the tunnels", err)
	}
	in.isReady.Store(true)
	h.tunnels = nil
}
