package service

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// process is a program that runs, started by this process or found.
type process interface {
	pid() int
	started() uint64 // its start time as the kernel has it, which with the number tells it from all others
	// ended is closed when the program has ended; how, if known, is then in verdict.
	ended() <-chan struct{}
	verdict() string
	terminate() error
	kill() error
}

// runner keeps one service alive.
type runner struct {
	launch func() (process, error)
	ready  func(process) bool // polled while the service starts
	sweep  func() error       // ends what is left of a program that has ended: its children
	now    func() time.Duration
	logf   func(format string, args ...any)

	stopping chan struct{}
	stopOnce sync.Once
	done     chan struct{} // closed when it is stopped
	settled  chan struct{} // closed when the first start has worked, or has not: see firstErr

	mu       sync.Mutex // guards what follows
	course   course
	current  process
	lastEnd  string
	firstErr error
	isSet    bool
}

// prepare makes a runner of whose fields the functions are set.
func (r *runner) prepare() *runner {
	r.stopping, r.done, r.settled = make(chan struct{}), make(chan struct{}), make(chan struct{})
	r.course = newCourse(r.now())
	return r
}

// readyPoll is how often a starting service is asked.
const readyPoll = 10 * time.Millisecond

// run keeps the service alive until stop; found, where not nil, is a program of it that runs already.
func (r *runner) run(found process) {
	defer close(r.done)
	if found != nil {
		r.mu.Lock()
		r.current = found
		r.course.adopted(r.now())
		r.mu.Unlock()
		r.settle(nil)
	}
	stopping := r.stopping
	for {
		r.act()
		wait, phase := r.wait()
		if phase == Stopped {
			r.settle(errors.New("stopped before it was up"))
			if err := r.sweep(); err != nil {
				r.logf("%v", err)
			}
			return
		}
		timer := time.NewTimer(wait)
		var ended <-chan struct{}
		if p := r.program(); p != nil {
			ended = p.ended()
		}
		select {
		case <-ended:
			r.exited()
		case <-stopping:
			stopping = nil
			r.stop()
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (r *runner) program() process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// act does what is due. Only run's goroutine gets here.
func (r *runner) act() {
	r.mu.Lock()
	due := r.course.tick(r.now())
	phase, current := r.course.phase, r.current
	r.mu.Unlock()
	switch {
	case due == start:
		r.start()
	case due == kill:
		why := "does not end"
		if phase == Starting {
			why = fmt.Sprintf("is not ready after %v", readyLimit)
			r.note(why)
		}
		r.logf("%s: killed", why)
		if err := current.kill(); err != nil {
			r.logf("%v", err)
		}
	case phase == Starting && r.ready(current):
		r.mu.Lock()
		r.course.ready(r.now())
		restarts := r.course.restarts
		r.mu.Unlock()
		r.logf("is up (process %d, %d restarts)", current.pid(), restarts)
		r.settle(nil)
	}
}

func (r *runner) start() {
	err := r.sweep()
	var p process
	if err == nil {
		p, err = r.launch()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.lastEnd = err.Error()
		r.course.exited(r.now())
		r.logf("cannot be started: %v; tried again in %v", err, r.course.backoff)
		r.settleLocked(err)
		return
	}
	r.current = p
	r.course.started(r.now())
}

func (r *runner) note(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastEnd = why
}

func (r *runner) exited() {
	r.mu.Lock()
	defer r.mu.Unlock()
	how := r.current.verdict()
	if r.course.phase == Starting && r.course.killed {
		how = r.lastEnd
	}
	r.current = nil
	wasStopping := r.course.phase == Stopping
	r.course.exited(r.now())
	if wasStopping {
		return
	}
	r.lastEnd = how
	r.logf("has ended: %s; started again in %v", how, r.course.backoff)
	r.settleLocked(fmt.Errorf("it has ended: %s", how))
}

func (r *runner) stop() {
	r.mu.Lock()
	due := r.course.stop(r.now())
	current := r.current
	r.mu.Unlock()
	if due == terminate {
		if err := current.terminate(); err != nil {
			r.logf("%v", err)
		}
	}
}

// wait returns how long nothing is due.
func (r *runner) wait() (time.Duration, Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const idle = time.Hour
	d := idle
	if at, ok := r.course.next(); ok {
		d = max(0, at-r.now())
	}
	if r.course.phase == Starting {
		d = min(d, readyPoll)
	}
	return d, r.course.phase
}

func (r *runner) settle(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settleLocked(err)
}

func (r *runner) settleLocked(err error) {
	if !r.isSet {
		r.isSet, r.firstErr = true, err
		close(r.settled)
	}
}

// first waits for the first start and returns why it did not work.
func (r *runner) first() error {
	<-r.settled
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.firstErr
}

// end stops the service and waits until nothing of it runs.
func (r *runner) end() {
	r.stopOnce.Do(func() { close(r.stopping) })
	<-r.done
}

// fill adds what the runner knows.
func (r *runner) fill(s *Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Phase, s.Restarts, s.LastEnd = r.course.phase, r.course.restarts, r.lastEnd
	s.For = r.now() - r.course.since
	if s.PID, s.Started = 0, 0; r.current != nil {
		s.PID, s.Started = r.current.pid(), r.current.started()
	}
}
