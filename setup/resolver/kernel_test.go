package resolver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// machine is a folder with etc and run, and what resolves names there.
type machine struct {
	*testing.T
	root, dir string
	bus       string // address of its D-Bus; "" where there is none
	resolver  bool   // there is a program resolvconf
	links     map[string]int
	apart     bool
	first     string // root folder of the first process
	*Kernel
}

var errNone = errors.New("there is none")

func newMachine(t *testing.T) *machine {
	m := &machine{T: t, first: "/", root: t.TempDir(), dir: filepath.Join(t.TempDir(), "state/net"), links: map[string]int{"vpn0": 7}}
	for _, dir := range []string{"etc", "run", "bin"} {
		if err := os.Mkdir(filepath.Join(m.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.start("net")
	return m
}

// start is what another process of an instance begins with.
func (m *machine) start(instance string) {
	m.Kernel = New(Options{Instance: instance, Dir: m.dir, Root: m.root, First: m.first, Apart: func() bool { return m.apart },
		Index: func(netns, link string) (int, error) {
			if i := m.links[netns+link]; i != 0 {
				return i, nil
			}
			return 0, errNone
		},
		Bus: func(ctx context.Context) (*dbus.Conn, error) {
			if m.bus == "" {
				return nil, errNone
			}
			return dbus.Connect(m.bus, dbus.WithContext(ctx))
		},
		Program: func(string) (string, error) {
			if !m.resolver {
				return "", errNone
			}
			return filepath.Join(m.root, "bin/resolvconf"), nil
		}})
}

func (m *machine) write(name, text string) {
	m.Helper()
	path := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) text(name string) string {
	m.Helper()
	b, err := os.ReadFile(filepath.Join(m.root, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Fatal(err)
	}
	return string(b)
}

func (m *machine) do(op plan.Op, id model.ID, fields model.Fields, changes ...plan.FieldChange) error {
	_, err := m.Do(m.Context(), &plan.Step{Op: op, ID: id, Fields: fields, Changes: changes})
	return err
}

func (m *machine) must(op plan.Op, id model.ID, fields model.Fields, changes ...plan.FieldChange) {
	m.Helper()
	if err := m.do(op, id, fields, changes...); err != nil {
		m.Fatal(err)
	}
}

// found is what is there of a tunnel, nil where nothing is.
func (m *machine) found(id model.ID) *model.Object {
	m.Helper()
	s, err := m.Read(m.Context(), model.Scope{})
	if err != nil {
		m.Fatal(err)
	}
	return s.Objects[id]
}

// inForce demands that a tunnel's servers are told, in a way.
func (m *machine) inForce(id model.ID, by string, fields model.Fields) {
	m.Helper()
	o := m.found(id)
	if o == nil || !o.Ours || o.Taken != "" || o.Fields["resolver"] != model.Value(by) || o.Fields["servers"] != fields["servers"] ||
		o.Fields["domains"] != fields["domains"] {
		m.Errorf("found %+v, want %v by %s", o, fields, by)
	}
}

// clean demands that nothing is kept.
func (m *machine) clean() {
	m.Helper()
	if entries, _ := os.ReadDir(m.dir); len(entries) != 0 {
		m.Errorf("the state folder holds %v", entries)
	}
	for _, pattern := range []string{"etc/.*", "etc/*culvert*", "etc/netns/*/.*"} {
		if left, _ := filepath.Glob(filepath.Join(m.root, pattern)); len(left) > 0 {
			m.Errorf("left behind: %v", left)
		}
	}
}

var (
	vpn   = model.DNSID("vpn0")
	whole = model.Fields{"servers": "10.8.0.53 fd08::53", "domains": "corp.example ~."}
	some  = model.Fields{"servers": "10.8.0.53", "domains": "corp.example ~lab.example"}
)

// changes lead from one to the other.
func changes(from, to model.Fields) (list []plan.FieldChange) {
	for _, f := range []model.Field{"domains", "servers"} {
		if from[f] != to[f] {
			list = append(list, plan.FieldChange{Field: f, Old: from[f], New: to[f]})
		}
	}
	return list
}

const before = "# the administrator's\nnameserver 192.0.2.53\noptions edns0 trust-ad\n"

// TestFile: whatever the file was, it is replaced, and comes back just so, whichever process puts it back.
func TestFile(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(m *machine, path string) error
		check func(path string) error
	}{
		"plain": {
			func(m *machine, path string) error {
				m.write("etc/resolv.conf", before)
				return errors.Join(os.Chmod(path, 0o640), os.Chown(path, os.Getuid(), os.Getgid()))
			},
			func(path string) error {
				info, err := os.Lstat(path)
				if err == nil && info.Mode() != 0o640 {
					err = fmt.Errorf("its mode is %v", info.Mode())
				}
				return err
			},
		},
		"link": {
			func(m *machine, path string) error {
				m.write("run/net/resolv.conf", before)
				return os.Symlink("../run/net/resolv.conf", path)
			},
			func(path string) error {
				if to, err := os.Readlink(path); err != nil || to != "../run/net/resolv.conf" {
					return fmt.Errorf("it leads to %q, %v", to, err)
				}
				return nil
			},
		},
		"link to nothing": {
			func(_ *machine, path string) error { return os.Symlink("/nowhere/resolv.conf", path) },
			func(path string) error { _, err := os.Readlink(path); return err },
		},
		"none": {
			func(*machine, string) error { return nil },
			func(path string) error {
				if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("it is there: %v", err)
				}
				return nil
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			path := filepath.Join(m.root, "etc/resolv.conf")
			if err := c.make(m, path); err != nil {
				t.Fatal(err)
			}
			original := m.text("etc/resolv.conf")
			m.must(plan.Create, vpn, whole)
			m.inForce(vpn, "file", whole)
			text := m.text("etc/resolv.conf")
			if want := "nameserver 10.8.0.53\nnameserver fd08::53\nsearch corp.example\n"; !strings.Contains(text, want) {
				t.Errorf("the file says\n%s", text)
			}
			if strings.Contains(original, "edns0") && !strings.HasSuffix(text, "\noptions edns0\n") {
				t.Errorf("the file says\n%s", text)
			}
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%v, %v", info, err)
			}
			if original != "" {
				if got := m.Underlay(); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.53")}) {
					t.Errorf("servers of the underlay: %v", got)
				}
			}
			if m.do(plan.Create, vpn, whole) == nil {
				t.Error("it can be created twice")
			}
			m.start("net") // as after a crash
			m.must(plan.Change, vpn, nil, changes(whole, some)...)
			m.inForce(vpn, "file", some)
			if text := m.text("etc/resolv.conf"); strings.Contains(text, "fd08") || strings.Contains(text, "lab") {
				t.Errorf("the file says\n%s", text)
			}
			m.start("net")
			m.must(plan.Delete, vpn, nil)
			m.must(plan.Delete, vpn, nil)
			if got := m.text("etc/resolv.conf"); got != original {
				t.Errorf("the original came back as\n%s", got)
			}
			if err := c.check(path); err != nil {
				t.Error(err)
			}
			if m.found(vpn) != nil {
				t.Error("it is still there")
			}
			m.clean()
		})
	}
}

