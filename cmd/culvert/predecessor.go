package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"culvert/control"
	"culvert/succession"
	"culvert/tunnel"
)

// This file is the old daemon's part of an upgrade; successor.go has the new one's, upgradestages.go what they say, upgradetry.go what comes before.
//
//	old                                        new
//	tries the program                          says what it can read, checks the file
//	reads its file again
//	starts it; begin (lock, control socket) ->
//	                                        <- here: has read the file
//	lets its files go (clients, journal)
//	stores                                  ->
//	                                        <- holds: has them
//	stops its tunnels
//	estate (sealed memory, descriptors)     ->
//	                                        <- ready: all is made, nothing runs
//	go                                      ->
//	                                        <- runs
//	ends, and takes nothing away
//
// Up to "go" the old one resumes as if nothing had been. After it the new one may have sent under the sessions' keys: then the old one, once
// the other is dead for certain, makes new sessions. Where the old one dies before "ready" the new one ends, and afterwards it goes on.

// errHandedOver ends a daemon whose work another process goes on with.
var errHandedOver = errors.New("another process goes on")

// Upgrade implements [control.Upgrader].
func (d *daemon) Upgrade(ctx context.Context, r control.UpgradeRequest) (*control.Upgraded, error) {
	done, err := d.upgrade(ctx, r)
	if err != nil {
		var text strings.Builder
		report(&text, err)
		return nil, &control.Error{Text: strings.TrimPrefix(strings.TrimSuffix(text.String(), "\n"), "culvert: "), Code: exitCode(err)}
	}
	return done, nil
}

func (d *daemon) upgrade(ctx context.Context, r control.UpgradeRequest) (*control.Upgraded, error) {
	in, ok := d.body.(*instance)
	switch {
	case d.kind == kindTrial:
		return nil, hint(fmt.Errorf("%s is a change that waits to be confirmed: there is nothing to upgrade", d.name),
			"culvert confirm %[1]s keeps it, culvert down %[1]s undoes it", d.name)
	case !ok:
		return nil, hint(fmt.Errorf("%s is an interface for wg, which cannot be upgraded while it runs", d.name), "culvert down %s, and start it anew", d.name)
	case d.notify.socket == "" && !d.detached():
		return nil, hint(fmt.Errorf("%s runs in the foreground of something that takes its end for the end of the instance, and would not know of a new process", d.name),
			"end it and start it anew; or run it by systemd, or in the background with culvert up without --foreground")
	}
	if err := d.lockOps(ctx); err != nil {
		return nil, err
	}
	defer d.ops.Unlock()
	if err := d.over(); err != nil {
		return nil, err
	}
	if !d.up {
		return nil, errors.New("the daemon is not up: it is starting, or ending")
	}
	u := &upgrading{d: d, in: in, program: r.Program}
	if u.program == "" {
		u.program = d.program
	}
	done, err := u.run(ctx)
	if err != nil {
		d.log.Error("cannot upgrade", "program", u.program, "error", err)
		return nil, err
	}
	d.up, d.successor = false, done.PID
	d.log.Info("another process goes on", "pid", done.PID, "version", done.To)
	d.stop(errHandedOver)
	return done, nil
}

