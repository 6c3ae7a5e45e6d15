package lab_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

func TestHostsReachEachOther(t *testing.T) {
	a, b := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	w := lab.Link(t, a, b)
	for _, to := range []netip.Addr{w.B.V4.Addr(), w.B.V6.Addr()} {
		if err := a.Ping(to); err != nil {
			t.Error(err)
		}
		if err := a.PingSize(to, 5000); err != nil {
			t.Error(err)
		}
	}
	b.Down(w.B.Device)
	if err := a.Ping(w.B.V4.Addr()); err == nil {
		t.Error("a ping to a device that is down came back")
	}
	b.Up(w.B.Device)
	lab.Eventually(t, 10*time.Second, "ping after up", func() bool { return a.Ping(w.B.V4.Addr()) == nil })
	b.DeleteLink(w.B.Device)
	if a.HasLink(w.A.Device) {
		t.Error("one end of a veth pair outlived the other")
	}
}

func TestRouterMasquerades(t *testing.T) {
	lab.NeedNAT(t)
	client, router, server := lab.NewHost(t, "client"), lab.NewHost(t, "router"), lab.NewHost(t, "server")
	inside := lab.Link(t, client, router, lab.NoOffloads())
	outside := lab.Link(t, router, server, lab.MTU(1400))
	router.Masquerade(outside.A.Device)
	client.AddRoute("default4", inside.B.V4.Addr().String(), "")
	client.AddRoute("default6", inside.B.V6.Addr().String(), inside.A.Device)

	for _, pair := range [][2]netip.Addr{
		{outside.A.V4.Addr(), outside.B.V4.Addr()},
		{outside.A.V6.Addr(), outside.B.V6.Addr()},
	} {
		var in, out *net.UDPConn
		server.Must(func() (err error) {
			in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(pair[1], 0)))
			return err
		})
		defer in.Close()
		client.Must(func() (err error) {
			out, err = net.DialUDP("udp", nil, in.LocalAddr().(*net.UDPAddr))
			return err
		})
		defer out.Close()
		before := sourceSeen(t, out, in)
		if before.Addr() != pair[0] {
			t.Errorf("server saw %v, want the router's %v", before, pair[0])
		}
		if again := sourceSeen(t, out, in); again != before {
			t.Errorf("a flow's mapping changed from %v to %v by itself", before, again)
		}
		lab.Eventually(t, 10*time.Second, "another mapping after the router forgot the flow", func() bool {
			router.ForgetFlows()
			return sourceSeen(t, out, in).Port() != before.Port()
		})
	}
}

// sourceSeen sends a datagram and returns where it was seen to come from.
func sourceSeen(t *testing.T, out, in *net.UDPConn) (from netip.AddrPort) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, "a datagram from client to server", func() bool {
		if _, err := out.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := in.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		var err error
		_, from, err = in.ReadFromUDPAddrPort(make([]byte, 64))
		return err == nil
	})
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func TestNothingIsLeft(t *testing.T) {
	var path string
	var pid int
	t.Run("with a process", func(t *testing.T) {
		h := lab.NewHost(t, "gone")
		path = h.NetnsPath()
		cmd := h.Command(t.Context(), "sh", "-c", "readlink /proc/self/ns/net; exec sleep 3600")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Start(cmd); err != nil {
			t.Fatal(err)
		}
		pid = cmd.Process.Pid
		got, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var want string
		h.Must(func() (err error) {
			want, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		})
		if strings.TrimSpace(got) != want {
			t.Errorf("the process ran in %s, want %s", got, want)
		}
		if own, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || own == want {
			t.Errorf("the test itself is in %s (%v), not in a namespace of its own choosing", own, err)
		}
		// Not waited for: the host has to end it.
		go cmd.Wait()
	})
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace %s is left: %v", path, err)
	}
	lab.Eventually(t, 10*time.Second, "the process is gone", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestPrivateRun(t *testing.T) {
	a, b := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	rootA, rootB := a.PrivateRun(), b.PrivateRun()
	a.Shell("sh", "-c", "echo a > /run/wireguard/wg0.sock")
	b.Shell("sh", "-c", "echo b > /run/wireguard/wg0.sock")
	for root, want := range map[string]string{rootA: "a\n", rootB: "b\n"} {
		got, err := os.ReadFile(root + "/run/wireguard/wg0.sock")
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", root, got, err, want)
		}
	}
	if got := a.Shell("sh", "-c", "ls /sys/class/net"); got != "lo\n" {
		t.Errorf("/sys/class/net shows %q, want only lo", got)
	}
}

func TestRunReportsStderr(t *testing.T) {
	h := lab.NewHost(t, "a")
	err := h.Run(h.Command(t.Context(), "sh", "-c", "echo what went wrong >&2; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "what went wrong") {
		t.Errorf("error %v does not carry stderr", err)
	}
}

func TestBuildBuildsOnce(t *testing.T) {
	one := lab.BuildWireGuardGo(t)
	if two := lab.BuildWireGuardGo(t); one != two {
		t.Errorf("built twice: %s and %s", one, two)
	}
	if _, err := os.Stat(one); err != nil {
		t.Error(err)
	}
}
