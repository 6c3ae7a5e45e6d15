package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"culvert/cmd/culvert/events"
	"culvert/cmd/culvert/journal"
	"culvert/control"
)

// daemon is one running instance: what is common to "up" and "wg". Its life is listen, start, wait, tear down, in serve;
// the work itself is in body.
type daemon struct {
	p      *program
	name   string
	kind   string // "up" or "wg"
	file   string // configuration file, absolute; "" for wg
	nice   *int   // as the file has it
	log    *slog.Logger
	level  slog.LevelVar // of log
	recent recentLog

	startLevel slog.Level

	out     io.Writer // where hooks write
	started time.Time
	up      bool // everything is up, and not yet being taken away; guarded by ops
	ready   readyPipe
	notify  *notifier
	body    body
	events  *events.Hub

	reloads reloadLog

	mu       sync.Mutex // guards confined, for status
	confined *confinement
	refused  string // system calls that were refused from the start on, as confine.Calls names them

	program   string // that it was started from
	listener  *control.Listener
	heir      *heir // where it goes on for another process
	successor int   // the process that goes on; 0: none. Guarded by ops

	ops      sync.Mutex // held by start, reload and teardown: one at a time
	stop     context.CancelCauseFunc
	tornDown chan struct{} // closed once everything is gone
	downErr  error         // what could not be undone; read after tornDown
}

// body is what an instance runs.
type body interface {
	// start brings everything up, or leaves nothing behind. fail is for later: it ends the daemon.
	start(ctx context.Context, fail func(error)) error
	status() []control.Tunnel
	engines() []namedEngine
	capturable() []capturable
	reload(ctx context.Context) (remarks []string, err error)
	teardown() error
}

// Reasons for a daemon to end that are no failures.
var (
	errStopRequested = errors.New("asked to stop")
	errSignal        = errors.New("interrupted by a signal")
)

// serve runs the daemon to its end. Its error is why it could not start, why it ended by itself, or what it could not take
// away.
func (d *daemon) serve(level slog.Level) error {
	if d.started.IsZero() {
		d.started = time.Now()
	}
	d.program = startedFrom(os.Args[0])
	d.tornDown = make(chan struct{})
	d.notify = takeNotifier()
	d.notify.tell("STATUS=starting")
	defer d.watched()()
	l, err := d.listen()
	if errors.Is(err, control.ErrRunning) {
		return hint(fmt.Errorf("%s is already running", d.name),
			"culvert status %[1]s shows it, culvert reload %[1]s applies a changed file, culvert down %[1]s ends it", d.name)
	}
	if err != nil {
		return hintDescriptors(permissionHint(err))
	}
	defer func() {
		if d.heir != nil && !d.heir.runs { // name, socket and lock are the other process's
			l.Leave()
		}
		l.Close()
	}()
	d.listener = l
	l.Program = version()
	d.openEvents()
	defer d.closeEvents()
	if err := d.openLog(level); err != nil {
		return err
	}

	if err := d.p.priority.raise(d.nice); err != nil {
		return fmt.Errorf("nice: %w", err)
	}

	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	d.stop = stop
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	go d.heed(ctx, signals)

	var serving sync.WaitGroup
	serve := func() { serving.Go(func() { l.Serve(d) }) }
	if d.heir == nil {
		serve()
	}

	cause := d.run(ctx, serve)

	if left, err := d.left(cause); left {
		d.events.Close()
		err = errors.Join(err, l.Leave())
		serving.Wait()
		l.Wait(5 * time.Second)
		return err
	}
	d.log.Info("ending", "because", cause)
	d.notify.tell("STOPPING=1", "STATUS=taking everything away")
	d.ops.Lock()
	d.up = false
	d.events.Publish(control.Event{Event: control.EventInstanceEnding, Why: cause.Error()})
	d.downErr = d.body.teardown()
	d.events.Look() // tells of tunnels that are gone
	d.events.Close()
	d.downErr = errors.Join(d.downErr, l.Close())
	close(d.tornDown) // under the lock: no reload begins afterwards
	d.ops.Unlock()
	serving.Wait()
	l.Wait(5 * time.Second)
	if d.ended(cause) {
		cause = nil
	}
	if d.downErr != nil {
		d.log.Error("not everything could be taken away", "error", d.downErr)
	} else if cause == nil && d.detached() {
		os.Remove(logPath(d.p.runDir, d.name))
	}
	return errors.Join(cause, d.downErr)
}

