package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"culvert/setup"
)

// namePrefix starts the name of every namespace of a test; the process's number follows.
const namePrefix = "cv-"

var hostCount atomic.Uint64

func hostName(name string) string {
	return fmt.Sprintf("%s%d-%d-%s", namePrefix, os.Getpid(), hostCount.Add(1), name)
}

// reapOnce removes what earlier test processes left that were killed before they could clean up.
var reapOnce = sync.OnceFunc(func() { _, _ = setup.ReapNamespaces(namePrefix, nil) })

// Host is a host of a test network: a network namespace.
//
// Its methods that return no error fail the test, and must be called from the test's goroutine.
type Host struct {
	// Name is the short name given to NewHost.
	Name string
	// Namespace is the namespace behind the host.
	Namespace *setup.Namespace

	t     testing.TB
	links int // devices named so far
}

// NewHost makes a host that has only a loopback interface. At the end of the test the processes still running in it are
// killed, and everything in it is deleted. Skips the test where namespaces cannot be made.
func NewHost(t testing.TB, name string) *Host {
	t.Helper()
	NeedNetns(t)
	reapOnce()
	ns, err := setup.NewNamespace(hostName(name))
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Name: name, Namespace: ns, t: t}
	t.Cleanup(func() {
		if err := errors.Join(ns.Kill(), ns.Delete()); err != nil {
			t.Error(err)
		}
	})
	// Addresses are usable at once: nothing here has the same one.
	h.trySysctl("net/ipv6/conf/all/accept_dad", "0")
	h.trySysctl("net/ipv6/conf/default/accept_dad", "0")
	return h
}

// NetnsPath returns the file that setns(2) and "nsenter --net=" take.
func (h *Host) NetnsPath() string { return h.Namespace.Path() }

// NetnsName returns the name that "ip netns" and "ip -n" take.
func (h *Host) NetnsName() string { return h.Namespace.Name() }

// Do runs f inside the namespace, on a thread that ends with it, and returns its error; see
// [setup.Namespace.Do]. An f that ends its goroutine, as t.FailNow does, ends the test.
func (h *Host) Do(f func() error) error {
	h.t.Helper()
	err := h.Namespace.Do(f)
	if errors.Is(err, setup.ErrExited) {
		if h.t.Failed() {
			runtime.Goexit()
		}
		if h.t.Skipped() {
			h.t.SkipNow()
		}
	}
	return err
}

// Must runs f inside the namespace and fails the test on an error.
func (h *Host) Must(f func() error) {
	h.t.Helper()
	if err := h.Do(f); err != nil {
		h.t.Fatalf("host %s: %v", h.Name, err)
	}
}

// Command returns a command to be started with the host's Start, Run or Output. It ends with ctx.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	h.t.Helper()
	if filepath.Base(name) == name {
		name = NeedProgram(h.t, name)
	}
	return exec.CommandContext(ctx, name, args...)
}

// Start starts cmd inside the namespace. It is killed when the test process ends, or at the end of the test.
func (h *Host) Start(cmd *exec.Cmd) error { return h.Namespace.Start(cmd) }

// Run starts cmd inside the namespace and waits for it. Its error carries what the command wrote to stderr, unless
// the caller directed that elsewhere.
func (h *Host) Run(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	err := h.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("host %s: %s: %w\n%s", h.Name, strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	return nil
}

// Output runs cmd inside the namespace and returns what it wrote to stdout.
func (h *Host) Output(cmd *exec.Cmd) ([]byte, error) {
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err := h.Run(cmd)
	return stdout.Bytes(), err
}

// Shell runs a program inside the namespace and returns its output, failing the test when the program does.
func (h *Host) Shell(name string, args ...string) string {
	h.t.Helper()
	out, err := h.Output(h.Command(h.t.Context(), name, args...))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(out)
}

// PrivateRun gives the processes of this host directories of their own for control sockets (/run/wireguard,
// /run/culvert), so that two hosts may have a device of one name. It returns the root directory through which the
// test reaches them: root + "/run/wireguard/wg0.sock". To be called before anything was started.
func (h *Host) PrivateRun() (root string) {
	h.t.Helper()
	root, err := h.Namespace.PrivateMounts("/run/wireguard", "/run/culvert")
	if err != nil {
		h.t.Fatal(err)
	}
	return root
}

// Sysctl sets a kernel parameter of the namespace, as in Sysctl("net/ipv4/ip_forward", "1").
func (h *Host) Sysctl(name, value string) {
	h.t.Helper()
	h.Must(func() error { return writeSysctl(name, value) })
}

func (h *Host) trySysctl(name, value string) {
	h.t.Helper()
	if err := h.Do(func() error { return writeSysctl(name, value) }); err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatalf("host %s: %v", h.Name, err)
	}
}

func writeSysctl(name, value string) error {
	// /proc/sys/net shows the namespace of the thread that opens it.
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}

// nextDevice names the host's next device.
func (h *Host) nextDevice() string {
	h.links++
	return "eth" + strconv.Itoa(h.links-1)
}
