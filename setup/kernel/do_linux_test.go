package kernel_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/lab"
	"culvert/setup"
	"culvert/setup/kernel"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// wantError holds a step's error against its text, up to a "..." at the end, and against the system before.
func (m *machine) wantError(what string, step plan.Step, text string) {
	m.t.Helper()
	before := m.read()
	_, err := m.try(step)
	if _, ok := errors.AsType[*setup.OpError](err); !ok {
		m.t.Errorf("%s: %v, want an OpError", what, err)
		return
	}
	prefix, cut := strings.CutSuffix(text, "...")
	if err.Error() != text && (!cut || !strings.HasPrefix(err.Error(), prefix)) {
		m.t.Errorf("%s:\n%s\nwant\n%s", what, err, text)
	}
	m.same(what, before, m.read())
}

// What the kernel makes by itself is not there.
func TestReadLeavesOutTheKernelsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if got := m.text(m.read()); len(got) != 3 { // lo twice, and the named namespace
		t.Errorf("a new namespace has\n%s", strings.Join(got, "\n"))
	}
	withVeth(m)
	m.create(model.AddressID("a0", "10.1.2.3/24"), "", nil)
	m.create(model.AddressID("a0", "2001:db8::5/64"), "", nil)
	var ids []string
	for id := range m.read().Objects {
		if id.Kind() != model.KindNetns && id.Kind() != model.KindLink {
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	if want := []string{"address a0 10.1.2.3/24", "address a0 2001:db8::5/64"}; !slices.Equal(ids, want) {
		t.Errorf("beside links there are %q, want %q", ids, want)
	}
}

func TestReadWithoutNamespace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s, err := m.k.Read(t.Context(), model.Scope{Netns: []string{"", "cv-there-is-none"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.BootID == "" || s.Inode == 0 || s.Objects[model.LinkID("lo")] == nil || s.Objects[model.NetnsID(m.netns())] == nil {
		t.Errorf("boot %q inode %d lo %v netns %v", s.BootID, s.Inode, s.Objects[model.LinkID("lo")], s.Objects[model.NetnsID(m.netns())])
	}
	// The second namespace is outside the scope: what leads there leads to nobody knows where.
	withVeth(m)
	s, err = m.k.Read(t.Context(), model.Scope{Netns: []string{""}})
	if err != nil {
		t.Fatal(err)
	}
	if o := s.Objects[model.LinkID("a0")]; o == nil || o.Fields["peer"] != "?" {
		t.Errorf("a0 is %+v, want a peer of ?", o)
	}
	if s.Objects[model.LinkID(m.ref("other/b0"))] != nil {
		t.Error("a namespace outside the scope was read")
	}
}

// References across namespaces are found whatever the ids that namespaces have in each other.
func TestReferencesAcrossNamespaces(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	third := lab.NewHost(t, "third")
	far := func(name string) model.Ref { return model.NewRef(third.NetnsName(), name) }
	m.link("a0", "veth", model.Fields{"peer": model.Link(m.ref("other/a0"))})
	m.link("b0", "veth", model.Fields{"peer": model.Link(far("b0"))})
	m.link("other/c0", "veth", model.Fields{"peer": model.Link(far("c0"))})
	m.create(model.LinkID(far("m0")), "macvlan", model.Fields{"parent": "a0", "mode": "private"})
	s, err := m.k.Read(t.Context(), model.Scope{Netns: []string{third.NetnsName(), "", m.netns()}})
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[model.Ref]model.Ref{
		"a0": m.ref("other/a0"), m.ref("other/a0"): "a0", "b0": far("b0"), far("b0"): "b0", m.ref("other/c0"): far("c0"), far("c0"): m.ref("other/c0"),
	} {
		if o := s.Objects[model.LinkID(ref)]; o == nil || o.Fields["peer"].Link() != want {
			t.Errorf("%s: %+v, want the peer %s", ref, o, want)
		}
	}
	if o := s.Objects[model.LinkID(far("m0"))]; o == nil || o.Fields["parent"] != "a0" {
		t.Errorf("m0: %+v, want the parent a0", o)
	}
}

func TestNetns(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	name := m.netns() + "-x"
	id := model.NetnsID(name)
	path := filepath.Join("/run/netns", name)
	t.Cleanup(func() { setup.DeleteNamespace(name) })
	read := func() *model.Object {
		t.Helper()
		s, err := m.k.Read(t.Context(), model.Scope{Netns: []string{"", name}})
		if err != nil {
			t.Fatal(err)
		}
		return s.Objects[id]
	}
	// What a process leaves that is killed on the way is no namespace, and in nobody's way.
	if err := os.WriteFile(path, nil, 0); err != nil {
		t.Fatal(err)
	}
	if o := read(); o != nil {
		t.Errorf("a file is read as a namespace: %+v", o)
	}
	step := plan.Step{Op: plan.Create, ID: id, Alias: mark(id)}
	done := m.do(step)
	o := read()
	if o == nil || o.Inode != done.Inode || done.Inode == 0 || o.Group != model.Group || o.Alias != step.Alias {
		t.Fatalf("namespace %+v, told %+v", o, done)
	}
	if lo, err := m.k.Read(t.Context(), model.Scope{Netns: []string{name}}); err != nil || lo.Objects[model.LinkID(model.NewRef(name, "lo"))].Fields["up"] != "yes" {
		t.Errorf("the loopback device is not up: %v", err)
	}
	if _, err := m.try(step); err == nil || !errors.Is(err, os.ErrExist) {
		t.Errorf("a namespace is made twice: %v", err)
	}
	if _, err := m.try(plan.Step{Op: plan.Delete, ID: id, Inode: done.Inode + 1}); err == nil || read() == nil {
		t.Errorf("another namespace of the name is deleted: %v", err)
	}
	m.create(model.LinkID(model.NewRef(name, "x")), "bridge", model.Fields{"type": "bridge"}) // opens the namespace
	m.remove(o)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	m.remove(o)
}

// A namespace that is deleted while this process had steps in it is gone, and not kept by an open socket, from the next Read on.
func TestNothingKeepsANamespace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	name := m.netns() + "-x"
	t.Cleanup(func() { setup.DeleteNamespace(name) })
	m.do(plan.Step{Op: plan.Create, ID: model.NetnsID(name)})
	m.link("a0", "veth", model.Fields{"peer": model.Link(model.NewRef(name, "b0"))})
	m.set(model.LinkID(model.NewRef(name, "b0")), "veth", model.Fields{"up": "no"}, model.Fields{"up": "yes"})
	if err := setup.DeleteNamespace(name); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, "the veth to go with the namespace", func() bool { return m.read().Objects[model.LinkID("a0")] == nil })
}

func TestOnlyWhatIsMeantIsDeleted(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.home.Shell("ip", "link", "add", "theirs", "type", "bridge")
	theirs := m.object(model.LinkID("theirs"))
	m.wantError("a device of somebody else", plan.Step{Op: plan.Delete, ID: theirs.ID, Index: theirs.Index, Inode: theirs.Inode},
		"delete link theirs: it is in group 0, so culvert did not make it: refused")
	m.link("br0", "bridge", nil)
	br0 := m.object(model.LinkID("br0"))
	m.wantError("another index", plan.Step{Op: plan.Delete, ID: br0.ID, Index: br0.Index + 1, Inode: br0.Inode},
		fmt.Sprintf("delete link br0: br0 has index %d and not %d: it is another one by now: stale file handle", br0.Index, br0.Index+1))
	m.wantError("another namespace", plan.Step{Op: plan.Delete, ID: br0.ID, Index: br0.Index, Inode: br0.Inode + 1},
		`delete link br0: the namespace "" is another one than before: stale file handle`)
	m.wantError("a change of another", plan.Step{Op: plan.Change, ID: br0.ID, Index: br0.Index + 1,
		Changes: []plan.FieldChange{{Field: "mtu", Old: "1500", New: "1400"}}}, "change link br0: br0 has index...")

	m.home.Shell("tc", "qdisc", "add", "dev", "br0", "root", "handle", "9:", "htb", "default", "1")
	m.wantError("a queueing discipline of somebody else", plan.Step{Op: plan.Delete, ID: model.QdiscID("br0", "root"),
		Fields: model.Fields{"handle": "6376:"}}, "delete qdisc br0 root: there is htb 9:: stale file handle")
	m.wantError("one where another is", plan.Step{Op: plan.Create, ID: model.QdiscID("br0", "root"), Type: "tbf", Fields: model.Fields{"kind": "tbf",
		"handle": "6376:", "rate": "1mbit", "burst": "10k", "limit": "10k"}}, "create qdisc br0 root: file exists: ...")
	if o := m.object(model.QdiscID("br0", "root")); o.Ours {
		t.Error("somebody else's queueing discipline is read as culvert's")
	}

	m.link("ifb-a", "ifb", nil)
	m.create(model.QdiscID("br0", "ingress"), "ingress", model.Fields{"kind": "ingress"})
	m.home.Shell("tc", "filter", "add", "dev", "br0", "parent", "ffff:", "prio", "25462", "protocol", "all", "u32", "match", "u32", "0", "0",
		"action", "mirred", "egress", "redirect", "dev", "ifb-a")
	filter := model.FilterID("br0", "ingress", "25462")
	if o := m.want(filter, model.Fields{"kind": "u32", "redirect": "ifb-a"}); o.Ours {
		t.Error("somebody else's redirect is read as culvert's")
	}
	m.wantError("a redirect of somebody else", plan.Step{Op: plan.Delete, ID: filter, Fields: model.Fields{"handle": "800::800"}},
		"delete filter br0 ingress: culvert did not make it: refused")
	m.wantError("an ingress with it", plan.Step{Op: plan.Delete, ID: model.QdiscID("br0", "ingress"), Fields: model.Fields{"handle": "ffff:"}},
		"delete qdisc br0 ingress: it has a classifier that culvert did not make: device or resource busy")

	m.home.Shell("ip", "route", "add", "blackhole", "10.5.0.0/16", "table", "77")
	m.do(plan.Step{Op: plan.Delete, ID: model.RouteID("", "77", "10.5.0.0/16", "0"), Fields: model.Fields{"type": "blackhole"}})
	if o := m.object(model.RouteID("", "77", "10.5.0.0/16", "0")); o.Ours {
		t.Error("somebody else's route is read as culvert's")
	}
	m.home.Shell("ip", "rule", "add", "priority", "77", "from", "10.0.0.0/8", "lookup", "77")
	rule := model.RuleID("", "4", "77")
	m.do(plan.Step{Op: plan.Delete, ID: rule, Fields: model.Fields{"from": "10.0.0.0/8", "table": "77", "action": "lookup"}})
	if o := m.object(rule); o.Ours {
		t.Error("somebody else's rule is read as culvert's")
	}
	m.wantError("a table of another name", plan.Step{Op: plan.Delete, ID: model.NATID("", "filter")},
		`delete nat filter: the name of a table does not begin with "culvert": refused`)
}

// A port that somebody moved to another master stays there.
func TestDetachedFromItsMasterOnly(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.link("br0", "bridge", nil)
	m.link("br1", "bridge", nil)
	m.link("p0", "tap", nil)
	id := model.AttachmentID("p0")
	m.create(id, "bridge", model.Fields{"master": "br0"})
	o := m.object(id)
	m.home.Shell("ip", "link", "set", "p0", "master", "br1")
	m.remove(o)
	m.want(id, model.Fields{"master": "br1"})
	m.wantError("a port of another", plan.Step{Op: plan.Create, ID: id, Type: "bridge", Fields: model.Fields{"master": "br0"}},
		"create attachment p0: it is a port of the link with index...")
}

// A step that fails on the way leaves nothing of what it did.
func TestFailedStepsLeaveNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	withParent(m)
	long := strings.Repeat("x", 300) // longer than an alias can be
	m.wantError("alias", plan.Step{Op: plan.Create, ID: model.LinkID("br0"), Type: "bridge", Alias: long}, "create link br0: alias: ...")
	m.wantError("alias of a tap", plan.Step{Op: plan.Create, ID: model.LinkID("tap0"), Type: "tap", Alias: long}, "create link tap0: alias: ...")
	m.wantError("alias of a peer", plan.Step{Op: plan.Create, ID: model.LinkID("v0"), Type: "veth", PeerAlias: long,
		Fields: model.Fields{"peer": model.Link(m.ref("other/v1"))}}, "create link v0: alias: ...")
	m.wantError("macs without mode source", plan.Step{Op: plan.Create, ID: model.LinkID("m0"), Type: "macvlan", Fields: model.Fields{"parent": "eth0",
		"mode": "bridge", "macs": "02:00:00:00:00:01"}}, "create link m0: macs: invalid argument")
	m.wantError("macs that are none", plan.Step{Op: plan.Create, ID: model.LinkID("m0"), Type: "macvlan", Fields: model.Fields{"parent": "eth0",
		"mode": "source", "macs": "x"}}, "create link m0: macs: ...")
	m.wantError("MTU", plan.Step{Op: plan.Create, ID: model.LinkID("v0"), Type: "veth", Fields: model.Fields{"peer": "v1", "mtu": "70000"}},
		"create link v0: ...")
	m.wantError("parent", plan.Step{Op: plan.Create, ID: model.LinkID("m0"), Type: "macvlan", Fields: model.Fields{"parent": "eth9"}},
		"create link m0: its parent eth9: no such device")
	m.wantError("peer's namespace", plan.Step{Op: plan.Create, ID: model.LinkID("v0"), Type: "veth", Fields: model.Fields{"peer": "none/v1"}},
		`create link v0: peer: namespace "none": no such file or directory`)
	m.wantError("name", plan.Step{Op: plan.Create, ID: model.LinkID("sixteen-bytes-it"), Type: "tap"},
		"create link sixteen-bytes-it: a device name has at most 15 bytes, this one has 16")
	m.wantError("namespace", plan.Step{Op: plan.Create, ID: model.LinkID("none/x"), Type: "tap"},
		`create link none/x: namespace "none": no such file or directory`)

	m.link("br0", "bridge", model.Fields{"mac": "02:00:00:00:00:01"}) // without one it changes with its ports
	m.link("p0", "tap", nil)
	m.wantError("settings of a port", plan.Step{Op: plan.Create, ID: model.AttachmentID("p0"), Type: "bridge", Fields: model.Fields{"master": "br0",
		"cost": "7", "priority": "64"}}, "create attachment p0: ...")
	// The first change is taken back with the second refused.
	m.wantError("changes", plan.Step{Op: plan.Change, ID: model.LinkID("br0"), Type: "bridge", Changes: []plan.FieldChange{
		{Field: "ageing_time", Old: "5m0s", New: "10s"}, {Field: "priority", Old: "32768", New: "4096"}, {Field: "mtu", Old: "1500", New: "1"},
	}}, "change link br0 mtu from 1500 to 1: invalid argument: mtu less than device minimum")
	m.wantError("changes", plan.Step{Op: plan.Change, ID: model.LinkID("br0"), Type: "bridge", Alias: long, Changes: []plan.FieldChange{
		{Field: "up", Old: "no", New: "yes"}, {Field: "ageing_time", Old: "5m0s", New: "10s"}}}, "change link br0: alias: ...")
	m.wantError("a field that cannot be changed", plan.Step{Op: plan.Change, ID: model.LinkID("p0"), Type: "tap", Changes: []plan.FieldChange{
		{Field: "vnet_hdr", Old: "no", New: "yes"}}}, "change link p0 vnet_hdr from no to yes: a tap's vnet_hdr cannot be changed: refused")
}

