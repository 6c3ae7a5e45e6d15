package service_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/service"
	"culvert/setup/spec"
)

// dhcp is the scenario of a DHCP server in a namespace, reached over bridge and veth:
//
//	client eth0 == p1 br0 veth-a == veth-b server
type dhcp struct {
	*keeper
	client, middle, server *lab.Host
	id                     model.ID
	fields                 model.Fields
}

func newDHCP(t *testing.T) *dhcp {
	t.Helper()
	lab.NeedProgram(t, "dnsmasq")
	client, middle, server := lab.NewHost(t, "client"), lab.NewHost(t, "middle"), lab.NewHost(t, "server")
	lab.Link(t, client, middle, lab.Names("eth0", "p1"), lab.Addresses("", ""))
	lab.Link(t, middle, server, lab.Names("veth-a", "veth-b"), lab.Addresses("", "10.7.0.2/24"))
	middle.Shell("ip", "link", "add", "br0", "type", "bridge")
	for _, port := range []string{"p1", "veth-a"} {
		middle.Shell("ip", "link", "set", port, "master", "br0")
	}
	middle.Shell("ip", "link", "set", "br0", "up")

	items := expanded(t, &spec.Spec{
		Instance: "test",
		Netns:    []spec.Netns{{Name: server.Namespace.Name(), External: true}},
		Links: []spec.Link{{Key: "veth-b", Netns: server.Namespace.Name(), External: true,
			Addresses: []spec.Address{{Prefix: netip.MustParsePrefix("10.7.0.2/24")}}}},
		Services: []spec.Service{{Dnsmasq: &spec.Dnsmasq{Netns: server.Namespace.Name(), Interface: "veth-b",
			Ranges: []string{"10.7.0.10,10.7.0.50,255.255.255.0,1h"}, Options: []string{"option:router,10.7.0.2"}}}},
	})
	d := &dhcp{keeper: newKeeper(t), client: client, middle: middle, server: server}
	for _, i := range items {
		if i.ID.Kind() == model.KindProcess {
			d.id, d.fields = i.ID, i.Fields
		}
	}
	return d
}

// expanded returns the items of a declaration that is valid.
func expanded(t *testing.T, s *spec.Spec) []model.Item {
	t.Helper()
	if errs := s.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	return model.Expand(s)
}

