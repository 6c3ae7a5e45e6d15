package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A daemon is this program started again in a session of its own. It reports through a pipe, one JSON object a line:
// remarks as they come, and at last that it is ready or why it ended. Its caller waits for that, so "culvert up" returns
// when the tunnels are up, and with the daemon's own error and exit code when they could not be brought up.

// readyEnv names the pipe's descriptor in the daemon's environment.
const readyEnv = "CULVERT_READY_FD"

// stage is one line of the pipe.
type stage struct {
	Remark string `json:"remark,omitempty"`
	Ready  bool   `json:"ready,omitempty"`
	Error  string `json:"error,omitempty"`
	Code   int    `json:"code,omitempty"`
}

// detach starts this program again with args and returns once it is ready. Remarks go to stderr. before, where not nil,
// is called with the command before it is started.
func (p *program) detach(before func(*exec.Cmd), args ...string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return hintDescriptors(fmt.Errorf("cannot start the daemon: %w", err))
	}
	defer r.Close()
	cmd := exec.Command(ownProgram())
	name := p.name
	if strings.ContainsRune(name, '/') { // the daemon is in another folder, and may have to find it again
		if path, err := filepath.Abs(name); err == nil {
			name = path
		}
	}
	cmd.Args = append([]string{name}, args...)
	cmd.ExtraFiles = []*os.File{w} // descriptor 3
	cmd.Env = append(os.Environ(), readyEnv+"=3", runDirEnv+"="+p.runDir, wgDirEnv+"="+p.wgDir, stateDirEnv+"="+p.stateDir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if before != nil {
		before(cmd)
	}
	// Caught from here on: whoever interrupts the wait does not want the daemon.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(interrupted)
	err = cmd.Start()
	w.Close()
	if err != nil {
		return hintDescriptors(fmt.Errorf("cannot start the daemon: %w", err))
	}
	ended := make(chan struct{})
	stopped := make(chan bool, 1)
	go func() {
		select {
		case <-interrupted:
			cmd.Process.Signal(syscall.SIGTERM)
			stopped <- true
		case <-ended:
			stopped <- false
		}
	}()
	err = p.awaitReady(r, cmd)
	close(ended)
	if <-stopped && err != nil {
		return errors.New("interrupted; everything was taken back")
	}
	return err
}

func (p *program) awaitReady(r io.Reader, cmd *exec.Cmd) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s stage
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return fmt.Errorf("cannot understand the daemon: %w", err)
		}
		switch {
		case s.Remark != "":
			fmt.Fprintln(p.stderr, s.Remark)
		case s.Ready:
			cmd.Process.Release()
			return nil
		case s.Error != "":
			fmt.Fprintln(p.stderr, s.Error)
			cmd.Wait()
			return &shownError{s.Code}
		}
	}
	err := cmd.Wait()
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("the daemon ended before it was ready: %w", err)
}

// readyPipe is the daemon's end. The zero value, of a daemon in the foreground, reports nothing.
type readyPipe struct{ f *os.File }

// takeReadyPipe finds the pipe in the environment and removes it from there, and from what child processes inherit.
func takeReadyPipe() (readyPipe, error) {
	v := os.Getenv(readyEnv)
	if v == "" {
		return readyPipe{}, nil
	}
	os.Unsetenv(readyEnv)
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		return readyPipe{}, fmt.Errorf("%s=%q is not a descriptor", readyEnv, v)
	}
	syscall.CloseOnExec(fd)
	return readyPipe{os.NewFile(uintptr(fd), "ready pipe")}, nil
}

// detached reports whether somebody waits at the other end.
func (r readyPipe) detached() bool { return r.f != nil }

func (r readyPipe) send(s stage) error {
	if r.f == nil {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	r.f.SetWriteDeadline(time.Now().Add(10 * time.Second)) // where pipes can; a caller that hangs must not hang the daemon
	_, err = r.f.Write(append(b, '\n'))
	return err
}

func (r readyPipe) remark(text string) { _ = r.send(stage{Remark: text}) }

// ready ends the caller's wait. An error means that the caller is gone.
func (r readyPipe) ready() error {
	if r.f == nil {
		return nil
	}
	defer r.f.Close()
	return r.send(stage{Ready: true})
}

// report hands the daemon's error to whoever waits for it, which then has been shown.
func (r readyPipe) report(err error) error {
	if err == nil || r.f == nil {
		return err
	}
	var text strings.Builder
	report(&text, err)
	// Once it was ready nobody waits; the log has it.
	_ = r.send(stage{Error: strings.TrimSuffix(text.String(), "\n"), Code: exitCode(err)})
	return err
}
