package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"culvert/config"
)

// hookTime bounds one hook, so that a hanging one does not keep a daemon from ending.
const hookTime = 60 * time.Second

// hooks runs the commands of a file around a tunnel.
type hooks struct {
	file   *config.File
	ifname string
	out    io.Writer // where their output goes
	logf   func(format string, args ...any)
}

// run runs commands in order, each in a shell with %i replaced by the interface's name, and stops at the first that
// fails. The shell is bash, which wg-quick's files are written for, or else sh.
func (h *hooks) run(kind string, list []config.Hook) error {
	if len(list) == 0 {
		return nil
	}
	shell := "sh"
	if path, err := exec.LookPath("bash"); err == nil {
		shell = path
	}
	for _, hook := range list {
		command := strings.ReplaceAll(hook.Command, "%i", h.ifname)
		h.logf("%s: %s", kind, command)
		ctx, cancel := context.WithTimeout(context.Background(), hookTime)
		cmd := exec.CommandContext(ctx, shell, "-c", command)
		cmd.Stdout, cmd.Stderr = h.out, h.out
		cmd.Env = append(os.Environ(), "WG_QUICK_INTERFACE="+h.ifname)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		err := cmd.Run()
		if ctx.Err() != nil {
			err = fmt.Errorf("still running after %v, killed", hookTime)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %s %q: %w", hook.Pos, kind, command, err)
		}
	}
	return nil
}

// any reports whether a tunnel has hooks.
func anyHooks(h config.Hooks) bool {
	return len(h.PreUp)+len(h.PostUp)+len(h.PreDown)+len(h.PostDown) > 0
}

// trusted refuses a file whose commands somebody else could have put there: it, and the directory it lies in, must
// belong to root or to the user this runs as, and be writable by nobody else.
func trusted(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, p := range []string{real, filepath.Dir(real)} {
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		if sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
			return fmt.Errorf("%s belongs to uid %d", p, sys.Uid)
		}
		if st.Mode().Perm()&0o022 != 0 && (!st.IsDir() || st.Mode()&os.ModeSticky == 0) {
			return fmt.Errorf("%s is writable by others (mode %#o)", p, st.Mode().Perm())
		}
	}
	return nil
}