// lease asks for an address and returns it with the router that came along.
func (d *dhcp) lease() string {
	d.t.Helper()
	script := filepath.Join(d.t.TempDir(), "script")
	lab.WriteProgram(d.t, script, []byte("#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip/$mask via $router\"\nexit 0\n"), 0o755)
	return strings.TrimSpace(d.client.Shell("busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "10", "-T", "1", "-s", script))
}

func TestDnsmasqGivesLeases(t *testing.T) {
	t.Parallel()
	d := newDHCP(t)
	done := d.create(d.id, d.fields)
	if !isRunning(done.PID) || done.Started == 0 {
		t.Fatalf("%+v, want a process that runs", done)
	}
	if got, want := netnsOf(t, fmt.Sprintf("/proc/%d/ns/net", done.PID)), netnsOf(t, d.server.NetnsPath()); got != want {
		t.Errorf("it runs in namespace %d, want %d", got, want)
	}
	o := d.read()[d.id]
	if o == nil || !maps.Equal(o.Fields, d.fields) || !o.Ours || o.Inode != netnsOf(t, d.server.NetnsPath()) {
		t.Errorf("read back %+v, want the fields %v", o, d.fields)
	}
	lease := d.lease()
	prefix, router, _ := strings.Cut(lease, " via ")
	if p, err := netip.ParsePrefix(prefix); err != nil || !netip.MustParsePrefix("10.7.0.0/24").Contains(p.Addr()) || router != "10.7.0.2" {
		t.Errorf("lease %q, want an address of 10.7.0.0/24 via 10.7.0.2", lease)
	}
	// It does its job and no more: no name service, nothing on other devices.
	if ports := d.server.Shell("ss", "-Hlnutp"); strings.Contains(ports, ":53 ") || !strings.Contains(ports, ":67 ") {
		t.Errorf("sockets:\n%s", ports)
	}
	if _, err := d.Do(t.Context(), &plan.Step{Op: plan.Create, ID: d.id, Fields: d.fields}); err == nil {
		t.Error("it was created twice")
	}
	d.private()
	d.delete(d.id)
	d.gone(done.PID)
	d.delete(d.id) // once more is no error
}

// private checks that nobody else gets at the state directory.
func (k *keeper) private() {
	k.t.Helper()
	err := filepath.WalkDir(k.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && !strings.HasSuffix(path, "/pid") {
			k.t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		k.t.Error(err)
	}
}

func TestDnsmasqIsRestarted(t *testing.T) {
	t.Parallel()
	d := newDHCP(t)
	first := d.create(d.id, d.fields)
	lease := d.lease()
	pid := first.PID
	for n := range 2 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 15*time.Second, "it runs again", func() bool {
			s := d.status(d.id)
			return s.Phase == service.Running && s.PID != pid && s.Restarts == n+1
		})
		s := d.status(d.id)
		if !strings.Contains(s.LastEnd, "killed") {
			t.Errorf("the last one ended by %q, want killed", s.LastEnd)
		}
		pid = s.PID
	}
	if again := d.lease(); again != lease {
		t.Errorf("the lease was %s, and is %s after the restart", lease, again)
	}
	if o := d.read()[d.id]; o == nil || !maps.Equal(o.Fields, d.fields) {
		t.Errorf("read back %+v", o)
	}
	if !strings.Contains(d.log(), "has ended: signal: killed") || !strings.Contains(d.log(), "DHCPACK") {
		t.Errorf("the log lacks the end, or what dnsmasq says:\n%s", d.log())
	}
	d.delete(d.id)
	d.gone(first.PID, pid)
}

func TestServiceOutlivesItsSupervisor(t *testing.T) {
	t.Parallel()
	d := newDHCP(t)
	done := d.create(d.id, d.fields)
	d.killSupervisor()
	if !isRunning(done.PID) {
		t.Fatal("dnsmasq has ended with the supervisor")
	}
	d.lease() // and its output goes nowhere meanwhile without stopping it
	// Without a supervisor it is there, but not as it should be.
	o := d.read()[d.id]
	if o == nil || o.Fields["program"] != "dnsmasq, unsupervised" || o.Fields["args"] != d.fields["args"] {
		t.Errorf("read back %+v, want it unsupervised", o)
	}
	if err := d.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := d.status(d.id)
	lab.Eventually(t, 5*time.Second, "the supervisor has looked at what it took over", func() bool {
		s = d.status(d.id)
		return s.Phase == service.Running
	})
	if s.PID != done.PID || s.Started != done.Started || s.Orphaned {
		t.Errorf("%+v, want process %d to go on", s, done.PID)
	}
	if o := d.read()[d.id]; o == nil || !maps.Equal(o.Fields, d.fields) {
		t.Errorf("read back %+v", o)
	}
	lab.Eventually(t, 5*time.Second, "what dnsmasq said meanwhile is in the log", func() bool { return strings.Contains(d.log(), "DHCPACK") })
	// A process that was taken over is restarted as well.
	if err := syscall.Kill(done.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 15*time.Second, "it runs again", func() bool {
		s = d.status(d.id)
		return s.Phase == service.Running && s.PID != done.PID
	})
	// One that dies while nobody supervises is started by the next supervisor.
	d.killSupervisor()
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := d.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 15*time.Second, "it runs again", func() bool { return d.status(d.id).Phase == service.Running })
	last := d.status(d.id).PID
	d.delete(d.id)
	d.gone(done.PID, s.PID, last)
}

// TestOrphanIsStoppedWithoutSupervisor: destroy after a crash needs no new supervisor.
func TestOrphanIsStoppedWithoutSupervisor(t *testing.T) {
	t.Parallel()
	d := newDHCP(t)
	done := d.create(d.id, d.fields)
	d.killSupervisor()
	d.delete(d.id)
	d.gone(done.PID)
}

