package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"culvert/config"
	"culvert/setup/apply"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
)

// memory is a machine in memory, on which a daemon's tunnels are devices as well.
type memory struct {
	t      *testing.T
	kernel *kerneltest.Kernel
	tunnel *system
	state  string
}

func newMemory(t *testing.T) *memory {
	m := &memory{t, kerneltest.New(), newSystem(t), filepath.Join(t.TempDir(), "state")}
	m.kernel.AddLink("eth1", "veth", nil)
	return m
}

// endedEngine takes a device away with it.
type endedEngine struct {
	engine
	end func()
}

func (e *endedEngine) Close() error { e.end(); return e.engine.Close() }

func (m *memory) instance(file *config.File) *instance {
	in := newInstance(m.t, m.tunnel, file)
	in.d.p.stateDir = m.state
	in.d.p.machineOf = func(string) machine { return machine{Kernel: m.kernel} }
	var ref model.Ref
	openTap, newEngine := in.kernel.openTap, in.kernel.newEngine
	in.kernel.openTap = func(namespace, name string, address config.MAC, queues int) (device.Device, error) {
		netns := ""
		if namespace != "" {
			if netns = filepath.Base(namespace); m.kernel.Objects[model.NetnsID(netns)] == nil {
				return nil, fmt.Errorf("there is no namespace %s", netns)
			}
		}
		d, err := openTap(namespace, name, address, queues)
		if err == nil {
			ref = model.NewRef(netns, name)
			m.kernel.AddLink(ref, "tap", model.Fields{"persist": "no"})
		}
		return d, err
	}
	in.kernel.newEngine = func(d device.Device, n transport.Network, o tunnel.Options) (engine, error) {
		e, err := newEngine(d, n, o)
		mine := ref
		return &endedEngine{e, func() { m.gone(mine) }}, err
	}
	in.kernel.linkIndex = func(namespace, name string) (int, error) {
		netns := ""
		if namespace != "" {
			netns = filepath.Base(namespace)
		}
		o := m.kernel.Objects[model.LinkID(model.NewRef(netns, name))]
		if o == nil {
			return 0, os.ErrNotExist
		}
		return o.Index, nil
	}
	return in
}

// gone is the end of a device with its descriptors.
func (m *memory) gone(r model.Ref) {
	fail := m.kernel.Fail
	m.kernel.Fail = nil
	if _, err := m.kernel.Do(m.t.Context(), &plan.Step{Op: plan.Delete, ID: model.LinkID(r)}); err != nil {
		m.t.Error(err)
	}
	m.kernel.Fail = fail
}

// failing fails the nth step from now on, and no other; ever says whether there was one.
func (m *memory) failing(n int) (ever *bool) {
	ever = new(bool)
	first := len(m.kernel.Steps)
	var failed *plan.Step // a deletion: where it failed together with others, it is tried alone
	m.kernel.Fail = func(s *plan.Step, at int, when kerneltest.When) bool {
		if when != kerneltest.Before {
			return false
		}
		if failed != nil && failed.Op == plan.Delete && s.Op == plan.Delete && s.ID == failed.ID {
			failed = nil
			return true
		}
		if !*ever && at >= first+n { // the end of a tunnel, which counts as one, does not fail
			*ever, failed = true, s
			return true
		}
		return false
	}
	return ever
}

