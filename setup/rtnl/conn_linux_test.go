package rtnl_test

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/internal/lab"
	"culvert/setup/rtnl"
)

func TestMain(m *testing.M) { lab.Main(m) }

// open opens a socket in a host's namespace.
func open(t *testing.T, h *lab.Host) *rtnl.Conn {
	t.Helper()
	f, err := os.Open(h.NetnsPath())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := rtnl.OpenAt(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func head(index byte) []byte { return []byte{0, 0, 0, 0, index, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} }

func TestConn(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	c := open(t, h)
	// A socket of the host's namespace, which has the loopback device alone.
	messages, err := c.Dump(unix.RTM_GETLINK, head(0))
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d links, %v", len(messages), err)
	}
	lo, err := c.Get(unix.RTM_GETLINK, head(1))
	if err != nil || rtnl.Text(rtnl.Parse(lo[16:])[unix.IFLA_IFNAME]) != "lo" {
		t.Errorf("link 1: %v", err)
	}
	if _, err := c.Get(unix.RTM_GETLINK, head(99)); !errors.Is(err, unix.ENODEV) {
		t.Errorf("link 99: %v, want ENODEV", err)
	}
	// The kernel's own words come along.
	var a rtnl.Attributes
	a.Raw(head(1))
	a.Uint32(unix.IFLA_MTU, 1<<31)
	err = c.Do(unix.RTM_NEWLINK, 0, a.Bytes())
	refusal, ok := errors.AsType[*rtnl.Refusal](err)
	if !ok || refusal.Errno != unix.EINVAL || refusal.Text == "" || err.Error() != "invalid argument: "+refusal.Text {
		t.Errorf("%v, want the kernel's words", err)
	}
}

// Several may use one socket.
func TestConnIsShared(t *testing.T) {
	t.Parallel()
	c := open(t, lab.NewHost(t, "a"))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				if m, err := c.Dump(unix.RTM_GETLINK, head(0)); err != nil || len(m) != 1 {
					t.Errorf("%d links, %v", len(m), err)
					return
				}
				if _, err := c.Get(unix.RTM_GETLINK, head(77)); !errors.Is(err, unix.ENODEV) {
					t.Errorf("link 77: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
}

// Redirects are told from what others put there.
func TestFilters(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	c := open(t, h)
	tc := func(args ...string) { t.Helper(); h.Shell("tc", args...) }
	h.Shell("ip", "link", "add", "br0", "type", "bridge")
	h.Shell("ip", "link", "add", "br1", "type", "bridge")
	index := func(name string) int {
		t.Helper()
		var a rtnl.Attributes
		a.Raw(head(0))
		a.String(unix.IFLA_IFNAME, name)
		b, err := c.Get(unix.RTM_GETLINK, a.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return int(rtnl.Uint(b[4:8]))
	}
	from, to := index("br0"), index("br1")
	if list, err := rtnl.Filters(c, from); err != nil || len(list) != 0 {
		t.Errorf("without an ingress there are %v, %v", list, err)
	}
	if err := rtnl.AddIngress(c, from); err != nil {
		t.Fatal(err)
	}
	if err := rtnl.AddIngress(c, from); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a second ingress: %v", err)
	}
	mine := rtnl.Redirect{Priority: 3, Handle: 0x80000800, To: to, Cookie: []byte("x")}
	if err := rtnl.AddRedirect(c, from, mine); err != nil {
		t.Fatal(err)
	}
	if err := rtnl.AddRedirect(c, from, mine); err == nil {
		t.Error("a redirect is doubled")
	}
	tc("filter", "add", "dev", "br0", "parent", "ffff:", "prio", "4", "protocol", "ip", "u32", "match", "u32", "0", "0", "action", "mirred",
		"egress", "redirect", "dev", "br1")
	tc("filter", "add", "dev", "br0", "parent", "ffff:", "prio", "5", "protocol", "all", "u32", "match", "ip", "src", "10.0.0.0/8", "action",
		"mirred", "egress", "mirror", "dev", "br1")
	tc("filter", "add", "dev", "br0", "parent", "ffff:", "prio", "6", "protocol", "all", "u32", "match", "ip", "src", "10.0.0.0/8", "action",
		"mirred", "egress", "redirect", "dev", "br1")
	list, err := rtnl.Filters(c, from)
	if err != nil || len(list) != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, want := range []struct{ redirect, everything bool }{{true, true}, {true, false}, {false, false}, {true, false}} {
		f := list[i]
		if (f.Redirect != nil) != want.redirect || f.Redirect != nil && f.Redirect.Everything != want.everything {
			t.Errorf("filter of priority %d: %+v", f.Priority, f.Redirect)
		}
	}
	if r := list[0].Redirect; string(r.Cookie) != "x" || r.To != to || r.Handle != mine.Handle || r.Priority != 3 {
		t.Errorf("%+v, want %+v", r, mine)
	}
	if err := rtnl.DelRedirect(c, from, mine); err != nil {
		t.Fatal(err)
	}
	if list, err := rtnl.Redirects(c, from); err != nil || len(list) != 2 {
		t.Errorf("%d redirects are left, %v", len(list), err)
	}
	if err := rtnl.DelIngress(c, from); err != nil {
		t.Fatal(err)
	}
}