// TestUnrecordedProcessIsEnded: a crash between the start of a program and the writing down of its number.
func TestUnrecordedProcessIsEnded(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"recover", "delete"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			d := newDHCP(t)
			done := d.create(d.id, d.fields)
			d.killSupervisor()
			d.forgetPID()
			if way == "recover" {
				if err := d.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				lab.Eventually(t, 15*time.Second, "a new one runs", func() bool { return d.status(d.id).Phase == service.Running })
				if isRunning(done.PID) {
					t.Error("the unrecorded one runs on")
				}
				d.lease()
			}
			pid := d.status(d.id).PID
			d.delete(d.id)
			d.gone(done.PID, pid)
		})
	}
}

// forgetPID makes the record what it is before the program's number is known.
func (d *dhcp) forgetPID() {
	d.t.Helper()
	paths, err := filepath.Glob(filepath.Join(d.dir, "process", "*", "record"))
	if err != nil || len(paths) != 1 {
		d.t.Fatal(paths, err)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		d.t.Fatal(err)
	}
	cut, _, ok := strings.Cut(string(text), `,"pid":`)
	if !ok {
		d.t.Fatalf("no pid in %s", text)
	}
	if err := os.WriteFile(paths[0], []byte(cut+"}"), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// TestOthersProcessIsLeftAlone: by the time the record is read, another process has the number.
func TestOthersProcessIsLeftAlone(t *testing.T) {
	t.Parallel()
	d := newDHCP(t)
	done := d.create(d.id, d.fields)
	d.killSupervisor()
	other := d.server.Command(t.Context(), "sleep", "1000")
	if err := d.server.Start(other); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	paths, _ := filepath.Glob(filepath.Join(d.dir, "process", "*", "record"))
	text, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), fmt.Sprintf(`"pid":%d`, done.PID), fmt.Sprintf(`"pid":%d`, other.Process.Pid), 1)
	if err := os.WriteFile(paths[0], []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	d.delete(d.id)
	d.gone(done.PID)
	if !isRunning(other.Process.Pid) {
		t.Error("somebody else's process was ended")
	}
}

func TestWhatCannotStartIsSaid(t *testing.T) {
	t.Parallel()
	d := newDHCP(t)
	before := len(d.read())
	for name, c := range map[string]struct {
		field model.Field
		value model.Value
		says  []string
	}{
		"wrong option":         {"args", jsonList(t, "--keep-in-foreground", "--no-such-option"), []string{"it has ended: exit status 1", "bad command line options"}},
		"wrong program":        {"program", "sleep", []string{`"sleep" is not a program that is supervised`}},
		"namespace is missing": {"netns", "cv-no-such-namespace", []string{"there is no namespace cv-no-such-namespace"}},
		"no list":              {"args", "--port=0", []string{"no JSON list"}},
	} {
		fields := maps.Clone(d.fields)
		fields[c.field] = c.value
		_, err := d.Do(t.Context(), &plan.Step{Op: plan.Create, ID: d.id, Fields: fields})
		if err == nil {
			t.Errorf("%s: no error", name)
			d.delete(d.id)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v\nwant it to say %q", name, err, part)
			}
		}
	}
	if after := len(d.read()); after != before {
		t.Errorf("%d things are kept, %d before", after, before)
	}
	d.gone()
	if _, err := d.Do(t.Context(), &plan.Step{Op: plan.Change, ID: d.id}); err == nil {
		t.Error("it was changed in place")
	}
}

