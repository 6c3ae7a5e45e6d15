package service

import "time"

// Phase is where a service is in its course.
type Phase string

// The phases.
const (
	Waiting  Phase = "waiting"  // to be started, now or when its back-off ends
	Starting Phase = "starting" // runs, but does not do its work yet
	Running  Phase = "running"
	Stopping Phase = "stopping" // was sent SIGTERM
	Stopped  Phase = "stopped"
)

// The times of a service's course.
const (
	readyLimit = 15 * time.Second // from its start to its being ready
	stopLimit  = 5 * time.Second  // from SIGTERM to SIGKILL
	// The first restart comes after minBackoff, each further one after twice the time, at most maxBackoff. A service that ran for
	// stableAfter begins anew.
	minBackoff  = 100 * time.Millisecond
	maxBackoff  = 30 * time.Second
	stableAfter = time.Minute
)

// action is what is to be done with the program.
type action uint8

const (
	nothing action = iota
	start
	terminate // SIGTERM
	kill      // SIGKILL
)

// course is the state machine of one service. It does no I/O and reads no clock; times are since the supervisor's start.
//
//	phase              event                      next phase  action
//	Waiting            its time comes             (started)   start
//	Waiting            stop                       Stopped
//	                   started                    Starting
//	                   adopted                    Running
//	Starting           ready                      Running
//	Starting           readyLimit is over         Starting    kill, once
//	Starting, Running  exited                     Waiting     after the back-off
//	Starting, Running  stop                       Stopping    terminate
//	Stopping           stopLimit is over          Stopping    kill, once
//	Stopping           exited                     Stopped
type course struct {
	phase    Phase
	since    time.Duration // the phase's beginning
	due      time.Duration // when time itself is the next event
	began    time.Duration // of the program that runs or ran last
	backoff  time.Duration // the last one
	restarts int           // starts after the first
	starts   int
	killed   bool // in this phase
}

// newCourse is due to start at once.
func newCourse(now time.Duration) course {
	return course{phase: Waiting, since: now, due: now}
}

func (c *course) enter(p Phase, now time.Duration) {
	c.phase, c.since, c.killed = p, now, false
}

// next returns when tick has to be called; false where only an event helps.
func (c *course) next() (time.Duration, bool) {
	switch c.phase {
	case Waiting:
		return c.due, true
	case Starting, Stopping:
		return c.due, !c.killed
	}
	return 0, false
}

// tick says what is due.
func (c *course) tick(now time.Duration) action {
	at, ok := c.next()
	if !ok || now < at {
		return nothing
	}
	if c.phase == Waiting {
		return start
	}
	c.killed = true
	return kill
}

// started follows a start that worked.
func (c *course) started(now time.Duration) {
	if c.starts++; c.starts > 1 {
		c.restarts++
	}
	c.began, c.due = now, now+readyLimit
	c.enter(Starting, now)
}

// adopted follows the finding of a program that an earlier supervisor started.
func (c *course) adopted(now time.Duration) {
	c.starts++
	c.began = now
	c.enter(Running, now)
}

func (c *course) ready(now time.Duration) {
	if c.phase == Starting {
		c.enter(Running, now)
	}
}

// exited follows the program's end, and a start that did not work.
func (c *course) exited(now time.Duration) {
	switch c.phase {
	case Stopping:
		c.enter(Stopped, now)
		return
	case Stopped:
		return
	case Running:
		if now-c.began >= stableAfter {
			c.backoff = 0
		}
	}
	c.backoff = min(max(minBackoff, 2*c.backoff), maxBackoff)
	c.due = now + c.backoff
	c.enter(Waiting, now)
}

// stop ends the service for good.
func (c *course) stop(now time.Duration) action {
	switch c.phase {
	case Waiting:
		c.enter(Stopped, now)
	case Starting, Running:
		c.due = now + stopLimit
		c.enter(Stopping, now)
		return terminate
	}
	return nothing
}
