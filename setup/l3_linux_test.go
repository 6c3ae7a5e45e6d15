package setup_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// snapshot is everything Apply may change in a namespace, as the usual tools show it.
func snapshot(t *testing.T, h *lab.Host) string {
	t.Helper()
	var b strings.Builder
	// A device that was up once has its queueing discipline chosen, which setting it down does not take back; and a
	// tun without a reader has no carrier, which the kernel notices when it likes.
	volatile := regexp.MustCompile(` qdisc \S+| state \S+|NO-CARRIER,|,LOWER_UP| (dead )?linkdown`)
	for _, command := range []string{
		"ip -d link", "ip -d addr", "ip -d -4 rule", "ip -d -6 rule", "ip -d -4 route show table all",
		"ip -d -6 route show table all", "nft list ruleset", "cat /proc/sys/net/ipv4/conf/all/src_valid_mark",
	} {
		fields := strings.Fields(command)
		out := h.Shell(fields[0], fields[1:]...)
		fmt.Fprintf(&b, "# %s\n%s", command, volatile.ReplaceAllString(out, ""))
	}
	return b.String()
}

// checkUnchanged compares the namespace with a snapshot.
func checkUnchanged(t *testing.T, h *lab.Host, before string) {
	t.Helper()
	after := snapshot(t, h)
	if after == before {
		return
	}
	t.Error("the namespace differs from before:")
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			t.Errorf("- %s", line)
		}
	}
	for line := range strings.Lines(after) {
		if !strings.Contains(before, line) {
			t.Errorf("+ %s", line)
		}
	}
}

// tunHost is a host with a device wg0 that is down and has no address, as a tunnel makes it.
func tunHost(t *testing.T) *lab.Host {
	t.Helper()
	lab.NeedTun(t)
	lab.NeedProgram(t, "nft")
	h := lab.NewHost(t, "tun")
	addTun(t, h, "wg0")
	return h
}

func addTun(t *testing.T, h *lab.Host, name string) {
	t.Helper()
	h.Must(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN})
	})
}