// lockOps waits for what is under way, for a while.
func (d *daemon) lockOps(ctx context.Context) error {
	for end := time.Now().Add(5 * time.Second); !d.ops.TryLock(); {
		if ctx.Err() != nil || time.Now().After(end) {
			return hint(errors.New("the instance is being changed at the moment: it is reloaded, or clients are"), "try again when that has ended")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// upgrading is one upgrade.
type upgrading struct {
	d       *daemon
	in      *instance
	program string
	can     ability

	conn   *succession.Conn
	cmd    *exec.Cmd
	ended  chan struct{} // the process has
	locked []*liveTunnel // whose configuration is held
	went   bool          // the other was told to go on: it may have sent something

	journal, clients bool          // were let go of
	patience         time.Duration // with a new process that packets wait for
	lasted           time.Duration // how long they have waited, where this process goes on

	suspended []*liveTunnel
	files     []*os.File
	paused    time.Time
}

func (u *upgrading) run(ctx context.Context) (_ *control.Upgraded, err error) {
	if err := u.possible(); err != nil {
		return nil, err
	}
	if err := u.try(ctx); err != nil {
		return nil, err
	}
	d := u.d
	remarks, err := d.readAgain(ctx)
	for _, r := range remarks {
		d.log.Info(r)
	}
	if err != nil {
		return nil, fmt.Errorf("an upgrade begins as a reload, which is refused: %w", err)
	}
	d.notify.tell("STATUS=another program is about to go on")
	defer func() {
		succession.CloseAll(u.files)
		if err != nil {
			back := u.takeBack()
			err = errors.Join(u.explain(err), back)
			d.notify.tell("STATUS=" + d.notify.text())
		}
	}()
	if err := u.start(); err != nil {
		return nil, err
	}
	if err := u.handOver(); err != nil {
		return nil, err
	}
	u.conn.Close()
	done := &control.Upgraded{From: version(), To: u.can.Program, PID: u.cmd.Process.Pid, Pause: time.Since(u.paused).Seconds()}
	u.leave()
	return done, nil
}

// environment is the new process's: the one that this was started with.
func (u *upgrading) environment() []string {
	p := u.d.p
	return append(os.Environ(), runDirEnv+"="+p.runDir, wgDirEnv+"="+p.wgDir, stateDirEnv+"="+p.stateDir)
}

// start starts the new process.
func (u *upgrading) start() error {
	conn, other, err := succession.Pair()
	if err != nil {
		return hintDescriptors(err)
	}
	defer other.Close()
	d := u.d
	cmd := exec.Command(u.program, succeedCommand, d.file)
	cmd.Args[0] = d.p.name
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{other}
	cmd.Env = append(u.environment(), succeedEnv+"=3")
	if d.notify.socket != "" {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+d.notify.socket)
		if d.notify.watchdog > 0 {
			cmd.Env = append(cmd.Env, fmt.Sprintf("WATCHDOG_USEC=%d", d.notify.watchdog.Microseconds()))
		}
	}
	if f, ok := d.p.stdout.(*os.File); ok {
		cmd.Stdout = f
	}
	if f, ok := d.p.stderr.(*os.File); ok {
		cmd.Stderr = f
	}
	// With the nice value that this process was started with: what the new one starts is to have it.
	begin := cmd.Start
	if p := &d.p.priority; p.own != p.started {
		begin = func() error { return p.start(cmd) }
	}
	if err := begin(); err != nil {
		conn.Close()
		return hintDescriptors(fmt.Errorf("%s cannot be started: %w", u.program, err))
	}
	u.conn, u.cmd, u.ended = conn, cmd, make(chan struct{})
	go func() {
		defer close(u.ended)
		cmd.Wait()
	}()
	return nil
}

// handOver goes through the stages.
func (u *upgrading) handOver() (err error) {
	d, in := u.d, u.in
	d.listener.Pause(true)
	lock, socket, err := d.listener.Files()
	if err != nil {
		return err
	}
	b := &beginning{Instance: d.name, Detached: d.detached(), Level: int(d.level.Level()), StartLevel: int(d.startLevel), Started: d.started,
		From: version(), PID: os.Getpid(), Stores: in.clients.file != nil, Journal: in.net != nil}
	d.mu.Lock()
	if d.confined != nil {
		b.Refused = d.confined.refused
	}
	d.mu.Unlock()
	err = u.conn.Send(successionMessage{Stage: stageBegin, Begin: b}, lock, socket)
	succession.CloseAll([]*os.File{lock, socket})
	if err != nil {
		return err
	}
	if err := u.await(stageHere); err != nil {
		return err
	}
	if err := u.letGo(); err != nil {
		return err
	}
	if err := u.say(stageStores); err != nil {
		return err
	}
	if err := u.await(stageHolds); err != nil {
		return err
	}
	if err := u.sendEstate(); err != nil {
		return err
	}
	if err := u.await(stageReady); err != nil {
		return err
	}
	u.went = true
	if err := u.say(stageGo); err != nil {
		return err
	}
	if err := u.await(stageRuns); err != nil {
		return err
	}
	// Only now, as the service manager hears nothing of this process any more. The new one tells it that it is ready when this one has closed
	// its end.
	d.notify.tell(fmt.Sprintf("MAINPID=%d", u.cmd.Process.Pid))
	return nil
}

// letGo lets go of the files that only one process can have open. What clients and servers ask for waits from here on.
func (u *upgrading) letGo() error {
	in := u.in
	for _, t := range in.live() {
		t.role.changing.Lock()
		u.locked = append(u.locked, t)
	}
	if in.net != nil {
		in.watched.stop()
		in.net.mu.Lock()
		defer in.net.mu.Unlock()
		u.journal = true
		if err := in.net.journal.Close(); err != nil {
			return fmt.Errorf("the journal: %w", err)
		}
	}
	if in.clients.file != nil {
		u.clients = true
		if err := in.clients.file.Release(); err != nil {
			return fmt.Errorf("what is known of the clients: %w", err)
		}
	}
	return nil
}

// sendEstate stops the tunnels, and sends all that they have.
func (u *upgrading) sendEstate() error {
	in := u.in
	peers := 0
	for _, t := range in.live() {
		peers += len(t.engine.Status().Peers)
	}
	u.patience = pausePatience + time.Duration(peers)*peerPatience
	u.paused = time.Now()
	var states []*tunnel.State
	defer func() {
		for _, s := range states {
			s.Erase()
		}
	}()
	for _, t := range in.live() {
		s, err := t.engine.(suspendable).Suspend()
		if err != nil {
			return fmt.Errorf("tunnel %s: %w", t.hooks.ifname, err)
		}
		states, u.suspended = append(states, s), append(u.suspended, t)
	}
	in.saveUsage()
	e := &estate{Reloads: u.d.reloads.get(u.d.started)}
	defer e.erase()
	if in.monitor != nil {
		places, err := in.monitor.Files()
		if err != nil {
			return err
		}
		for at, f := range places {
			e.Monitor, u.files = append(e.Monitor, at), append(u.files, f)
		}
	}
	for i, t := range u.suspended {
		one, files, err := t.estate(states[i])
		u.files = append(u.files, files...)
		e.Tunnels = append(e.Tunnels, one)
		if err != nil {
			return hintDescriptors(fmt.Errorf("tunnel %s: %w", t.hooks.ifname, err))
		}
	}
	b, err := e.encode()
	if err != nil {
		return err
	}
	sealed, err := succession.Seal(b)
	clear(b)
	if err != nil {
		return err
	}
	u.files = append(u.files, sealed)
	rest := u.files[:len(u.files)-1]
	if err := u.conn.Send(successionMessage{Stage: stageEstate, Files: len(rest)}, sealed); err != nil {
		return err
	}
	for part := range slices.Chunk(rest, succession.MaxFiles) {
		if err := u.conn.Send(successionMessage{Stage: stageFiles}, part...); err != nil {
			return err
		}
	}
	return nil
}

func (u *upgrading) say(stage string) error { return u.conn.Send(successionMessage{Stage: stage}) }

// await waits for the new process to have come to a stage: not for long while packets wait, too.
func (u *upgrading) await(stage string) error {
	var m successionMessage
	patience := upgradePatience
	if !u.paused.IsZero() {
		patience = u.patience
	}
	files, err := u.conn.Receive(&m, time.Now().Add(patience))
	succession.CloseAll(files)
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the new process has ended before it was at %q", stage)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the new process was not at %q within %v", stage, patience)
	case err != nil:
		return err
	case m.Stage == stageFailed:
		return &control.Error{Text: m.Error, Code: max(m.Code, 1)}
	case m.Stage != stage:
		return fmt.Errorf("the new process says %.20q where %q was expected", m.Stage, stage)
	}
	return nil
}