// A file that somebody else has changed meanwhile is taken, and stays as it is.
func TestFileTaken(t *testing.T) {
	m := newMachine(t)
	m.write("etc/resolv.conf", before)
	m.must(plan.Create, vpn, whole)
	const theirs = "nameserver 198.51.100.1\n"
	m.write("etc/resolv.conf", theirs)
	if o := m.found(vpn); o == nil || !strings.Contains(o.Taken, "changed by somebody else") || !strings.Contains(o.Taken, "culvert down net") {
		t.Errorf("%+v", o)
	}
	if err := m.do(plan.Change, vpn, nil, changes(whole, some)...); err == nil || m.text("etc/resolv.conf") != theirs {
		t.Errorf("%v: %q", err, m.text("etc/resolv.conf"))
	}
	m.must(plan.Delete, vpn, nil)
	if got := m.text("etc/resolv.conf"); got != theirs {
		t.Errorf("%q", got)
	}
	m.clean()
	// Put back by somebody else, it is only told again.
	m.write("etc/resolv.conf", before)
	m.must(plan.Create, vpn, whole)
	m.write("etc/resolv.conf", before)
	if o := m.found(vpn); o == nil || o.Taken != "" || o.Fields["servers"] != "" {
		t.Errorf("%+v", o)
	}
	m.must(plan.Change, vpn, nil, changes(model.Fields{}, whole)...)
	m.inForce(vpn, "file", whole)
	// Only one can have it.
	m.links["vpn1"] = 8
	err := m.do(plan.Create, model.DNSID("vpn1"), whole)
	if err == nil || !strings.Contains(err.Error(), "only one tunnel") || !strings.Contains(err.Error(), "culvert down net") {
		t.Errorf("a second tunnel: %v", err)
	}
	m.inForce(vpn, "file", whole)
	m.must(plan.Delete, vpn, nil)
	if m.text("etc/resolv.conf") != before {
		t.Error("the original is lost")
	}
	m.clean()
}

