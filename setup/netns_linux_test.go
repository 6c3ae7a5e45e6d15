package setup_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if prefix := os.Getenv("CULVERT_TEST_DEMO"); prefix != "" {
		if err := demoToBeKilled(prefix); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	lab.Main(m)
}

// demoToBeKilled makes what a demo makes, says so, and waits for its end.
func demoToBeKilled(prefix string) error {
	a, err := setup.NewNamespace(fmt.Sprintf("%s%d-a", prefix, os.Getpid()))
	if err != nil {
		return err
	}
	if _, err := setup.NewNamespace(fmt.Sprintf("%s%d-b", prefix, os.Getpid())); err != nil {
		return err
	}
	child := exec.Command("sleep", "3600")
	if err := a.Start(child); err != nil {
		return err
	}
	fmt.Println(child.Process.Pid)
	select {}
}

// uniquePrefix is a prefix of namespace names of this test alone.
func uniquePrefix(t *testing.T) string {
	return fmt.Sprintf("cvt-%d-%s-", os.Getpid(), t.Name())
}

func newNamespace(t *testing.T, name string) *setup.Namespace {
	t.Helper()
	lab.NeedNetns(t)
	ns, err := setup.NewNamespace(uniquePrefix(t) + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Delete() })
	return ns
}

func namespaces(t *testing.T, prefix string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob("/run/netns/" + prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return names
}

func exited(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// A zombie waits for its new parent.
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestKilledDemoIsReaped(t *testing.T) {
	lab.NeedNetns(t)
	prefix := uniquePrefix(t)
	demo := exec.Command(os.Args[0])
	demo.Env = append(os.Environ(), "CULVERT_TEST_DEMO="+prefix)
	out, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	defer demo.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the demo said %q", line)
	}
	if deleted, err := setup.ReapNamespaces(prefix, nil); err != nil || len(deleted) != 0 {
		t.Errorf("reaped %v of a living process, %v", deleted, err)
	}
	if len(namespaces(t, prefix)) != 2 {
		t.Fatalf("namespaces %v, want two", namespaces(t, prefix))
	}
	if err := demo.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = demo.Wait()
	lab.Eventually(t, 10*time.Second, "the demo's child ends with it", func() bool { return exited(child) })
	// Others' are left alone: another prefix, no number, a living process.
	for _, name := range []string{"x", strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getpid()) + "-c"} {
		ns, err := setup.NewNamespace(prefix + name)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Delete()
	}
	// A file without a namespace is what a kill in the middle of the creation leaves.
	halfway := fmt.Sprintf("%s%d-halfway", prefix, demo.Process.Pid)
	if err := os.WriteFile("/run/netns/"+halfway, nil, 0); err != nil {
		t.Fatal(err)
	}
	deleted, err := setup.ReapNamespaces(prefix, nil)
	if err != nil || len(deleted) != 3 || !slices.Contains(deleted, halfway) {
		t.Errorf("reaped %v, %v, want two namespaces and %s", deleted, err, halfway)
	}
	if left := namespaces(t, prefix); len(left) != 3 {
		t.Errorf("namespaces %v are left, want the three of others", left)
	}
}

func TestReapNeedsAPrefix(t *testing.T) {
	if _, err := setup.ReapNamespaces("", func(int) bool { return false }); err == nil {
		t.Error("everybody's namespaces would be deleted")
	}
}

func TestNamespaceNamesAreChecked(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\nb", "a\x00b", strings.Repeat("a", 201)} {
		if ns, err := setup.NewNamespace(name); err == nil {
			ns.Delete()
			t.Errorf("made a namespace called %q", name)
		}
	}
}

func TestNamespaceIsUnique(t *testing.T) {
	ns := newNamespace(t, "one")
	if _, err := setup.NewNamespace(ns.Name()); !errors.Is(err, os.ErrExist) {
		t.Errorf("error %v for a name in use, want %v", err, os.ErrExist)
	}
	if err := ns.Do(func() error { return nil }); err != nil {
		t.Errorf("the first one was damaged: %v", err)
	}
}

