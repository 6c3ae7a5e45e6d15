package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"culvert/setup"
)

// Exit codes of shells for a command that cannot be run, that is not found, and what a signal's number is added to.
const (
	exitCannotRun = 126
	exitNotFound  = 127
	exitSignal    = 128
)

// cannotRun words why a command does not start, and ends as a shell would.
func (p *program) cannotRun(err error) error {
	code := exitCannotRun
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = exitNotFound
	}
	report(p.stderr, fmt.Errorf("cannot run the command: %w", err))
	return &shownError{code}
}

// runCommand runs a command on the port until it ends.
func (p *program) runCommand(path string, command []string, g *guestLink, signals *caughtSignals) error {
	if s := signals.first(); s != 0 {
		return &shownError{exitSignal + int(s)}
	}
	cmd := exec.Command(path, g.arguments(command[1:])...)
	cmd.Args[0] = command[0]
	cmd.Env = g.environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.stdin, p.stdout, p.stderr
	if f := g.port.File(); f != nil {
		cmd.ExtraFiles = []*os.File{f}
	}
	// Killed, this process cannot take the port away, and a machine must not go on with a port that the next "culvert vm" takes. The
	// kernel sends the signal when the thread that started the command ends.
	cmd.SysProcAttr = endsWithThread()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return p.cannotRun(err)
	}
	defer p.follow(g, nil)()
	defer signals.passTo(cmd.Process)()
	err := cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if err == nil || !ok {
		return err
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return &shownError{exitSignal + int(s.Signal())}
	}
	return &shownError{exit.ExitCode()}
}

// follow keeps the port like the tunnel's interface until the returned function is called. lost, where not nil, is called once
// that is over.
func (p *program) follow(g *guestLink, lost func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := g.port.Follow(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if lost != nil {
			lost(err)
			return
		}
		if errors.Is(err, setup.ErrPortGone) {
			err = hint(err, "the machine has no link until culvert vm is started again; with --tap it would get it back")
		}
		report(p.stderr, err)
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// caughtSignals are the signals that would end this process: they are the command's to act on.
type caughtSignals struct{ c chan os.Signal }

func catchSignals() *caughtSignals {
	s := &caughtSignals{make(chan os.Signal, 16)}
	signal.Notify(s.c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	return s
}

func (s *caughtSignals) stop() { signal.Stop(s.c) }

// first is a signal that has come already, or 0.
func (s *caughtSignals) first() syscall.Signal {
	select {
	case sig := <-s.c:
		return sig.(syscall.Signal)
	default:
		return 0
	}
}

// passTo passes signals on until the returned function is called.
func (s *caughtSignals) passTo(to *os.Process) (stop func()) {
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case sig := <-s.c:
				if (sig == syscall.SIGINT || sig == syscall.SIGQUIT) && inForeground() {
					continue // the terminal has sent it to the command as well
				}
				_ = to.Signal(sig) // it may have ended meanwhile
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		running.Wait()
	}
}

// inForeground reports whether the terminal's keys send signals to this process's group (tcgetpgrp(3)).
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	var group int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group)))
	return errno == 0 && int(group) == syscall.Getpgrp()
}