// TestCrash: wherever a process dies between its first and its last write, the next finds the original.
func TestCrash(t *testing.T) {
	for _, dies := range []string{"before the file", "between two texts"} {
		m := newMachine(t)
		m.write("etc/resolv.conf", before)
		m.must(plan.Create, vpn, whole)
		r, err := m.store.find(vpn)
		if err != nil {
			t.Fatal(err)
		}
		if dies == "before the file" {
			m.write("etc/resolv.conf", before)
		} else {
			r.Servers = []string{"10.8.0.54"}
			r.Written = []string{compose("net", "vpn0", r.Servers, r.Domains, before), r.Written[0]}
			if err := m.store.write(r); err != nil {
				t.Fatal(err)
			}
		}
		if o := m.found(vpn); o == nil || o.Taken != "" || o.Fields["servers"] != "" {
			t.Errorf("%s: %+v", dies, o)
		}
		m.start("net")
		m.must(plan.Change, vpn, nil, changes(model.Fields{}, some)...)
		m.inForce(vpn, "file", some)
		m.must(plan.Delete, vpn, nil)
		if m.text("etc/resolv.conf") != before {
			t.Errorf("%s: the original is lost", dies)
		}
		m.clean()
	}
}

// A namespace has its own file, in folders that go again.
func TestNamespace(t *testing.T) {
	m := newMachine(t)
	id := model.DNSID("ns1/vpn0")
	m.write("etc/resolv.conf", before)
	m.resolver = true // knows nothing of namespaces
	m.must(plan.Create, id, whole)
	m.inForce(id, "file", whole)
	if !strings.Contains(m.text("etc/netns/ns1/resolv.conf"), "nameserver 10.8.0.53\n") || m.text("etc/resolv.conf") != before {
		t.Error("not in the namespace's file alone")
	}
	m.must(plan.Delete, id, nil)
	if _, err := os.Lstat(filepath.Join(m.root, "etc/netns")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folders stay: %v", err)
	}
	m.clean()
	// What others have put there stays.
	m.write("etc/netns/ns1/hosts", "x")
	m.must(plan.Create, id, whole)
	m.must(plan.Delete, id, nil)
	if m.text("etc/netns/ns1/hosts") != "x" {
		t.Error("another's file is gone")
	}
}

// In a namespace apart the machine's own file is refused, and one's own used.
func TestApart(t *testing.T) {
	m := newMachine(t)
	m.resolver, m.apart = true, true
	m.write("etc/resolv.conf", before)
	err := m.do(plan.Create, vpn, whole)
	if err == nil || !strings.Contains(err.Error(), "whole machine") || m.text("etc/resolv.conf") != before {
		t.Errorf("%v", err)
	}
	m.clean()
	m.first = t.TempDir()
	m.start("net")
	m.must(plan.Create, vpn, whole)
	m.inForce(vpn, "file", whole)
}

// A file that cannot be written leaves nothing.
func TestFileFails(t *testing.T) {
	m := newMachine(t)
	if err := os.Remove(filepath.Join(m.root, "etc")); err != nil {
		t.Fatal(err)
	}
	m.write("etc", "a file where a folder belongs")
	err := m.do(plan.Create, vpn, whole)
	if !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("%v", err)
	}
	if m.found(vpn) != nil {
		t.Error("it is there")
	}
}

const script = `#!/bin/sh
root=%[1]q
echo "$@" >> $root/calls
case $1 in
-a) mkdir -p $root/run/resolvconf/interfaces && cat > $root/run/resolvconf/interfaces/$2 ;;
-d) rm -f $root/run/resolvconf/interfaces/$2 ;;
esac
`

func (m *machine) withResolvconf() {
	m.resolver = true
	m.write("bin/resolvconf", fmt.Sprintf(script, m.root))
	if err := os.Chmod(filepath.Join(m.root, "bin/resolvconf"), 0o755); err != nil {
		m.Fatal(err)
	}
}

