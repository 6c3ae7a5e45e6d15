package resolver

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/plan"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/></policy></busconfig>
`

// startBus runs a D-Bus daemon of the test's own, and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	lab.NeedProgram(t, "dbus-daemon")
	dir, err := os.MkdirTemp("", "bus") // sockets' paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, fmt.Appendf(nil, busConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+file, "--nofork", "--nopidfile", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// fakeResolved is systemd-resolved as far as links go.
type fakeResolved struct {
	t    *testing.T
	conn *dbus.Conn

	mu     sync.Mutex
	links  map[int32]*fakeLink
	calls  []string
	refuse string // a method
}

type fakeLink struct {
	dns   []linkDNS
	names []linkDomain
	all   bool
}

func startResolved(t *testing.T, address string, links ...int32) *fakeResolved {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := &fakeResolved{t: t, conn: conn, links: map[int32]*fakeLink{}}
	for _, i := range links {
		f.links[i] = &fakeLink{dns: []linkDNS{}, names: []linkDomain{}}
		if err := conn.Export(properties{f, i}, f.path(i), "org.freedesktop.DBus.Properties"); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Export(manager{f}, managerPath, managerName); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(busName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return f
}

func (f *fakeResolved) path(i int32) dbus.ObjectPath {
	return dbus.ObjectPath(fmt.Sprintf("%s/link/_%d", managerPath, i))
}

// call notes a call, and changes what it is about.
func (f *fakeResolved) call(method string, i int32, change func(*fakeLink)) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, method)
	if f.refuse == method {
		return dbus.MakeFailedError(errNone)
	}
	l := f.links[i]
	if l == nil {
		return dbus.NewError(busName+".NoSuchLink", []any{"Link not known"})
	}
	change(l)
	return nil
}

func (f *fakeResolved) refusing(method string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = method
}

func (f *fakeResolved) has(i int32) (l fakeLink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.links[i]
}

// properties are those of a link.
type properties struct {
	f *fakeResolved
	i int32
}

func (p properties) Get(of, name string) (dbus.Variant, *dbus.Error) {
	l := p.f.has(p.i)
	switch of + " " + name {
	case linkName + " DNS":
		return dbus.MakeVariant(slices.Clone(l.dns)), nil
	case linkName + " Domains":
		return dbus.MakeVariant(slices.Clone(l.names)), nil
	}
	return dbus.Variant{}, dbus.MakeFailedError(errNone)
}

// manager is what is exported of it.
type manager struct{ f *fakeResolved }

func (m manager) GetLink(i int32) (dbus.ObjectPath, *dbus.Error) {
	return m.f.path(i), m.f.call("GetLink", i, func(*fakeLink) {})
}

func (m manager) SetLinkDNS(i int32, list []linkDNS) *dbus.Error {
	return m.f.call("SetLinkDNS", i, func(l *fakeLink) { l.dns = list })
}

func (m manager) SetLinkDomains(i int32, list []linkDomain) *dbus.Error {
	return m.f.call("SetLinkDomains", i, func(l *fakeLink) { l.names = list })
}

func (m manager) SetLinkDefaultRoute(i int32, all bool) *dbus.Error {
	return m.f.call("SetLinkDefaultRoute", i, func(l *fakeLink) { l.all = all })
}

func (m manager) RevertLink(i int32) *dbus.Error {
	return m.f.call("RevertLink", i, func(l *fakeLink) { l.dns, l.names, l.all = []linkDNS{}, []linkDomain{}, false })
}

func (m manager) FlushCaches() *dbus.Error { return nil }

const stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n"

func TestResolved(t *testing.T) {
	m := newMachine(t)
	m.bus = startBus(t)
	m.withResolvconf()
	m.write("etc/resolv.conf", stub)
	m.write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.53\nnameserver 10.8.0.53\n")
	f := startResolved(t, m.bus, 7)
	m.must(plan.Create, vpn, whole)
	m.inForce(vpn, "resolved", whole)
	l := f.has(7)
	want := []linkDNS{{2, []byte{10, 8, 0, 53}}, {10, netip.MustParseAddr("fd08::53").AsSlice()}}
	if !slices.EqualFunc(l.dns, want, func(a, b linkDNS) bool { return a.Family == b.Family && slices.Equal(a.Address, b.Address) }) ||
		!slices.Equal(l.names, []linkDomain{{"corp.example", false}, {".", true}}) || !l.all {
		t.Errorf("the link has %+v", l)
	}
	if got := m.Underlay(); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.53")}) {
		t.Errorf("servers of the underlay: %v", got)
	}
	m.start("net")
	m.must(plan.Change, vpn, nil, changes(whole, some)...)
	m.inForce(vpn, "resolved", some)
	if l := f.has(7); l.all || !slices.Equal(l.names, []linkDomain{{"corp.example", false}, {"lab.example", true}}) {
		t.Errorf("the link has %+v", l)
	}
	// What somebody else has told it is seen.
	if err := (manager{f}).SetLinkDNS(7, []linkDNS{}); err != nil {
		t.Fatal(err)
	}
	if o := m.found(vpn); o == nil || o.Fields["servers"] != "" || o.Fields["domains"] != some["domains"] {
		t.Errorf("%+v", o)
	}
	m.must(plan.Delete, vpn, nil)
	if l := f.has(7); len(l.dns)+len(l.names) > 0 || l.all {
		t.Errorf("the link has %+v", l)
	}
	if m.text("etc/resolv.conf") != stub || m.text("calls") != "" {
		t.Error("another way was taken as well")
	}
	m.clean()
	// The link is gone with its daemon, which was killed: so is what was told, but for the record.
	m.must(plan.Create, vpn, whole)
	delete(m.links, "vpn0")
	if o := m.found(vpn); o == nil || o.Fields["servers"] != "" || o.Fields["domains"] != "" {
		t.Errorf("%+v", o)
	}
	m.must(plan.Delete, vpn, nil)
	m.clean()
	m.links["vpn0"] = 7
	denied := refusedBy("SetLinkDNS", dbus.Error{Name: "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"})
	if other := refusedBy("SetLinkDNS", errNone); !strings.Contains(denied.Error(), "culvert.rules") || strings.Contains(other.Error(), "culvert.rules") {
		t.Errorf("%v; %v", denied, other)
	}
	for _, method := range []string{"SetLinkDNS", "SetLinkDomains", "SetLinkDefaultRoute"} {
		f.refusing(method)
		if err := m.do(plan.Create, vpn, whole); err == nil || !strings.Contains(err.Error(), method) {
			t.Errorf("%s fails: %v", method, err)
		}
		m.clean()
	}
}

// It is not told where nobody asks it, or it does not run.
func TestResolvedUnused(t *testing.T) {
	m := newMachine(t)
	m.bus = startBus(t)
	m.write("etc/resolv.conf", stub)
	if by := m.choose(t.Context(), vpn.Link()); by != byFile {
		t.Errorf("without it: %s", by)
	}
	startResolved(t, m.bus, 7)
	for _, c := range []struct{ conf, nsswitch, by string }{
		{stub, "", byResolved},
		{before, "", byFile},
		{before, "hosts: files dns # resolve\n", byFile},
		{before, "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n", byResolved},
	} {
		m.write("etc/resolv.conf", c.conf)
		m.write("etc/nsswitch.conf", c.nsswitch)
		if by := m.choose(t.Context(), vpn.Link()); by != c.by {
			t.Errorf("resolv.conf %q, nsswitch.conf %q: %s, want %s", c.conf, c.nsswitch, by, c.by)
		}
	}
	m.write("etc/nsswitch.conf", "")
	m.write("run/systemd/resolve/stub-resolv.conf", before)
	path := filepath.Join(m.root, "etc/resolv.conf")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../run/systemd/resolve/stub-resolv.conf", path); err != nil {
		t.Fatal(err)
	}
	if by := m.choose(t.Context(), vpn.Link()); by != byResolved {
		t.Errorf("a link to its file: %s", by)
	}
	m.apart = true
	if by := m.choose(t.Context(), vpn.Link()); by != byFile {
		t.Errorf("in a namespace apart: %s", by)
	}
	m.apart = false
	if by := m.choose(t.Context(), model.NewRef("ns1", "vpn0")); by != byFile {
		t.Errorf("for a namespace: %s", by)
	}
	m.bus = ""
	forced := model.Fields{"servers": "10.8.0.53", "domains": "~.", "resolver": "resolved"}
	if err := m.do(plan.Create, vpn, forced); err == nil || !strings.Contains(err.Error(), "D-Bus") {
		t.Errorf("%v", err)
	}
	m.clean()
}