// Somebody else's things that are put back carry no mark.
func TestForeignIsUnmarked(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	withVeth(m)
	for id, fields := range map[model.ID]model.Fields{
		model.AddressID("a0", "10.1.2.3/24"):         {},
		model.RouteID("", "254", "10.9.0.0/16", "5"): {"type": "unicast", "link": "a0"},
		model.RuleID("", "4", "100"):                 {"from": "10.0.0.0/8", "table": "77", "action": "lookup"},
		model.LinkID("br0"):                          {"type": "bridge"},
	} {
		m.do(plan.Step{Op: plan.Create, ID: id, Type: "bridge", Fields: fields, Foreign: true})
		if o := m.want(id, fields); o.Ours || o.Group != 0 {
			t.Errorf("%s carries a mark: %+v", id, o)
		}
	}
}

// Persistence can be given up and taken.
func TestPersist(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.link("t0", "tap", model.Fields{"multi_queue": "yes", "vnet_hdr": "yes"})
	id := model.LinkID("t0")
	// Somebody has it open, so that it stays.
	fd := -1
	m.home.Must(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq("t0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	t.Cleanup(func() { unix.Close(fd) })
	m.set(id, "tap", model.Fields{"persist": "yes"}, model.Fields{"persist": "no"})
	m.want(id, model.Fields{"persist": "no", "multi_queue": "yes", "vnet_hdr": "yes"})
	m.set(id, "tap", model.Fields{"persist": "no"}, model.Fields{"persist": "yes"})
	m.want(id, model.Fields{"persist": "yes"})
}

// The order in which changes that depend on each other are given does not matter.
func TestBondDelaysFollowMiimon(t *testing.T) {
	t.Parallel()
	needGuest(t)
	m := newMachine(t)
	m.link("b0", "bond", model.Fields{"mode": "active-backup", "miimon": "100ms", "updelay": "200ms"})
	m.do(plan.Step{Op: plan.Change, ID: model.LinkID("b0"), Type: "bond", Changes: []plan.FieldChange{
		{Field: "downdelay", Old: "0s", New: "150ms"}, {Field: "miimon", Old: "100ms", New: "50ms"}, {Field: "updelay", Old: "200ms", New: "250ms"}}})
	m.want(model.LinkID("b0"), model.Fields{"miimon": "50ms", "updelay": "250ms", "downdelay": "150ms"})
	// From one way of watching to the other.
	m.set(model.LinkID("b0"), "bond", model.Fields{"miimon": "50ms", "arp_interval": "0s", "updelay": "250ms", "downdelay": "150ms"},
		model.Fields{"miimon": "0s", "arp_interval": "200ms", "updelay": "0s", "downdelay": "0s"})
	m.want(model.LinkID("b0"), model.Fields{"miimon": "0s", "arp_interval": "200ms"})
}

// needGuest skips what only the guest can do.
func needGuest(t *testing.T) {
	t.Helper()
	if !isGuest() {
		t.Skip("runs in the guest of TestOnDebianKernel")
	}
}

func TestBondPrimary(t *testing.T) {
	t.Parallel()
	needGuest(t)
	m := newMachine(t)
	m.link("b0", "bond", model.Fields{"mode": "active-backup", "miimon": "50ms", "mac": "02:00:00:00:00:71"})
	for _, p := range []string{"p0", "p1"} {
		m.link(p, "veth", model.Fields{"peer": model.Text(p + "x")})
		m.up(p + "x")
		if p == "p1" {
			m.up(p) // also a port that is up can be taken
		}
		m.create(model.AttachmentID(model.Ref(p)), "bond", model.Fields{"master": "b0"})
	}
	id := model.LinkID("b0")
	for _, p := range []model.Value{"p0", "p1", ""} {
		old := m.object(id).Fields["primary"]
		m.set(id, "bond", model.Fields{"primary": old}, model.Fields{"primary": p})
		m.want(id, model.Fields{"primary": p})
	}
	m.wantError("a port that is none", plan.Step{Op: plan.Change, ID: id, Type: "bond", Changes: []plan.FieldChange{{Field: "primary", New: "p9"}}},
		"change link b0 primary from nothing to p9: port p9: no such device")
	m.wantError("while it is up", plan.Step{Op: plan.Change, ID: id, Type: "bond", Changes: []plan.FieldChange{
		{Field: "mode", Old: "active-backup", New: "802.3ad"}}}, "change link b0 mode from active-backup to 802.3ad: ...")
	// Its address is what was declared, though the kernel gives one by chance to a bond that loses its ports.
	for _, p := range []model.Ref{"p0", "p1"} {
		m.remove(m.object(model.AttachmentID(p)))
	}
	m.want(id, model.Fields{"mac": "02:00:00:00:00:71"})
	m.want(model.LinkID("p1"), model.Fields{"up": "yes"})
}

// Who has no right to is told so.
func TestWithoutPrivilege(t *testing.T) {
	if os.Geteuid() == 0 {
		// The program itself, whose folder nobody else may look into.
		c := exec.Command("/proc/self/exe", "-test.run=^TestWithoutPrivilege$", "-test.v")
		c.Dir, c.Env = "/", append(os.Environ(), "TMPDIR=/tmp", "GOCOVERDIR=")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutPrivilege") {
			t.Errorf("as an ordinary user: %v\n%s", err, out)
		}
		return
	}
	k := kernel.New("")
	defer k.Close()
	_, err := k.Do(t.Context(), &plan.Step{Op: plan.Create, ID: model.LinkID("cv-no"), Type: "bridge", Fields: model.Fields{}})
	if err == nil || !strings.Contains(err.Error(), "run as root") {
		t.Errorf("%v, want the rights named", err)
	}
	if _, err := k.Read(t.Context(), model.Scope{Netns: []string{""}}); err != nil {
		t.Errorf("reading takes no right: %v", err)
	}
}

// What is declared of a device that is somebody else's is set, and set back; it stays unmarked.
func TestExternalLink(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.home.Shell("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	m.home.Shell("ip", "link", "set", "eth0", "alias", "of the administrator", "group", "7")
	before := m.read()
	id := model.LinkID("eth0")
	old := before.Objects[id].Fields
	set := model.Fields{"mtu": "1400", "mac": "02:00:00:00:00:99", "txqueuelen": "5", "up": "yes"}
	m.set(id, "veth", old, set)
	if o := m.want(id, set); o.Group != 7 || o.Alias != "of the administrator" {
		t.Errorf("group %d alias %q", o.Group, o.Alias)
	}
	back := model.Fields{}
	for f := range set {
		back[f] = old[f]
	}
	m.set(id, "veth", set, back)
	m.same("after setting back", before, m.read())
}

// The driver of ifb makes two devices by itself, which are nobody's to take.
func TestIfbOfTheDriver(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.home.Shell("ip", "link", "add", "ifb0", "type", "ifb")
	m.wantError("ifb0", plan.Step{Op: plan.Create, ID: model.LinkID("ifb0"), Type: "ifb", Fields: model.Fields{}},
		"create link ifb0: file exists (the driver makes ifb0 and ifb1 by itself when it is loaded: choose another name, or say external: true)")
}