func TestResolvconf(t *testing.T) {
	m := newMachine(t)
	m.withResolvconf()
	m.write("etc/resolv.conf", before)
	m.must(plan.Create, vpn, whole)
	m.inForce(vpn, "resolvconf", whole)
	if got := m.text("run/resolvconf/interfaces/vpn0"); got != "nameserver 10.8.0.53\nnameserver fd08::53\nsearch corp.example\n" {
		t.Errorf("told: %q", got)
	}
	m.must(plan.Change, vpn, nil, changes(whole, some)...)
	m.inForce(vpn, "resolvconf", some)
	if got := m.text("run/resolvconf/interfaces/vpn0"); got != "nameserver 10.8.0.53\nsearch corp.example lab.example\n" {
		t.Errorf("told: %q", got)
	}
	if err := os.Remove(filepath.Join(m.root, "run/resolvconf/interfaces/vpn0")); err != nil { // as after a reboot
		t.Fatal(err)
	}
	if o := m.found(vpn); o == nil || o.Fields["servers"] != "" {
		t.Errorf("%+v", o)
	}
	m.must(plan.Change, vpn, nil, changes(model.Fields{}, whole)...)
	m.inForce(vpn, "resolvconf", whole)
	m.must(plan.Delete, vpn, nil)
	if calls := m.text("calls"); calls != "-a vpn0 -m 0 -x\n-a vpn0 -m 0 -p\n-a vpn0 -m 0 -x\n-d vpn0 -f\n" {
		t.Errorf("calls:\n%s", calls)
	}
	if m.text("etc/resolv.conf") != before {
		t.Error("the file was touched")
	}
	m.clean()
	// Debian's resolvconf orders by the pattern of the interface's name.
	m.write("etc/resolvconf/interface-order", "# comment\nlo.inet*\ntun*\neth*\n")
	m.must(plan.Create, vpn, whole)
	if m.text("run/resolvconf/interfaces/tun.vpn0") == "" {
		t.Error("no prefix")
	}
	m.must(plan.Delete, vpn, nil)
	// A failure leaves nothing.
	m.write("bin/resolvconf", "#!/bin/sh\necho nothing works >&2\nexit 3\n")
	if err := m.do(plan.Create, vpn, whole); err == nil || !strings.Contains(err.Error(), "nothing works") {
		t.Errorf("%v", err)
	}
	if m.found(vpn) != nil {
		t.Error("it is there")
	}
	m.resolver = false
	forced := model.Fields{"servers": "10.8.0.53", "domains": "~.", "resolver": "resolvconf"}
	if err := m.do(plan.Create, vpn, forced); err == nil || !strings.Contains(err.Error(), "apt install openresolv") {
		t.Errorf("%v", err)
	}
	m.clean()
}

// systemd's resolvconf is another way to systemd-resolved, and none without it.
func TestResolvectl(t *testing.T) {
	m := newMachine(t)
	m.resolver = true
	m.write("bin/resolvectl", "#!/bin/sh\nexit 1\n")
	if err := os.Symlink("resolvectl", filepath.Join(m.root, "bin/resolvconf")); err != nil {
		t.Fatal(err)
	}
	m.must(plan.Create, vpn, whole)
	m.inForce(vpn, "file", whole)
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"id":"dns vpn0","by":"file","servers":["10.0.0.1"],"domains":["~."],"path":"/etc/resolv.conf","original":{"missing":true},"written":["x"]}`))
	f.Add([]byte(`{"id":"dns a b","by":"resolved"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		o := r.object()
		if o.ID.Link() == "" {
			t.Errorf("%q is no link's", o.ID)
		}
		if r.By == byFile {
			r.isOurs(r.Original)
		}
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add(before, "10.8.0.53", "corp.example")
	f.Add("nameserver\nnameserver fe80::1%eth0\noptions\noptions trust-ad", "::1", "~.")
	f.Fuzz(func(t *testing.T, text, server, domain string) {
		servers(text)
		a, err := netip.ParseAddr(server)
		if err != nil || strings.ContainsAny(a.Zone(), " \t\r\n\v\f\u0085\u00a0") || strings.ContainsAny(domain, "\n") {
			return
		}
		out := compose("net", "vpn0", []string{a.String()}, []string{domain}, text)
		if got := servers(out); len(got) == 0 || got[0] != a {
			t.Errorf("%q names %v, not %v", out, got, a)
		}
		if writtenFor(out) != "net" {
			t.Errorf("%q is not known", out)
		}
	})
}