// apply applies c in the host's namespace and fails the test on an error or an unexpected warning.
func apply(t *testing.T, h *lab.Host, c setup.L3) *setup.Applied {
	t.Helper()
	c.Namespace = h.NetnsPath()
	a, err := setup.Apply(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range a.Warnings {
		t.Errorf("warning: %v", w)
	}
	return a
}

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func routes(list ...string) (rs []setup.Route) {
	for _, p := range prefixes(list...) {
		rs = append(rs, setup.Route{Prefix: p})
	}
	return rs
}

func wantLines(t *testing.T, what, have string, want ...string) {
	t.Helper()
	for _, line := range want {
		if !strings.Contains(have, line) {
			t.Errorf("%s lacks %q:\n%s", what, line, have)
		}
	}
}

func TestApplyAndRemove(t *testing.T) {
	h := tunHost(t)
	before := snapshot(t, h)
	a := apply(t, h, setup.L3{
		Link: "wg0", MTU: 1420,
		Addresses: prefixes("10.20.0.1/24", "10.21.0.1/32", "fd20::1/64"),
		Routes: append(routes("10.30.7.9/16", "10.30.0.0/16", "10.20.0.128/25", "fd30::/48", "fd20::42/128", "192.0.2.1/32"),
			setup.Route{Prefix: netip.MustParsePrefix("10.40.0.0/16"), Table: 700, Metric: 5},
			setup.Route{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Table: 700}),
	})
	if a.Mark != 0 {
		t.Errorf("mark %d without a policy", a.Mark)
	}
	wantLines(t, "link", h.Shell("ip", "addr", "show", "dev", "wg0"), "mtu 1420", ",UP",
		"inet 10.20.0.1/24", "inet 10.21.0.1/32", "inet6 fd20::1/64")
	v4 := h.Shell("ip", "-4", "route", "show", "dev", "wg0")
	wantLines(t, "IPv4 routes", v4, "10.30.0.0/16 scope link", "192.0.2.1 scope link")
	if strings.Contains(v4, "10.20.0.128/25") {
		t.Errorf("a route that a connected one covers was added:\n%s", v4)
	}
	v6 := h.Shell("ip", "-6", "route", "show", "dev", "wg0")
	wantLines(t, "IPv6 routes", v6, "fd30::/48 metric 1024")
	if strings.Contains(v6, "fd20::42") {
		t.Errorf("a route that a connected one covers was added:\n%s", v6)
	}
	wantLines(t, "table 700", h.Shell("ip", "-4", "route", "show", "table", "700"),
		"10.40.0.0/16 dev wg0 scope link metric 5", "default dev wg0 scope link")

	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	checkUnchanged(t, h, before)
	if err := a.Remove(); err != nil {
		t.Errorf("second removal: %v", err)
	}
}

func TestWhatWasThereStays(t *testing.T) {
	h := tunHost(t)
	h.Up("wg0")
	h.AddAddr("wg0", "10.20.0.1/24")
	h.AddRoute("10.50.0.0/16", "", "wg0")
	before := snapshot(t, h)
	a := apply(t, h, setup.L3{Link: "wg0", MTU: 1500, Addresses: prefixes("10.20.0.1/24", "10.20.0.2/24"),
		Routes: routes("10.50.3.0/24", "10.60.0.0/16")})
	if got := h.Shell("ip", "route"); strings.Contains(got, "10.50.3.0") || !strings.Contains(got, "10.60.0.0/16") {
		t.Errorf("routes:\n%s", got)
	}
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	checkUnchanged(t, h, before)
}

// A link's first address of a network goes, and neither another of the same nor somebody else's routes go with it.
func TestFirstAddressGoes(t *testing.T) {
	h := tunHost(t)
	h.Shell("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/wg0/promote_secondaries")
	up := apply(t, h, setup.L3{Link: "wg0"})
	first := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24")})
	h.AddRoute("10.50.0.0/16", "", "wg0")
	apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.2/24")})
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	if out := h.Shell("ip", "addr", "show", "dev", "wg0"); strings.Contains(out, "10.20.0.1/24") {
		t.Errorf("the first address stays:\n%s", out)
	} else {
		wantLines(t, "link", out, "inet 10.20.0.2/24")
	}
	wantLines(t, "routes", h.Shell("ip", "route"), "10.50.0.0/16", "10.20.0.0/24 dev wg0 proto kernel scope link src 10.20.0.2")
	if err := up.Remove(); err != nil {
		t.Fatal(err)
	}
	if out := h.Shell("cat", "/proc/sys/net/ipv4/conf/wg0/promote_secondaries"); out != "0\n" {
		t.Errorf("promote_secondaries is %s", out)
	}
}

func TestDefaultRoutePolicy(t *testing.T) {
	h := tunHost(t)
	before := snapshot(t, h)
	var told uint32
	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24", "fd20::1/64"),
		Routes: routes("0.0.0.0/0", "::/0", "10.30.0.0/16"), SetMark: func(m uint32) error { told = m; return nil }})
	if a.Mark != 51820 || told != 51820 {
		t.Errorf("mark %d, told %d, want 51820", a.Mark, told)
	}
	for _, family := range []string{"-4", "-6"} {
		rules := h.Shell("ip", family, "rule")
		wantLines(t, "rules "+family, rules,
			"32764:\tfrom all lookup main suppress_prefixlength 0", "32765:\tnot from all fwmark 0xca6c lookup 51820")
		wantLines(t, "table 51820", h.Shell("ip", family, "route", "show", "table", "51820"), "default dev wg0")
	}
	wantLines(t, "ruleset", h.Shell("nft", "-p", "list", "ruleset"),
		"table ip culvert-l3-wg0", "table ip6 culvert-l3-wg0",
		`iifname != "wg0" ip daddr 10.20.0.1 fib saddr type != local drop`,
		`iifname != "wg0" ip6 daddr fd20::1 fib saddr type != local drop`,
		"type filter hook prerouting priority raw; policy accept;",
		"type filter hook prerouting priority mangle; policy accept;",
		"type filter hook postrouting priority mangle; policy accept;",
		"meta l4proto 17 meta mark 0x0000ca6c ct mark set meta mark",
		"meta l4proto 17 ct mark 0x0000ca6c meta mark set ct mark")
	wantLines(t, "src_valid_mark", h.Shell("cat", "/proc/sys/net/ipv4/conf/all/src_valid_mark"), "1")
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	checkUnchanged(t, h, before)
}

