package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"culvert/control"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/uapi"
)

// Variables of the environment that userspace implementations of WireGuard agree on.
const (
	tunFDEnv      = "WG_TUN_FD"
	uapiFDEnv     = "WG_UAPI_FD"
	foregroundEnv = "WG_PROCESS_FOREGROUND"
	logLevelEnv   = "LOG_LEVEL"
)

func (p *program) wg() *cobra.Command {
	var foreground bool
	cmd := &cobra.Command{
		Use:   "wg IFNAME",
		Short: "a userspace WireGuard for wg and wg-quick",
		Long: `Usage: culvert wg [-f] IFNAME
       culvert-wg [-f] IFNAME

Makes the interface IFNAME and serves /var/run/wireguard/IFNAME.sock, through which wg configures it. It returns once
both are there; the daemon ends, and takes both away, on SIGTERM, when the socket's file is deleted, or with the interface.

  -f, --foreground   stay in the foreground, log to stderr

For wg-quick, make culvert-wg a link to this program and set WG_QUICK_USERSPACE_IMPLEMENTATION=culvert-wg.

Environment:
  LOG_LEVEL               verbose or debug, error, silent (in the background: where set, the log goes to the caller's output)
  WG_PROCESS_FOREGROUND   1 is -f
  WG_TUN_FD, WG_UAPI_FD   descriptors of an open tun interface and of a listening socket, to be used instead of own ones
`,
		Args: needArgs("IFNAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if err := checkInterfaceName(name); err != nil {
				return &usageError{err.Error(), "culvert wg"}
			}
			level, err := wgLogLevel()
			if err != nil {
				return err
			}
			inherited, err := takeInherited()
			if err != nil {
				return err
			}
			ready, err := takeReadyPipe()
			if err != nil {
				return err
			}
			if !foreground && os.Getenv(foregroundEnv) != "1" && !ready.detached() {
				return p.detach(inherited.pass, "wg", name)
			}
			d := &daemon{p: p, name: name, kind: "wg", ready: ready}
			d.body = &wgInterface{d: d, kernel: linux(), inherited: inherited}
			return ready.report(d.serve(level))
		},
	}
	cmd.Flags().BoolVarP(&foreground, "foreground", "f", false, "")
	return cmd
}

// checkInterfaceName refuses what the kernel would refuse or change, and what cannot be a file's name.
func checkInterfaceName(name string) error {
	if len(name) > 15 || !control.ValidName(name) {
		return fmt.Errorf("%q cannot be an interface's name: use up to 15 of a-z A-Z 0-9 _ = + . -", name)
	}
	return nil
}

const silent = slog.Level(math.MaxInt16)

func wgLogLevel() (slog.Level, error) {
	switch v := os.Getenv(logLevelEnv); v {
	case "verbose", "debug":
		return slog.LevelDebug, nil
	case "error":
		return slog.LevelError, nil
	case "":
		return slog.LevelInfo, nil
	case "silent":
		return silent, nil
	default:
		return 0, hint(fmt.Errorf("%s=%q is not a log level", logLevelEnv, v), "use verbose, debug, error or silent")
	}
}

// inherited are descriptors the caller has opened. A nil one is to be opened here.
type inherited struct{ tun, uapi *os.File }

// takeInherited finds the descriptors in the environment and keeps them from child processes.
func takeInherited() (inherited, error) {
	var in inherited
	for _, v := range []struct {
		name string
		f    **os.File
	}{{tunFDEnv, &in.tun}, {uapiFDEnv, &in.uapi}} {
		text := os.Getenv(v.name)
		if text == "" {
			continue
		}
		os.Unsetenv(v.name)
		fd, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return in, fmt.Errorf("%s=%q is not a descriptor", v.name, text)
		}
		if err := syscall.Fstat(int(fd), new(syscall.Stat_t)); err != nil {
			return in, hint(fmt.Errorf("%s=%s is not an open descriptor", v.name, text), "it must be inherited, without close-on-exec")
		}
		syscall.CloseOnExec(int(fd))
		*v.f = os.NewFile(uintptr(fd), v.name)
	}
	return in, nil
}