// explain adds what a failure means.
func (u *upgrading) explain(err error) error {
	what := "the old process goes on"
	switch {
	case u.went:
		what += ", with new sessions"
	case u.lasted < time.Second:
		what += ", and nothing was lost"
	}
	if u.lasted >= time.Second {
		what += fmt.Sprintf("; packets have waited for %v, and more than the queues hold were lost", u.lasted.Round(100*time.Millisecond))
	}
	if e, ok := errors.AsType[*control.Error](err); ok {
		return &control.Error{Text: fmt.Sprintf("the new process cannot go on (%s): %s", what, e.Text), Code: e.Code}
	}
	return fmt.Errorf("%w (%s)", err, what)
}

// takeBack has this process go on. First the other is ended, for certain: two that use the same keys would give them away.
func (u *upgrading) takeBack() error {
	if u.cmd != nil {
		u.cmd.Process.Kill()
		<-u.ended
		u.conn.Close()
	}
	d, in := u.d, u.in
	var errs []error
	for _, t := range u.suspended {
		e := t.engine.(suspendable)
		resume := e.Resume
		if u.went {
			resume = e.Restart
		}
		if err := resume(); err != nil {
			errs = append(errs, fmt.Errorf("tunnel %s cannot go on: %w", t.hooks.ifname, err))
		}
	}
	if !u.paused.IsZero() {
		u.lasted = time.Since(u.paused)
	}
	if u.clients {
		errs = append(errs, in.clients.file.Retake())
	}
	if u.journal {
		in.net = nil
		if err := in.openNetwork(context.WithoutCancel(in.ctx)); err != nil {
			errs = append(errs, fmt.Errorf("the network around the tunnels: %w", err))
		} else {
			in.watchNetwork()
		}
	}
	for _, t := range u.locked {
		t.role.changing.Unlock()
	}
	d.listener.Pause(false)
	err := errors.Join(errs...)
	if err != nil {
		in.fail(err)
	}
	return err
}

// leave ends what this process has, and takes nothing away: it is the other's.
func (u *upgrading) leave() {
	in := u.in
	in.ending = true
	in.isReady.Store(false)
	if in.monitor != nil {
		in.monitor.Leave()
	}
	if in.usageDone != nil {
		close(in.usageDone)
		in.usageDone = nil
	}
	for _, t := range in.live() {
		if f, err := t.wg.listener.Handover(); err == nil {
			f.Close()
		}
		t.engine.Close() // who is connected by TCP calls again, and finds the other
	}
	u.cmd.Process.Release()
}
