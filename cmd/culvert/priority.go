package main

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

// defaultNice is the nice value of a daemon that was started with none of its own. Packets wait for the processor behind the programs that
// send and read them: on a busy machine that is most of their round trip, and what a daemon drops for want of time was
// received for nothing (docs/performance.md has the figures).
const defaultNice = -10

// priority is the nice value of this process, and the one it was started with, which its children get.
type priority struct{ own, started int }

// raise gives the process the nice value a file asks for, or the default. One that cannot be had is an error where it was asked for; by
// default a daemon does without.
func (p *priority) raise(asked *int) error {
	var err error
	if p.started, err = niceOf(0); err != nil {
		return err
	}
	p.own = p.started
	nice := defaultNice
	switch {
	case asked != nil:
		nice = *asked
	case p.started != 0: // by whoever started it, on purpose
		return nil
	}
	if err := setNice(nice); err != nil {
		if asked == nil {
			return nil
		}
		return permissionHint(err)
	}
	p.own = nice
	return nil
}

// run runs a command that is not to have the daemon's own priority.
func (p *priority) run(cmd *exec.Cmd) error {
	if p == nil || p.own == p.started {
		return cmd.Run()
	}
	if err := p.start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// start starts a command from a thread that has the other priority meanwhile, so that the child begins with it.
func (p *priority) start(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, p.started); err != nil {
		return os.NewSyscallError("setpriority", err)
	}
	defer func() { _ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, p.own) }()
	return cmd.Start()
}

// niceEnv tells the supervisor of services, which the daemon starts, the nice value that services are to have.
const niceEnv = "CULVERT_SERVICES_NICE"

// env is what the supervisor is told.
func (p *priority) env() []string {
	if p.own == p.started {
		return nil
	}
	return []string{niceEnv + "=" + strconv.Itoa(p.started)}
}

// obeyNiceEnv gives the process the nice value that whoever started it tells.
func obeyNiceEnv() error {
	text := os.Getenv(niceEnv)
	if text == "" {
		return nil
	}
	os.Unsetenv(niceEnv)
	nice, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	return setNice(nice)
}