// TestWhereDatagramsGo sends marked and unmarked datagrams of both families to an address that both the underlay and
// the tunnel lead to, and looks who gets them. The tunnel is a veth pair here, so that its far end can answer.
func TestWhereDatagramsGo(t *testing.T) {
	h, underlay, far := lab.NewHost(t, "host"), lab.NewHost(t, "underlay"), lab.NewHost(t, "far")
	lab.NeedNAT(t) // nftables
	wire := lab.Link(t, h, underlay)
	lab.Link(t, h, far, lab.Names("wg0", "eth0"), lab.Addresses("", ""))
	outside := []string{"203.0.113.9/24", "2001:db8:113::9/64"}
	for _, p := range outside {
		underlay.AddAddr("lo", p)
		far.AddAddr("eth0", p) // neighbour discovery answers for the device's own addresses only
	}
	far.AddRoute("10.20.0.0/24", "", "eth0")
	far.AddRoute("fd20::/64", "", "eth0")
	h.AddRoute("default4", wire.B.V4.Addr().String(), "")
	h.AddRoute("default6", wire.B.V6.Addr().String(), wire.A.Device)
	// A strict reverse path filter is what src_valid_mark and the connection mark are there for.
	h.Sysctl("net/ipv4/conf/all/rp_filter", "1")
	h.Sysctl("net/ipv4/conf/"+wire.A.Device+"/rp_filter", "1")
	underlayEcho, farEcho := echoServer(t, underlay, "underlay"), echoServer(t, far, "far")
	if underlayEcho != farEcho {
		t.Fatalf("ports differ: %d and %d", underlayEcho, farEcho)
	}

	before := answers(t, h, underlayEcho, 0)
	if before != "underlay underlay" {
		t.Fatalf("before the tunnel: %s", before)
	}
	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24", "fd20::1/64"),
		Routes: routes("0.0.0.0/0", "::/0")})
	if got := answers(t, h, underlayEcho, 0); got != "far far" {
		t.Errorf("unmarked datagrams are answered by: %s, want far far", got)
	}
	if got := answers(t, h, underlayEcho, a.Mark); got != "underlay underlay" {
		t.Errorf("marked datagrams are answered by: %s, want underlay underlay", got)
	}
	// What the main table knows better stays outside.
	for _, addr := range []netip.Addr{wire.B.V4.Addr(), wire.B.V6.Addr()} {
		if err := h.Ping(addr); err != nil {
			t.Error(err)
		}
	}
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := answers(t, h, underlayEcho, 0); got != "underlay underlay" {
		t.Errorf("after removal: %s", got)
	}
}

// echoServer answers every datagram with name, from the address it came to, and returns its port.
func echoServer(t *testing.T, h *lab.Host, name string) uint16 {
	t.Helper()
	const port = 7007
	for _, addr := range []string{"203.0.113.9", "2001:db8:113::9"} {
		var conn *net.UDPConn
		h.Must(func() (err error) {
			conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr), Port: port})
			return err
		})
		done := make(chan struct{})
		t.Cleanup(func() { conn.Close(); <-done })
		go func() {
			defer close(done)
			for {
				_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 64))
				if err != nil {
					return
				}
				_, _ = conn.WriteToUDPAddrPort([]byte(name), from)
			}
		}()
	}
	return port
}

// answers returns who answers datagrams with that mark to the outside address of each family.
func answers(t *testing.T, h *lab.Host, port uint16, mark uint32) string {
	t.Helper()
	var names []string
	for _, addr := range []string{"203.0.113.9", "2001:db8:113::9"} {
		dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
			})
			return errors.Join(cerr, err)
		}}
		var conn net.Conn
		h.Must(func() (err error) {
			conn, err = dialer.DialContext(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(addr), port).String())
			return err
		})
		name := "nobody"
		buf := make([]byte, 64)
		for range 3 {
			if _, err := conn.Write([]byte("who")); err != nil {
				name = err.Error()
				break
			}
			if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(buf); err == nil {
				name = string(buf[:n])
				break
			}
		}
		conn.Close()
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func TestForgedPacketsAreDropped(t *testing.T) {
	lab.NeedNAT(t) // nftables
	h, other := lab.NewHost(t, "host"), lab.NewHost(t, "other")
	wire := lab.Link(t, h, other)
	lab.NeedTun(t)
	addTun(t, h, "wg0")
	other.AddRoute("10.20.0.1/32", wire.A.V4.Addr().String(), "")
	tunnelAddr := netip.MustParseAddr("10.20.0.1")
	c := setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24")}
	a := apply(t, h, c)
	if err := other.Ping(tunnelAddr); err != nil {
		t.Fatalf("without the policy a neighbour reaches the tunnel's address: %v", err)
	}
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	c.Routes = routes("0.0.0.0/0")
	apply(t, h, c)
	if err := other.Ping(tunnelAddr); err == nil {
		t.Error("a neighbour reaches the tunnel's address past the tunnel")
	}
	if err := other.Ping(wire.A.V4.Addr()); err != nil {
		t.Errorf("the host's other addresses: %v", err)
	}
}