// pass hands the descriptors to the daemon, and with a log level the output as well.
func (in inherited) pass(cmd *exec.Cmd) {
	for _, v := range []struct {
		name string
		f    *os.File
	}{{tunFDEnv, in.tun}, {uapiFDEnv, in.uapi}} {
		if v.f != nil {
			cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", v.name, 3+len(cmd.ExtraFiles)))
			cmd.ExtraFiles = append(cmd.ExtraFiles, v.f)
		}
	}
	if level := os.Getenv(logLevelEnv); level != "" && level != "silent" {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
}

// wgInterface is the body of a "wg" daemon: one interface that others configure.
type wgInterface struct {
	d         *daemon
	kernel    kernel
	inherited inherited
	undo      undo

	mu     sync.Mutex // guards engine, for status
	engine engine
}

// errInterfaceGone ends a daemon whose interface was deleted, which is how wg-quick takes one down: no failure.
var errInterfaceGone = fmt.Errorf("the interface was deleted: %w", errStopRequested)

var errSocketGone = fmt.Errorf("the socket's file was deleted: %w", errStopRequested)

func (w *wgInterface) start(_ context.Context, fail func(error)) error {
	log := w.d.log.With("interface", w.d.name)
	infof := func(format string, args ...any) { log.Info(fmt.Sprintf(format, args...)) }
	dev, err := w.open()
	if err != nil {
		return err
	}
	e, err := w.kernel.newEngine(dev, w.kernel.network, tunnel.Options{
		Logf:   infof,
		Debugf: func(format string, args ...any) { log.Debug(fmt.Sprintf(format, args...)) },
	})
	if err != nil {
		return errors.Join(err, dev.Close())
	}
	w.mu.Lock()
	w.engine = e
	w.mu.Unlock()
	w.undo.add("close the device", e.Close)
	name, err := dev.Name() // WG_TUN_FD may have another
	if err != nil {
		return err
	}
	sock, err := w.serve(name, e, infof)
	if err != nil {
		return err
	}
	w.undo.add("close the socket for wg", sock.close)
	go func() {
		select {
		case <-sock.removed:
			fail(errSocketGone)
		case <-e.Done():
			err := e.Err()
			if _, missing := net.InterfaceByName(name); missing != nil {
				fail(errInterfaceGone)
			} else if err != nil {
				fail(fmt.Errorf("interface %s has ended: %w", name, err))
			}
		}
	}()
	return nil
}

func (w *wgInterface) open() (device.Device, error) {
	if w.inherited.tun == nil {
		return w.kernel.openTun("", w.d.name, 1)
	}
	// The device closes the descriptor; the duplicate keeps it from being closed a second time.
	fd, err := syscall.Dup(int(w.inherited.tun.Fd()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tunFDEnv, err)
	}
	syscall.CloseOnExec(fd)
	w.inherited.tun.Close()
	d, err := device.TunFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tunFDEnv, err)
	}
	return d, nil
}

func (w *wgInterface) serve(name string, e engine, infof func(string, ...any)) (*wgSocket, error) {
	if w.inherited.uapi == nil {
		return w.kernel.serveWG(w.d.p.wgDir, name, e, infof)
	}
	l, err := uapi.Adopt(w.inherited.uapi, w.d.p.wgDir, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", uapiFDEnv, err)
	}
	return serveWG(l, e, infof), nil
}

func (w *wgInterface) status() []control.Tunnel {
	w.mu.Lock()
	e := w.engine
	w.mu.Unlock()
	if e == nil {
		return []control.Tunnel{}
	}
	s := e.Status()
	s.PrivateKey.Zero()
	return []control.Tunnel{statusOf(s, nil)}
}

func (w *wgInterface) engines() []namedEngine {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.engine == nil {
		return nil
	}
	return []namedEngine{{w.d.name, w.engine}}
}

func (w *wgInterface) reload(context.Context) ([]string, error) {
	return nil, hint(fmt.Errorf("%s has no file: wg configures it", w.d.name), "wg syncconf %s FILE applies one", w.d.name)
}

func (w *wgInterface) teardown() error { return w.undo.run() }