func TestDeletedNamespaceRefuses(t *testing.T) {
	ns := newNamespace(t, "one")
	if err := ns.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Delete(); err != nil {
		t.Errorf("second deletion: %v", err)
	}
	_, mountErr := ns.PrivateMounts("/run/culvert")
	for what, err := range map[string]error{
		"Do":    ns.Do(func() error { t.Error("ran"); return nil }),
		"Start": ns.Start(exec.Command("true")),
		"Kill":  ns.Kill(),
		"veth":  setup.VethPair(setup.VethEnd{Namespace: ns, Name: "a"}, setup.VethEnd{Namespace: ns, Name: "b"}, 0),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v, want %v", what, err, os.ErrClosed)
		}
	}
	if mountErr == nil {
		t.Error("PrivateMounts succeeded")
	}
}

func TestDeleteEndsStartedProcesses(t *testing.T) {
	ns := newNamespace(t, "one")
	cmd := exec.Command("sleep", "3600")
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := ns.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys() == nil {
		t.Errorf("the process ended by itself: %v", err)
	}
}

func TestKillFindsDaemons(t *testing.T) {
	ns := newNamespace(t, "one")
	// A daemon leaves its session and its parent, and no parent-death signal reaches it.
	cmd := exec.Command("sh", "-c", "setsid sleep 3600 >/dev/null 2>&1 & echo $!")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	var daemon int
	if _, err := fmt.Fscan(out, &daemon); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if exited(daemon) {
		t.Fatal("the daemon is gone already")
	}
	if err := ns.Kill(); err != nil {
		t.Fatal(err)
	}
	if !exited(daemon) {
		t.Error("the daemon lives on")
	}
}

func TestDoReturnsThreadsClean(t *testing.T) {
	ns := newNamespace(t, "one")
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, setup.ErrExited) {
		t.Errorf("error %v, want %v", err, setup.ErrExited)
	}
	for range 100 {
		var inside string
		if err := ns.Do(func() (err error) { inside, err = os.Readlink("/proc/thread-self/ns/net"); return err }); err != nil {
			t.Fatal(err)
		}
		if inside == here {
			t.Fatal("Do ran outside")
		}
		done := make(chan string)
		go func() { link, _ := os.Readlink("/proc/thread-self/ns/net"); done <- link }()
		if got := <-done; got != here {
			t.Fatalf("a goroutine got a thread in %s, want %s", got, here)
		}
	}
}

func TestFailedVethPairLeavesNothing(t *testing.T) {
	a, b := newNamespace(t, "a"), newNamespace(t, "b")
	// The second end's address is refused after both ends exist.
	err := setup.VethPair(setup.VethEnd{Namespace: a, Name: "v0"}, setup.VethEnd{Namespace: b, Name: "v1",
		Addresses: []netip.Prefix{netip.MustParsePrefix("::1/128")}}, 0)
	opErr, ok := errors.AsType[*setup.OpError](err)
	if !ok || opErr.Op != "add address" || !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("error %v, want the kernel's refusal of the address", err)
	}
	for _, ns := range []*setup.Namespace{a, b} {
		err := ns.Do(func() error {
			links, err := netlink.LinkList()
			if len(links) != 1 {
				t.Errorf("%s has %d devices, want only lo", ns.Name(), len(links))
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "name-of-16-bytes", "a b"} {
		if err := setup.VethPair(setup.VethEnd{Namespace: a, Name: name}, setup.VethEnd{Namespace: b, Name: "v1"}, 0); err == nil {
			t.Errorf("made a device called %q", name)
		}
	}
}

func TestVethPairFromTheCallersNamespace(t *testing.T) {
	a, b := newNamespace(t, "a"), newNamespace(t, "b")
	err := a.Do(func() error {
		return setup.VethPair(setup.VethEnd{Name: "v0"}, setup.VethEnd{Namespace: b, Name: "v1"}, 1400)
	})
	if err != nil {
		t.Fatal(err)
	}
	for ns, name := range map[*setup.Namespace]string{a: "v0", b: "v1"} {
		err := ns.Do(func() error {
			link, err := netlink.LinkByName(name)
			if err == nil && (link.Attrs().MTU != 1400 || link.Attrs().OperState != netlink.OperUp) {
				t.Errorf("%s: MTU %d, %v", name, link.Attrs().MTU, link.Attrs().OperState)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	// The other way round: the peer stays with the caller.
	err = a.Do(func() error {
		return setup.VethPair(setup.VethEnd{Namespace: b, Name: "v2"}, setup.VethEnd{Name: "v3"}, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Do(func() error { _, err := netlink.LinkByName("v3"); return err }); err != nil {
		t.Error(err)
	}
}