func TestFailureRollsBack(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, h *lab.Host, c *setup.L3)
		op     string
		errno  error
		hint   string
	}{
		"last route": {
			// The narrowest goes first, so this one fails after all the others.
			func(t *testing.T, h *lab.Host, c *setup.L3) {
				h.AddRoute("10.0.0.0/8", "", "lo")
				c.Routes = append(c.Routes, routes("10.0.0.0/8")...)
			}, "add route", unix.EEXIST, "metric",
		},
		"IPv6 address": {
			func(t *testing.T, h *lab.Host, c *setup.L3) { h.Sysctl("net/ipv6/conf/wg0/disable_ipv6", "1") },
			"add address", unix.EACCES, "net.ipv6.conf.wg0.disable_ipv6=0",
		},
		"second address": {
			// The kernel takes the loopback address on the loopback device only.
			func(t *testing.T, h *lab.Host, c *setup.L3) {
				c.Addresses = append(prefixes("10.1.2.3/24"), netip.MustParsePrefix("::1/128"))
			}, "add address", unix.EADDRNOTAVAIL, "",
		},
		"refused mark": {
			func(t *testing.T, h *lab.Host, c *setup.L3) {
				c.Routes = append(c.Routes, routes("0.0.0.0/0")...)
				c.SetMark = func(uint32) error { return os.ErrClosed }
			}, "set fwmark", os.ErrClosed, "",
		},
		"taken table": {
			func(t *testing.T, h *lab.Host, c *setup.L3) {
				c.Routes = append(c.Routes, routes("0.0.0.0/0", "::/0")...)
				c.Mark = 4711
				h.Shell("ip", "-4", "route", "add", "default", "dev", "lo", "table", "4711")
			}, "add route", unix.EEXIST, "",
		},
		"no room for rules": {
			func(t *testing.T, h *lab.Host, c *setup.L3) {
				c.Routes = append(c.Routes, routes("0.0.0.0/0", "::/0")...)
				h.Shell("ip", "-6", "rule", "add", "priority", "2", "table", "main")
			}, "add rule", nil, "",
		},
		"no such link": {
			func(t *testing.T, h *lab.Host, c *setup.L3) { c.Link = "wg9" }, "find link", nil, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := tunHost(t)
			c := setup.L3{Link: "wg0", MTU: 1400, Addresses: prefixes("10.20.0.1/24", "fd20::1/64"),
				Routes: routes("10.30.0.0/16", "fd30::/48"), Namespace: h.NetnsPath()}
			test.change(t, h, &c)
			before := snapshot(t, h)
			_, err := setup.Apply(t.Context(), c)
			opErr, ok := errors.AsType[*setup.OpError](err)
			if !ok {
				t.Fatalf("error %v, want an OpError", err)
			}
			if opErr.Op != test.op || (test.errno != nil && !errors.Is(err, test.errno)) || !strings.Contains(opErr.Hint, test.hint) {
				t.Errorf("error %v, want one of %q: %v", err, test.op, test.errno)
			}
			checkUnchanged(t, h, before)
		})
	}
}