func (m *memory) same(before map[model.ID]model.Object, what string) {
	m.t.Helper()
	after := m.kernel.All()
	if reflect.DeepEqual(before, after) {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if b, ok := after[id]; !ok || !reflect.DeepEqual(before[id], b) {
			m.t.Errorf("%s: %s was %v and is %v (there: %v)", what, id, before[id], b, ok)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[id]; !ok {
			m.t.Errorf("%s: %s is left", what, id)
		}
	}
}

const lan = `version: 1
tunnels:
  lan:
    mode: tap
    private_key_file: key
`

const around1 = `netns: {n1: {}}
links:
  eth1: {external: true}
  br0: {type: bridge, addresses: [10.0.0.1/24], ports: {eth1: {}, lan: {cost: 9}}}
  ifb9: {type: ifb}
  va: {type: veth, peer: {name: vb, netns: n1}}
shaping:
  - {source: lan, ingress_to: ifb9, qdisc: {htb: {rate: 8mbit}}, egress: {tbf: {rate: 8mbit, burst: 10k}}}
`

// around2 has another device of each sort, a second tunnel, and the first in a namespace.
const around2 = `    netns: n1
  lan2: {mode: tap, private_key_file: key}
netns: {n1: {}}
links:
  eth1: {external: true}
  br0: {type: bridge, addresses: [10.0.0.2/24], ports: {lan2: {}}}
  br1: {type: bridge, netns: n1, ports: {lan: {}}}
  bond1: {type: bond, mode: active-backup, ports: [eth1]}
`

func names(in *instance) (list []string) {
	for _, t := range in.live() {
		list = append(list, string(t.ref()))
	}
	slices.Sort(list)
	return list
}

func (m *memory) write(file *config.File, text string) {
	m.t.Helper()
	if err := os.WriteFile(file.Path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// A tunnel is brought up among the steps of its network: behind its namespace, before what hangs on it. At the end nothing is left.
func TestNetworkComesWithItsTunnels(t *testing.T) {
	m := newMemory(t)
	before := m.kernel.All()
	in := m.instance(yamlFile(t, lan+around1))
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	if m.kernel.Objects["attachment lan"] == nil || m.kernel.Objects["filter lan ingress 25462"] == nil {
		t.Error("nothing hangs on the tunnel's device")
	}
	if n := in.network(); n == nil || len(n.Drift) != 0 || n.Items < 10 {
		t.Errorf("status: %+v", n)
	}
	first := m.kernel.All()

	m.write(in.file, lan+around2)
	in.d.file = in.file.Path
	remarks, err := in.reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(remarks, "\n"); !strings.Contains(text, "+ link bond1 (bond)") || !strings.Contains(text, "- link ifb9") {
		t.Errorf("remarks: %s", text)
	}
	if got := names(in); !slices.Equal(got, []string{"lan2", "n1/lan"}) {
		t.Errorf("up are %v", got)
	}
	if o := m.kernel.Objects["attachment n1/lan"]; o == nil || o.Fields["master"] != "n1/br1" {
		t.Errorf("the tunnel's device in the namespace: %v", o)
	}
	m.write(in.file, lan+around1)
	if _, err := in.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.same(first, "back")

	if err := in.teardown(); err != nil {
		t.Fatal(err)
	}
	m.same(before, "down")
	if exists(filepath.Join(m.state, in.file.Instance)) {
		t.Error("the journal is left")
	}
	if len(m.kernel.Faults) > 0 {
		t.Error(m.kernel.Faults)
	}
}

// Whatever step of a start or a reload fails, everything is as it was, the tunnels included.
func TestNetworkGoesBackWithItsTunnels(t *testing.T) {
	failed := 0
	for n := 0; ; n++ {
		m := newMemory(t)
		before := m.kernel.All()
		in := m.instance(yamlFile(t, lan+around1))
		ever := m.failing(n)
		err := in.start(t.Context(), func(error) {})
		if !*ever {
			break
		}
		failed++
		if err == nil || !strings.Contains(err.Error(), "everything is as it was before") || len(names(in)) != 0 {
			t.Errorf("step %d: %v, up are %v", n, err, names(in))
		}
		m.same(before, fmt.Sprintf("the start failed at step %d", n))
		if err := in.teardown(); err != nil {
			t.Error(err)
		}
		m.same(before, "and down")
	}
	if failed < 10 {
		t.Errorf("only %d steps", failed)
	}
	failed = 0
	for n := 0; ; n++ {
		m := newMemory(t)
		in := m.instance(yamlFile(t, lan+around1))
		if err := in.start(t.Context(), func(error) {}); err != nil {
			t.Fatal(err)
		}
		in.watched.stop()
		before := m.kernel.All()
		m.write(in.file, lan+around2)
		in.d.file = in.file.Path
		ever := m.failing(n)
		_, err := in.reload(t.Context())
		m.kernel.Fail = nil
		if !*ever {
			break
		}
		failed++
		if err == nil || !slices.Equal(names(in), []string{"lan"}) {
			t.Errorf("step %d: %v, up are %v", n, err, names(in))
		}
		m.same(before, fmt.Sprintf("the reload failed at step %d", n))
		if len(m.kernel.Faults) > 0 {
			t.Errorf("step %d: %v", n, m.kernel.Faults)
		}
	}
	if failed < 10 {
		t.Errorf("only %d steps", failed)
	}
}

// What a daemon that was killed has left, without its tunnels, is completed by the next, or given up.
func TestNetworkOfADaemonThatWasKilled(t *testing.T) {
	for _, next := range []string{lan + around1, lan} {
		m := newMemory(t)
		before := m.kernel.All()
		file := yamlFile(t, lan+around1)
		in := m.instance(file)
		if err := in.start(t.Context(), func(error) {}); err != nil {
			t.Fatal(err)
		}
		whole := m.kernel.All()
		in.watched.stop()
		if err := in.net.journal.Close(); err != nil { // as the kernel does, and
			t.Fatal(err)
		}
		in.net, in.started = nil, false
		if err := in.teardown(); err != nil { // takes the tunnel's device
			t.Fatal(err)
		}
		m.write(file, next)
		again, err := loadConfig(file.Path)
		if err != nil {
			t.Fatal(err)
		}
		in = m.instance(again)
		if err := in.start(t.Context(), func(error) {}); err != nil {
			t.Fatal(err)
		}
		if next == lan+around1 {
			m.same(whole, "up again")
		} else if m.kernel.Objects["link br0"] != nil {
			t.Error("the bridge, which is declared no longer, is left")
		}
		if err := in.teardown(); err != nil {
			t.Fatal(err)
		}
		m.same(before, "down")
	}
}

// A network that a reload brings to tunnels that were up without one takes them over.
func TestNetworkComesToTunnels(t *testing.T) {
	m := newMemory(t)
	before := m.kernel.All()
	in := m.instance(yamlFile(t, lan))
	if err := in.start(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	if in.net != nil || in.network() != nil {
		t.Error("there is a network, and none is declared")
	}
	m.write(in.file, lan+around2)
	in.d.file = in.file.Path
	if _, err := in.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := names(in); !slices.Equal(got, []string{"lan2", "n1/lan"}) {
		t.Errorf("up are %v", got)
	}
	if err := in.teardown(); err != nil {
		t.Fatal(err)
	}
	m.same(before, "down")
}

// Refusals and failures show the lines of the file.
func TestNetworkErrors(t *testing.T) {
	file := yamlFile(t, "version: 1\nlinks:\n  br0: {type: bridge}\n  t1:\n    type: tap\nservices:\n  - {dnsmasq: {interface: t1, range: \"10.0.0.2,10.0.0.9\"}}\n")
	items := itemsOf(file)
	step := func(id model.ID) plan.Step { return plan.Step{Op: plan.Create, ID: id, Fields: model.Fields{}} }
	failure := &apply.StepError{Step: step("link t1"), Err: context.DeadlineExceeded}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&apply.FailedError{Err: failure}, "site.yaml:4:3: cannot create link t1: context deadline exceeded\n  4 |   t1:\n    |   ^\neverything is as it was before"},
		{&apply.FailedError{Err: failure, Residue: []string{"link t1 was not there before"}}, "not everything could be put back:\nlink t1 was not there before"},
		{&apply.MissingError{Missing: []apply.Missing{{Step: step("link br0"), What: "bridge devices", Err: kerneltest.ErrUnsupported, Config: "CONFIG_BRIDGE", Module: "bridge"}},
			Origins: []spec.Origin{items[0].Place.Origin}},
			"site.yaml:3:3: link br0 needs bridge devices, which the kernel lacks: operation not supported\n  3 |   br0: {type: bridge}\n    |   ^\n    = try modprobe bridge; the kernel needs CONFIG_BRIDGE\nnothing was touched"},
		{&apply.MissingError{Missing: []apply.Missing{{Step: step("process dnsmasq:t1"), What: "the program dnsmasq", Err: os.ErrNotExist}},
			Origins: []spec.Origin{items[len(items)-1].Place.Origin}}, "process dnsmasq:t1 needs the program dnsmasq: file does not exist\n  7 |"},
	} {
		err := wordNetwork(file, items, c.err)
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("got\n%s\nwant\n%s", err, c.want)
		}
		if exitCode(err) != exitFailure {
			t.Errorf("exit code %d", exitCode(err))
		}
	}
}

func TestPlanText(t *testing.T) {
	p := &plan.Plan{Entries: []plan.Entry{
		{Verdict: plan.WillCreate, ID: "link br0", Label: "bridge"}, {Verdict: plan.WillChange, ID: "link eth0"}, {Verdict: plan.WillRecreate, ID: "link t0"},
		{Verdict: plan.WillDelete, ID: "link t1"}, {Verdict: plan.InConflict, ID: "link t2", Reason: "why"},
	}, Notes: []string{"note"}}
	plain := "+ link br0 (bridge)\n~ link eth0\n-/+ link t0\n- link t1\n! conflict link t2: why\n# note\n1 to create, 1 to change, 1 to recreate, 1 to delete, 1 in conflict\n"
	if got := planText(p, false); got != plain {
		t.Errorf("got\n%s", got)
	}
	got := planText(p, true)
	for _, want := range []string{"\x1b[32m+ link br0 (bridge)\x1b[0m\n", "\x1b[33m~ ", "\x1b[35m-/+ ", "\x1b[31m- ", "\x1b[1;31m! ", "\x1b[2m# note\x1b[0m\n1 to create"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

func TestDrift(t *testing.T) {
	p := &plan.Plan{Entries: []plan.Entry{
		{Verdict: plan.WillCreate, ID: "link br0"}, {Verdict: plan.WillCreate, ID: "address br0 10.0.0.1/24"}, {Verdict: plan.WillCreate, ID: "netns n1"},
		{Verdict: plan.WillCreate, ID: "link n1/vb"}, {Verdict: plan.WillCreate, ID: "attachment eth0", Label: "to br1"},
		{Verdict: plan.WillCreate, ID: "address br1 10.0.1.1/24"},
		{Verdict: plan.WillChange, ID: "link br1", Changes: []plan.FieldChange{{Field: "mtu", Old: "1400", New: "1500"}, {Field: "alias", Old: "", New: "x"}}},
		{Verdict: plan.WillRecreate, ID: "link va", Reason: "its other end is made anew"}, {Verdict: plan.WillDelete, ID: "link t1"},
		{Verdict: plan.InConflict, ID: "qdisc eth0 root", Reason: "why"},
	}}
	var got []string
	for _, d := range driftOf(p) {
		got = append(got, d.Is+" "+d.Text)
	}
	want := []string{"gone br0: gone", "gone netns n1: gone", "gone br1 port eth0: gone", "gone br1 address 10.0.1.1/24: gone", "changed br1: mtu is 1400, not 1500",
		"changed br1: alias is none, not x", "extra t1: there, and not declared", "conflict qdisc eth0 root: why"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
