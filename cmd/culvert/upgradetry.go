package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"culvert/control"
	"culvert/tunnel"
)

// This file is what comes before an upgrade: whether the running instance can be handed over, and whether the program can go on with it.

// ability is what a program says of itself that is to go on with a daemon's work.
type ability struct {
	Program string `json:"program"`
	Estate  []int  `json:"estate"` // versions that it reads
	State   []int  `json:"state"`  // of tunnels
}

// possible refuses what cannot be handed over, or to whom, before anything is done.
func (u *upgrading) possible() error {
	if u.program != u.d.program {
		if err := trustedProgram(u.program); err != nil {
			return err
		}
	}
	for _, t := range u.in.live() {
		if _, ok := t.engine.(suspendable); !ok {
			return fmt.Errorf("tunnel %s cannot be handed over", t.hooks.ifname)
		}
	}
	return nil
}

// try asks the program what it can go on with, and has it check the file. Nothing is touched yet.
func (u *upgrading) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tryPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, u.program, succeedCommand, "--try", u.d.file)
	cmd.Args[0] = u.d.p.name
	cmd.Env = u.environment()
	cmd.Dir = "/"
	var out, why bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{&out}, &limited{&why}
	// It may be anything, a script that starts others as well.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("it has not said what it is within %v", tryPatience)
	case err == nil:
		if json.Unmarshal(out.Bytes(), &u.can) != nil || u.can.Program == "" {
			err = errors.New("it does not say what it is, as culvert does")
		}
	}
	if err != nil {
		return u.untried(err, strings.TrimSpace(why.String()))
	}
	restart := "culvert down %[1]s and culvert up %[2]s, or systemctl restart culvert@%[1]s, start it anew"
	switch {
	case !slices.Contains(u.can.Estate, estateVersion):
		err = fmt.Errorf("%s (culvert %s) takes over in version %v of the upgrade, and the running culvert %s hands over in version %d", u.program,
			u.can.Program, u.can.Estate, version(), estateVersion)
	case !slices.Contains(u.can.State, tunnel.StateVersion):
		err = fmt.Errorf("%s (culvert %s) reads sessions of version %v, and those of the running culvert %s are of version %d: it may be the older one",
			u.program, u.can.Program, u.can.State, version(), tunnel.StateVersion)
	}
	return hint(err, restart, u.d.name, u.d.file)
}

// untried words why a program could not be asked.
func (u *upgrading) untried(err error, why string) error {
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case ended && exit.ExitCode() == exitConfig:
		text := strings.TrimPrefix(why, "culvert: ")
		return &control.Error{Text: fmt.Sprintf("the new program refuses the file, and nothing was touched:\n%s", text), Code: exitConfig}
	case ended && strings.Contains(why, succeedCommand):
		return hint(fmt.Errorf("%s cannot go on with a running instance: it is of a version before that", u.program), "give another one with --program")
	case ended && why != "":
		return fmt.Errorf("%s cannot go on: %s", u.program, strings.TrimPrefix(why, "culvert: "))
	case errors.Is(err, fs.ErrPermission):
		d := filepath.Dir(u.d.program)
		return hint(fmt.Errorf("%s cannot be started: %w", u.program, err),
			"the daemon has given up all files but those it needs (docs/operations.md, Confinement): put the program into %s, which only root can", d)
	case errors.Is(err, fs.ErrNotExist):
		return hint(fmt.Errorf("%s is not there", u.program), "give another one with --program")
	}
	return fmt.Errorf("%s cannot go on: %w", u.program, err)
}

// tryPatience bounds how long a program may take to say what it is and to check the file.
const tryPatience = 10 * time.Second

// limited keeps what is written, and takes no more than it keeps.
type limited struct{ b *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	const most = 64 << 10
	if l.b.Len()+len(p) > most {
		return 0, io.ErrShortWrite
	}
	return l.b.Write(p)
}