// TestNamespaceReplaced: what runs in a namespace that is gone is not what is declared.
func TestNamespaceReplaced(t *testing.T) {
	t.Parallel()
	d := newDHCP(t)
	done := d.create(d.id, d.fields)
	// The name goes, and somebody makes a namespace of that name.
	name := d.server.Namespace.Name()
	for _, what := range []string{"delete", "add"} {
		if out, err := exec.Command("ip", "netns", what, name).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	o := d.read()[d.id]
	if o == nil || o.Fields["netns"] != "?" || o.Fields["program"] != "dnsmasq" {
		t.Errorf("read back %+v, want the netns unknown", o)
	}
	// Killed it is not started in the other one.
	if err := syscall.Kill(done.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, "it is tried again in vain", func() bool {
		s := d.status(d.id)
		return s.Phase == service.Waiting && strings.Contains(s.LastEnd, "another namespace has that name")
	})
	d.delete(d.id)
	d.gone(done.PID)
}

// TestSideBySide starts several services at once, from several clients that all find no supervisor.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "dnsmasq")
	k := newKeeper(t)
	h := lab.NewHost(t, "server")
	const n = 8
	ids := make([]model.ID, n)
	errs := make(chan error, n)
	for i := range n {
		name := fmt.Sprintf("d%d", i)
		h.Shell("ip", "link", "add", name, "type", "veth", "peer", "name", "peer"+name)
		h.Shell("ip", "addr", "add", fmt.Sprintf("10.8.%d.1/24", i), "dev", name)
		h.Shell("ip", "link", "set", name, "up")
		ids[i] = model.ProcessID("dnsmasq:" + string(model.NewRef(h.Namespace.Name(), name)))
		go func() {
			_, err := service.New(k.dir, k.supervisor).Do(t.Context(), &plan.Step{Op: plan.Create, ID: ids[i], Fields: model.Fields{
				"program": "dnsmasq", "netns": model.Value(h.Namespace.Name()), "link": model.Link(model.NewRef(h.Namespace.Name(), name)),
				"args": jsonList(t, "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--except-interface=lo",
					"--interface="+name, fmt.Sprintf("--dhcp-range=10.8.%d.10,10.8.%d.20", i, i), "--dhcp-leasefile=@leases"),
			}})
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	var pids []int
	for id, o := range k.read() {
		if !slices.Contains(ids, id) || o.Fields["program"] != "dnsmasq" {
			t.Errorf("%s: %+v", id, o)
		}
		pids = append(pids, k.status(id).PID)
	}
	if len(pids) != n {
		t.Errorf("%d services, want %d", len(pids), n)
	}
	// Asked to end, a supervisor stops what it keeps.
	k.signal(syscall.SIGTERM)
	lab.Eventually(t, 15*time.Second, "the supervisor has ended", func() bool { return !k.alive() })
	k.gone(pids...)
	if list, err := k.Status(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if err := k.Recover(t.Context()); err != nil || k.alive() {
		t.Errorf("%v, a supervisor for nothing: %v", err, k.alive())
	}
}

func TestMissingProgram(t *testing.T) {
	k := service.New(t.TempDir(), nil)
	t.Setenv("PATH", t.TempDir())
	missing, err := k.Try(t.Context(), []plan.Step{
		{N: 1, Op: plan.Create, ID: "link br0"},
		{N: 2, Op: plan.Create, ID: "process x", Fields: model.Fields{"program": "nothing-known"}},
		{N: 3, Op: plan.Create, ID: "process y", Fields: model.Fields{"program": "nothing-known"}},
	})
	if err != nil || len(missing) != 1 || missing[0].Step.N != 2 || !strings.Contains(missing[0].Err.Error(), "nothing-known") {
		t.Errorf("%+v, %v", missing, err)
	}
	if errors.Is(missing[0].Err, os.ErrNotExist) {
		t.Error("an unknown program is not one that is not installed")
	}
}

// TestSupervisorThatFails is not started for ever.
func TestSupervisorThatFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	starts := 0
	k := service.New(dir, func() *exec.Cmd { starts++; return exec.Command("false") })
	_, err := k.Do(t.Context(), &plan.Step{Op: plan.Create, ID: "process x", Fields: model.Fields{"program": "dnsmasq", "args": "[]"}})
	if err == nil || !strings.Contains(err.Error(), "ended before it answered") || starts != 3 {
		t.Errorf("%v after %d starts", err, starts)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Error("the state directory is left")
	}
}
