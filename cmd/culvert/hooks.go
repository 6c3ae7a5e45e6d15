package main

import (
	"context"
	"errors"
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
	ifname string
	out    io.Writer // where their output goes

	priority *priority // nil: that of this process
	logf     func(format string, args ...any)
}

// run runs commands in order, each in a shell with %i replaced by the interface's name, and stops at the first that
// fails. The shell is bash, which wg-quick's files are written for, or else sh.
func (h *hooks) run(ctx context.Context, kind string, list []config.Hook) error {
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
		hookCtx, cancel := context.WithTimeout(ctx, hookTime)
		cmd := exec.CommandContext(hookCtx, shell, "-c", command)
		cmd.Stdout, cmd.Stderr = h.out, h.out
		cmd.Env = append(os.Environ(), "WG_QUICK_INTERFACE="+h.ifname)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		err := h.priority.run(cmd)
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil // it ended well; what it has left running holds its output
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if hookCtx.Err() != nil {
			err = fmt.Errorf("still running after %v, killed", hookTime)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %s %q: %w", hook.Pos, kind, command, err)
		}
	}
	return nil
}

// trustedFolder refuses a file whose folder lets somebody else put another in its place. Who owns the file itself, and
// its mode, config.Load has looked at while it was open.
func trustedFolder(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(real)
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s, where the file with its hooks lies, belongs to uid %d", dir, sys.Uid)
	}
	if st.Mode().Perm()&0o022 != 0 && st.Mode()&os.ModeSticky == 0 {
		return hint(fmt.Errorf("%s, where the file with its hooks lies, is writable by others (mode %#o)", dir, st.Mode().Perm()),
			"run chmod go-w %s", dir)
	}
	return nil
}

func anyHooks(h config.Hooks) bool {
	return len(h.PreUp)+len(h.PostUp)+len(h.PreDown)+len(h.PostDown) > 0
}