// run starts the body and returns why the daemon is to end.
func (d *daemon) run(ctx context.Context, serve func()) error {
	if d.heir != nil {
		if err := d.heir.start(ctx, d); err != nil {
			d.heir.fail(err) // and this process ends here: all is still the other's
		}
		serve()
	} else if err := d.start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (d *daemon) start(ctx context.Context) error {
	d.ops.Lock() // until whoever waits knows: a reload says something of its own
	defer d.ops.Unlock()
	if err := d.body.start(ctx, func(err error) { d.stop(err) }); err != nil {
		if ctx.Err() != nil && d.ended(context.Cause(ctx)) {
			return fmt.Errorf("ended before it was up: %w", context.Cause(ctx))
		}
		return hintDescriptors(err)
	}
	debug.FreeOSMemory()
	d.confine()
	if err := d.ready.ready(); err != nil {
		return fmt.Errorf("whoever started the daemon is gone: %w", err)
	}
	d.events.Look()
	d.events.Publish(control.Event{Event: control.EventInstanceUp})
	d.log.Info("up", "pid", os.Getpid(), "version", version())
	d.up = true
	d.tellReady()
	return nil
}

// tellReady tells the service manager.
func (d *daemon) tellReady() {
	d.notify.now(d.summary())
	if err := d.notify.send("READY=1", "STATUS="+d.notify.text()); err != nil {
		d.log.Warn(err.Error())
	}
}

// listen takes the instance's name.
func (d *daemon) listen() (*control.Listener, error) {
	if d.heir != nil {
		return d.heir.listen(d)
	}
	return control.Listen(d.p.runDir, d.name)
}

// detached reports whether the daemon is in the background, with a log file of its own.
func (d *daemon) detached() bool { return d.ready.detached() || d.heir != nil && d.heir.begin.Detached }

// left reports whether another process has gone on, so that there is nothing to take away here. What was to end this one is to end that.
func (d *daemon) left(cause error) (bool, error) {
	d.ops.Lock()
	defer d.ops.Unlock()
	if d.successor == 0 {
		return false, nil
	}
	close(d.tornDown)
	if errors.Is(cause, errHandedOver) {
		return true, nil
	}
	return true, syscall.Kill(d.successor, syscall.SIGTERM)
}

func (d *daemon) ended(cause error) bool {
	return errors.Is(cause, errStopRequested) || errors.Is(cause, errSignal) || errors.Is(cause, errConfirmed)
}

// heed acts on signals until ctx ends. A reload, which may wait for hooks, keeps it from nothing: that it is to end also ends that.
func (d *daemon) heed(ctx context.Context, signals <-chan os.Signal) {
	reload := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-reload:
				d.reloadBySignal(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGUSR1:
				d.setLevel(slog.LevelDebug)
			case syscall.SIGUSR2:
				d.setLevel(d.startLevel)
			case syscall.SIGHUP:
				select {
				case reload <- struct{}{}:
				default: // one that is still to begin reads the same file
				}
			default:
				d.stop(errSignal)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (d *daemon) reloadBySignal(ctx context.Context) {
	remarks, err := d.Reload(ctx)
	if e, ok := errors.AsType[*control.Error](err); ok && e.Reason == control.ReasonMoved {
		// A signal that was meant for whoever runs the instance.
		err = syscall.Kill(d.successor, syscall.SIGHUP)
	}
	for _, r := range remarks {
		d.log.Info(r)
	}
	if err != nil {
		d.log.Error("cannot reload", "error", err)
	}
}

// openLog directs the log to a file where the daemon is in the background, and to the journal where that is what its stderr is. What else
// goes there is kept for those who ask.
func (d *daemon) openLog(level slog.Level) error {
	d.level.Set(level)
	d.startLevel = level
	d.out = d.p.stderr
	if d.detached() && d.kind != "wg" {
		f, err := openLogFile(d.p.runDir, d.name, d.heir != nil)
		if err != nil {
			return err
		}
		d.out = f.f
		d.log = d.alsoKept(slog.NewTextHandler(f, &slog.HandlerOptions{Level: &d.level}))
		return nil
	}
	if d.p.stderr == os.Stderr && journal.Available() {
		d.log = d.alsoKept(journal.NewHandler(d.name, &d.level))
		return nil
	}
	d.log = d.alsoKept(slog.NewTextHandler(d.p.stderr, &slog.HandlerOptions{Level: &d.level}))
	return nil
}

func (d *daemon) alsoKept(h slog.Handler) *slog.Logger {
	return slog.New(slog.NewMultiHandler(h, slog.NewTextHandler(&d.recent, &slog.HandlerOptions{Level: &d.level})))
}

// Status implements [control.Service].
func (d *daemon) Status() control.Instance {
	in := control.Instance{
		Name: d.name, Kind: d.kind, PID: os.Getpid(), Version: version(), Started: d.started.UTC().Truncate(time.Second),
		Goroutines: runtime.NumGoroutine(), File: d.file, Tunnels: d.body.status(),
	}
	d.mu.Lock()
	in.Confinement = d.confined.status()
	d.mu.Unlock()
	if b, ok := d.body.(interface{ network() *control.Network }); ok {
		in.Network = b.network()
	}
	return in
}

// Confirm implements [control.Confirmer].
func (d *daemon) Confirm() error {
	if b, ok := d.body.(interface{ confirm() error }); ok {
		return b.confirm()
	}
	return errors.New("no change waits to be confirmed")
}

// operate takes the lock for something that is asked for. Where nothing can be done any more it does not, and says why.
func (d *daemon) operate() error {
	d.ops.Lock()
	err := d.over()
	if err != nil {
		d.ops.Unlock()
	}
	return err
}

// over says why nothing can be done any more; nil. The lock is held.
func (d *daemon) over() error {
	if d.successor != 0 {
		return &control.Error{Text: fmt.Sprintf("another process has just gone on with the instance, process %d: ask it", d.successor), Code: exitFailure,
			Reason: control.ReasonMoved}
	}
	select {
	case <-d.tornDown:
		return errors.New("the daemon is ending")
	default:
		return nil
	}
}

// Reload implements [control.Service].
func (d *daemon) Reload(ctx context.Context) ([]string, error) {
	if err := d.operate(); err != nil {
		return nil, err
	}
	defer d.ops.Unlock()
	return d.readAgain(ctx)
}

// readAgain is Reload where nothing else changes the instance.
func (d *daemon) readAgain(ctx context.Context) ([]string, error) {
	d.notify.tell("RELOADING=1", monotonic(), "STATUS=reloading")
	began := time.Now()
	remarks, err := d.body.reload(ctx)
	d.reloads.note(began, time.Now(), err)
	debug.FreeOSMemory()
	d.events.Look()
	d.notify.noteReload(err)
	d.notify.now(d.summary())
	d.notify.tell("READY=1", "STATUS="+d.notify.text())
	if err != nil {
		d.events.Publish(control.Event{Event: control.EventReloadFailed, Why: err.Error()})
		err = &control.Error{Text: err.Error(), Code: exitCode(err)}
	} else {
		d.events.Publish(control.Event{Event: control.EventInstanceReloaded})
	}
	return remarks, err
}

// Preview implements [control.Previewer].
func (d *daemon) Preview(ctx context.Context) (*control.ReloadPlan, error) {
	b, ok := d.body.(interface {
		preview(ctx context.Context) (*control.ReloadPlan, error)
	})
	if !ok {
		return nil, errors.New("this daemon has no file to read again")
	}
	if err := d.operate(); err != nil {
		return nil, err
	}
	defer d.ops.Unlock()
	made, err := b.preview(ctx)
	debug.FreeOSMemory()
	if err != nil {
		err = &control.Error{Text: err.Error(), Code: exitCode(err)}
	}
	return made, err
}

// Down implements [control.Service].
func (d *daemon) Down(ctx context.Context) error {
	d.stop(errStopRequested)
	select {
	case <-d.tornDown:
		return d.downErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hintDescriptors names the remedy where a process has run out of file descriptors.
func hintDescriptors(err error) error {
	if errors.Is(err, syscall.EMFILE) {
		if _, ok := errors.AsType[*hintedError](err); !ok {
			return hint(err, "raise the limit of open files (ulimit -n)")
		}
	}
	return err
}