func TestCancelledApplyLeavesNothing(t *testing.T) {
	h := tunHost(t)
	before := snapshot(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	c := setup.L3{Link: "wg0", MTU: 1400, Namespace: h.NetnsPath(), Addresses: prefixes("10.20.0.1/24"),
		Routes: routes("0.0.0.0/0")}
	cancel()
	if _, err := setup.Apply(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	checkUnchanged(t, h, before)
}

func TestRemoveSurvivesWhatIsGone(t *testing.T) {
	h := tunHost(t)
	addTun(t, h, "other")
	before := snapshot(t, h)
	addTun(t, h, "wg1")
	a := apply(t, h, setup.L3{Link: "wg1", MTU: 1400, Addresses: prefixes("10.20.0.1/24", "fd20::1/64"),
		Routes: routes("0.0.0.0/0", "::/0", "10.30.0.0/16")})
	h.DeleteLink("wg1")
	h.Shell("nft", "delete", "table", "ip", "culvert-l3-wg1")
	h.Shell("ip", "-6", "rule", "delete", "table", "main", "suppress_prefixlength", "0")
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	checkUnchanged(t, h, before)
}

func TestSideBySide(t *testing.T) {
	h := tunHost(t)
	const tunnels = 4
	for i := 1; i < tunnels; i++ {
		addTun(t, h, fmt.Sprintf("wg%d", i))
	}
	before := snapshot(t, h)
	applied := make([]*setup.Applied, tunnels)
	var wg sync.WaitGroup
	for i := range tunnels {
		wg.Go(func() {
			c := setup.L3{Link: fmt.Sprintf("wg%d", i), Namespace: h.NetnsPath(),
				Addresses: prefixes(fmt.Sprintf("10.20.%d.1/24", i), fmt.Sprintf("fd20:%d::1/64", i)),
				Routes:    routes("0.0.0.0/0", "::/0")}
			var err error
			if applied[i], err = setup.Apply(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	marks := map[uint32]bool{}
	for _, a := range applied {
		marks[a.Mark] = true
	}
	if len(marks) != tunnels {
		t.Errorf("marks %v, want %d different ones", marks, tunnels)
	}
	// Whoever goes first does not take away what the others need.
	for i, a := range applied {
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
		mark := strings.TrimSpace(h.Shell("cat", "/proc/sys/net/ipv4/conf/all/src_valid_mark"))
		if last := i == tunnels-1; !last && mark != "1" {
			t.Errorf("src_valid_mark is %s while %d tunnels are there", mark, tunnels-1-i)
		}
	}
	h.Sysctl("net/ipv4/conf/all/src_valid_mark", "0")
	checkUnchanged(t, h, before)
}

func TestRemainsOfAKilledProcessAreReaped(t *testing.T) {
	h := tunHost(t)
	addTun(t, h, "wg1")
	// What is left when a process is killed: its device goes, and with it routes and addresses.
	killed := apply(t, h, setup.L3{Link: "wg1", Addresses: prefixes("10.20.1.1/24"), Routes: routes("0.0.0.0/0", "::/0")})
	h.DeleteLink("wg1")
	foreign := "32000:\tnot from all fwmark 0x1267 lookup 4711"
	h.Shell("ip", "rule", "add", "not", "fwmark", "4711", "table", "4711", "priority", "32000")

	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24"), Routes: routes("0.0.0.0/0")})
	if a.Mark != killed.Mark {
		t.Errorf("mark %d, want %d to be free again", a.Mark, killed.Mark)
	}
	rules := h.Shell("ip", "-4", "rule") + h.Shell("ip", "-6", "rule")
	wantLines(t, "rules", rules, foreign)
	if n := strings.Count(rules, "suppress_prefixlength"); n != 1 {
		t.Errorf("%d rules for the main table, want 1:\n%s", n, rules)
	}
	if tables := h.Shell("nft", "list", "tables"); strings.Contains(tables, "wg1") {
		t.Errorf("a table of the vanished device is left:\n%s", tables)
	}
	// Removing late harms nobody.
	if err := killed.Remove(); err != nil {
		t.Error(err)
	}
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
}

func TestGivenMarkIsUsed(t *testing.T) {
	h := tunHost(t)
	before := snapshot(t, h)
	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24"), Routes: routes("0.0.0.0/0"),
		Mark: 0x80001234})
	if a.Mark != 0x80001234 {
		t.Errorf("mark %#x", a.Mark)
	}
	wantLines(t, "rules", h.Shell("ip", "rule"), "not from all fwmark 0x80001234 lookup 2147488308")
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	checkUnchanged(t, h, before)
}

func TestTakenMarksAreSkipped(t *testing.T) {
	h := tunHost(t)
	h.Shell("ip", "-6", "rule", "add", "fwmark", "51820", "table", "main")
	h.Shell("ip", "-4", "rule", "add", "from", "10.9.9.9", "table", "51821")
	h.Shell("ip", "-6", "route", "add", "blackhole", "fd99::/64", "table", "51822")
	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24"), Routes: routes("0.0.0.0/0")})
	if a.Mark != 51823 {
		t.Errorf("mark %d, want 51823", a.Mark)
	}
}

func TestRoutesOfAMissingFamilyAreAWarning(t *testing.T) {
	h := tunHost(t)
	h.Sysctl("net/ipv6/conf/wg0/disable_ipv6", "1")
	a, err := setup.Apply(t.Context(), setup.L3{Link: "wg0", Namespace: h.NetnsPath(), Addresses: prefixes("10.20.0.1/24"),
		Routes: routes("0.0.0.0/0", "::/0", "fd30::/48")})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Warnings) != 2 || !strings.Contains(a.Warnings[0].Error(), "has no IPv6") {
		t.Errorf("warnings %v, want two about IPv6", a.Warnings)
	}
	if rules := h.Shell("ip", "-6", "rule"); strings.Contains(rules, "51820") {
		t.Errorf("rules for IPv6:\n%s", rules)
	}
	wantLines(t, "rules", h.Shell("ip", "rule"), "lookup 51820")
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
}

func TestActsInTheCallersNamespace(t *testing.T) {
	h := tunHost(t)
	var a *setup.Applied
	h.Must(func() (err error) {
		a, err = setup.Apply(t.Context(), setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24"),
			Routes: routes("0.0.0.0/0")})
		return err
	})
	wantLines(t, "addresses", h.Shell("ip", "addr", "show", "dev", "wg0"), "10.20.0.1/24")
	// From anywhere.
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	if got := h.Shell("ip", "-4", "addr", "show", "dev", "wg0"); strings.Contains(got, "10.20.0.1") {
		t.Errorf("the address is left:\n%s", got)
	}
}

func TestAutoMTU(t *testing.T) {
	h, a, b := lab.NewHost(t, "host"), lab.NewHost(t, "a"), lab.NewHost(t, "b")
	narrow := lab.Link(t, h, a, lab.MTU(1400))
	wide := lab.Link(t, h, b, lab.MTU(9000))
	addr := netip.MustParseAddr
	check := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	auto := func(endpoints ...netip.Addr) int {
		t.Helper()
		mtu, err := setup.AutoMTU(t.Context(), h.NetnsPath(), "wg0", 0, setup.WireGuardOverhead, endpoints)
		if err != nil {
			t.Fatal(err)
		}
		native, err := setup.AutoMTU(t.Context(), h.NetnsPath(), "wg0", 0, setup.NativeOverhead, endpoints)
		if err != nil {
			t.Fatal(err)
		}
		check("the native wire's", native, mtu-4)
		return mtu
	}
	check("no route at all", auto(addr("192.0.2.1")), 1420)
	check("device of the endpoint's route", auto(narrow.B.V4.Addr()), 1320)
	check("IPv6", auto(wide.B.V6.Addr()), 8920)
	check("mapped address", auto(netip.AddrFrom16(wide.B.V4.Addr().As16())), 8920)
	check("the smallest counts", auto(wide.B.V4.Addr(), narrow.B.V6.Addr(), addr("192.0.2.1")), 1320)
	h.Shell("ip", "route", "add", "198.51.100.0/24", "via", wide.B.V4.Addr().String(), "mtu", "1300")
	check("the route's own attribute", auto(addr("198.51.100.7")), 1220)
	h.AddRoute("default6", wide.B.V6.Addr().String(), wide.A.Device)
	check("default route", auto(), 8920)
	h.AddRoute("default4", narrow.B.V4.Addr().String(), "")
	check("default route, IPv4 first", auto(), 1320)
	// Once the tunnel is the way to everything, its datagrams' mark finds the way around it.
	lab.NeedTun(t)
	addTun(t, h, "wg0")
	applied := apply(t, h, setup.L3{Link: "wg0", MTU: 1280, Addresses: prefixes("10.20.0.1/24"), Routes: routes("0.0.0.0/0")})
	check("a route into the tunnel does not count", auto(addr("192.0.2.1")), 1320)
	mtu, err := setup.AutoMTU(t.Context(), h.NetnsPath(), "wg0", applied.Mark, setup.WireGuardOverhead, []netip.Addr{addr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	check("marked", mtu, 1320)
}

// A route that would lead the tunnel's own datagrams into the tunnel is refused, and what was done before it undone; one that a closer
// route to the endpoint passes by is not.
func TestRouteOverEndpoint(t *testing.T) {
	h := tunHost(t)
	h.Shell("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	for _, end := range []string{"eth0", "eth1"} { // the kernel adds link-local addresses and routes when it takes note of the carrier
		h.Shell("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/"+end+"/disable_ipv6")
	}
	h.Shell("ip", "addr", "add", "10.1.2.1/24", "dev", "eth0")
	h.Shell("ip", "link", "set", "eth0", "up")
	h.Shell("ip", "link", "set", "eth1", "up")
	h.Shell("ip", "route", "add", "default", "via", "10.1.2.254")
	before := snapshot(t, h)
	for _, c := range []struct {
		route, endpoint string
		refused         bool
	}{
		{"10.0.0.0/8", "10.1.2.3", false}, // it is a neighbour
		{"10.1.2.0/25", "10.1.2.3", true},
		{"10.1.2.3/32", "10.1.2.3", true},
		{"192.0.2.0/24", "192.0.2.9", true},
		{"192.0.2.0/24", "198.51.100.9", false},
	} {
		l3 := setup.L3{Link: "wg0", Namespace: h.NetnsPath(), Addresses: prefixes("10.20.0.1/24"), Routes: routes(c.route),
			Endpoints: []netip.Addr{netip.MustParseAddr(c.endpoint)}}
		a, err := setup.Apply(t.Context(), l3)
		if refused := err != nil; refused != c.refused {
			t.Errorf("route %s, endpoint %s: %v", c.route, c.endpoint, err)
		}
		if err != nil && (!strings.Contains(err.Error(), c.endpoint) || !strings.Contains(err.Error(), "full_tunnel")) {
			t.Errorf("the error says %v", err)
		}
		if a != nil {
			if err := a.Remove(); err != nil {
				t.Error(err)
			}
		}
		checkUnchanged(t, h, before)
	}
	// In a table of its own it is for rules to decide.
	a := apply(t, h, setup.L3{Link: "wg0", Routes: []setup.Route{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Table: 77}},
		Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.9")}})
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
}

// Rules that a file declares carry the same protocol number, and lead nowhere while their tunnel is not up: they are no rest of a killed one.
func TestDeclaredRulesStay(t *testing.T) {
	h := tunHost(t)
	h.Sysctl("net/ipv4/conf/all/src_valid_mark", "1") // which the second rule needs
	for _, rule := range []string{"to 192.168.0.0/16 lookup main priority 6300", "not fwmark 0x63760001 lookup 1668677633 priority 6399",
		"from 10.9.0.0/24 lookup 100 priority 1000", "to 10.7.0.0/16 prohibit priority 900"} {
		h.Shell("ip", strings.Fields("rule add "+rule+" protocol 67")...)
	}
	before := snapshot(t, h)
	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24"), Routes: routes("0.0.0.0/0")})
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	checkUnchanged(t, h, before)
}

// Parts of what was applied go one by one, and nothing else with them.
func TestRemoveRoutes(t *testing.T) {
	h := tunHost(t)
	before := snapshot(t, h)
	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24"), Routes: routes("10.20.0.128/25", "10.30.0.0/16", "10.31.0.0/16", "fd30::/64")})
	if len(a.Covered) != 1 || a.Covered[0].Prefix != netip.MustParsePrefix("10.20.0.128/25") {
		t.Errorf("covered: %v", a.Covered)
	}
	// Routes of one's own cover nothing where they are not to count, but the link's networks do.
	b := apply(t, h, setup.L3{Link: "wg0", Routes: routes("10.30.1.0/24", "10.20.0.0/25"), Uncounted: prefixes("10.30.0.0/16", "10.20.0.0/24")})
	if len(b.Covered) != 1 || b.Covered[0].Prefix != netip.MustParsePrefix("10.20.0.0/25") {
		t.Errorf("covered: %v", b.Covered)
	}
	if err := a.RemoveRoutes(routes("10.30.0.9/16", "10.99.0.0/16")); err != nil {
		t.Error(err)
	}
	have := h.Shell("ip", "route")
	wantLines(t, "routes", have, "10.31.0.0/16 dev wg0", "10.30.1.0/24 dev wg0")
	if strings.Contains(have, "10.30.0.0/16") {
		t.Errorf("routes: %s", have)
	}
	for _, x := range []*setup.Applied{b, a} {
		if err := x.Remove(); err != nil {
			t.Error(err)
		}
	}
	checkUnchanged(t, h, before)
}

// A stand-in leads the network of an address into the link while the address goes, and covers nothing.
func TestStandIn(t *testing.T) {
	h := tunHost(t)
	before := snapshot(t, h)
	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24", "10.40.0.1/24")})
	s := apply(t, h, setup.L3{Link: "wg0", Routes: []setup.Route{{Prefix: netip.MustParsePrefix("10.20.0.0/24"), Metric: setup.StandInMetric}}})
	h.Shell("ip", "addr", "del", "10.20.0.1/24", "dev", "wg0")
	wantLines(t, "the way", h.Shell("ip", "route", "get", "10.20.0.9"), "dev wg0")
	b := apply(t, h, setup.L3{Link: "wg0", Routes: routes("10.20.0.0/24")})
	if len(b.Covered) != 0 {
		t.Errorf("covered: %v", b.Covered)
	}
	for _, x := range []*setup.Applied{s, b, a} {
		if err := x.Remove(); err != nil {
			t.Error(err)
		}
	}
	checkUnchanged(t, h, before)
}

// What a link had is standing until it goes down, or somebody takes a part away.
func TestStanding(t *testing.T) {
	h := tunHost(t)
	c := setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24", "fd20::1/64"),
		Routes: append(routes("10.40.0.0/16", "0.0.0.0/0", "fd40::/48"), setup.Route{Prefix: netip.MustParsePrefix("10.50.0.0/16"), Table: 77, Metric: 5})}
	a := apply(t, h, c)
	is := func(want bool, what string) {
		t.Helper()
		var ok bool
		h.Must(func() (err error) { ok, err = setup.Standing(c); return err })
		if ok != want {
			t.Errorf("%s: standing is %v", what, ok)
		}
	}
	is(true, "applied")
	for _, part := range []string{"10.40.0.0/16", "fd40::/48", "10.50.0.0/16 table 77", "default table " + fmt.Sprint(a.Mark)} {
		args := append([]string{"route", "del"}, strings.Fields(part)...)
		if strings.Contains(part, ":") {
			args = append([]string{"-6"}, args...)
		}
		h.Shell("ip", append(args, "dev", "wg0")...)
		is(false, "without "+part)
		args[slices.Index(args, "del")] = "add"
		h.Shell("ip", append(args, "dev", "wg0")...)
		is(true, "with "+part)
	}
	h.Shell("ip", "addr", "del", "fd20::1/64", "dev", "wg0")
	is(false, "without an address")
	h.Shell("ip", "addr", "add", "fd20::1/64", "dev", "wg0", "nodad")
	is(true, "with it")
	h.Shell("ip", "link", "set", "wg0", "down")
	h.Shell("ip", "link", "set", "wg0", "up")
	is(false, "down and up")
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
}

// The firewall of a default route follows the link's addresses without the policy being taken away.
func TestFollowAddresses(t *testing.T) {
	h := tunHost(t)
	before := snapshot(t, h)
	a := apply(t, h, setup.L3{Link: "wg0", Addresses: prefixes("10.20.0.1/24"), Routes: routes("0.0.0.0/0")})
	rules := h.Shell("ip", "rule")
	h.Shell("ip", "addr", "add", "10.20.0.77/24", "dev", "wg0")
	if err := a.FollowAddresses(); err != nil {
		t.Error(err)
	}
	wantLines(t, "the firewall", h.Shell("nft", "list", "ruleset"), "10.20.0.77", "10.20.0.1")
	if now := h.Shell("ip", "rule"); now != rules {
		t.Errorf("rules before:\n%snow:\n%s", rules, now)
	}
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	if err := a.FollowAddresses(); err != nil {
		t.Error(err)
	}
	h.Shell("ip", "addr", "flush", "dev", "wg0")
	checkUnchanged(t, h, before)
}
