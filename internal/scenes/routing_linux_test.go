package scenes

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/internal/lab"
	"culvert/setup/thread"
)

func TestRoutedNamespace(t *testing.T) {
	(&scene{
		file: "routed-namespace.yaml",
		around: func(m *machine) func() {
			// The file says all that it needs of the host.
			out := m.outside("eth0", "", "192.0.2.254/24 192.0.2.253/24")
			m.host.Down("eth0")
			web := webServer(m.T, out, ":80")
			return func() {
				body, err := m.get("ns0", web(m)+":80")
				if err != nil || body != "192.0.2.7" {
					m.Errorf("the server saw %q (%v), want the machine's address", body, err)
				}
				// Without translation nothing would come back.
				if out.Ping(mustAddr("10.50.0.2")) == nil {
					m.Error("the namespace is reached from outside by its own address")
				}
			}
		},
		changes: []change{
			{[]string{"gateway: 192.0.2.254, link: eth0, table: 100", "gateway: 192.0.2.253, link: eth0, table: 100"},
				[]string{"-/+ route 0.0.0.0/0 table 100 gateway 192.0.2.254 -> 192.0.2.253, because its gateway cannot be changed"}},
			{[]string{"sources: [10.50.0.0/24]", "sources: [10.50.0.0/16]"}, []string{"~ nat culvert-routed-namespace masquerade eth0,10.50.0.0/24 -> eth0,10.50.0.0/16"}},
			{[]string{"priority: 1000", "priority: 900"}, []string{"+ rule 900 ipv4", "- rule 1000 ipv4"}},
		},
	}).play(t)
}

// webServer answers with the address of the client. The returned function is where it is reached: by the gateway's name the file has.
func webServer(t *testing.T, h *lab.Host, address string) func(m *machine) string {
	t.Helper()
	var l net.Listener
	h.Must(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = io.WriteString(w, strings.TrimPrefix(host, "::ffff:"))
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return func(m *machine) string {
		if strings.Contains(m.text, "gateway: 192.0.2.253") {
			return "192.0.2.253"
		}
		return "192.0.2.254"
	}
}

// get asks a web server from one of the machine's namespaces.
func (m *machine) get(netns, address string) (body string, err error) {
	m.Helper()
	ns, err := os.Open(filepath.Join(m.root, "run/netns", netns))
	if err != nil {
		m.Fatal(err)
	}
	defer ns.Close()
	var c net.Conn
	thread.Run(func() {
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			c, err = net.DialTimeout("tcp", address, 5*time.Second)
		}
	})
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
	r, err := client.Get("http://" + address + "/")
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

// Routes and rules of both families, in a namespace too, of every type.
func TestRoutesAndRules(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.outside("eth0", "192.0.2.7/24 2001:db8::7/64", "192.0.2.1/24 2001:db8::1/64 10.77.0.1/32 2001:db8:77::1/128")
	before := m.settledSnapshot()
	m.declare("routes.yaml", `version: 1
netns: {ns0: {}}
links:
  eth0:
    external: true
    routes: [{to: 10.77.0.0/16, gateway: 192.0.2.1, metric: 50}, {to: "2001:db8:77::/48", gateway: "2001:db8::1"}]
  v0:
    type: veth
    addresses: [10.60.0.1/24, "2001:db8:60::1/64"]
    peer: {name: v1, netns: ns0, addresses: [10.60.0.2/24, "2001:db8:60::2/64"], routes: [{to: "2001:db8::/32", gateway: "2001:db8:60::1"}]}
routes:
  - {to: 10.66.0.0/16, type: blackhole, table: 77}
  - {to: "2001:db8:66::/48", type: unreachable}
rules:
  - {from: 10.60.0.0/24, table: 77, priority: 500}
  - {to: 10.67.0.0/16, action: prohibit, priority: 501}
  - {family: ipv6, iif: v0, table: 77, priority: 502}
`)
	m.apply()
	m.settled()
	m.reaches("", "10.77.0.1")
	m.reaches("", "2001:db8:77::1")
	m.reaches("ns0", "2001:db8:60::1")
	for to, says := range map[string]string{"10.66.0.1 from 10.60.0.1": "Invalid argument", "2001:db8:66::1": "No route to host", "10.67.0.1": "denied"} {
		out, err := m.run("", "sh", "-c", fmt.Sprintf("ip route get %s 2>&1", to))
		if !strings.Contains(out+fmt.Sprint(err), says) {
			t.Errorf("route get %s: %s %v, want %q", to, out, err, says)
		}
	}
	m.edit("metric: 50", "metric: 60", "type: blackhole, table: 77", "type: prohibit, table: 77")
	p := m.apply()
	for _, want := range []string{"+ route 10.77.0.0/16 metric 60", "- route 10.77.0.0/16 metric 50", "type blackhole -> prohibit"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("the plan does not say %q:\n%s", want, &p)
		}
	}
	m.settled()
	m.reaches("", "10.77.0.1")
	m.destroyed(before)
}

// Settings of the kernel: of the machine, which are set back; of a namespace and a device that the file makes, which go with them.
func TestSysctls(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.outside("eth0", "", "")
	get := func(netns, name string) string {
		return strings.TrimSpace(m.shell(netns, "cat", "/proc/sys/net/ipv4/"+name))
	}
	m.shell("", "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 1024 60000 > /proc/sys/net/ipv4/ip_local_port_range")
	before := m.settledSnapshot()
	m.declare("settings.yaml", `version: 1
netns: {n1: {}}
links:
  va: {type: veth, peer: {name: vb, netns: n1}}
sysctl:
  - {name: net.ipv4.ip_forward, value: 1}
  - {name: net.ipv4.ip_local_port_range, value: "2048  50000"}
  - {netns: n1, name: net.ipv4.ip_forward, value: 1}
  - {netns: n1, name: net.ipv4.conf.vb.proxy_arp, value: 1}
  - {name: net.ipv4.conf.va.proxy_arp, value: 1}
`)
	m.apply()
	m.settled()
	for _, c := range []struct{ netns, name, want string }{{"", "ip_forward", "1"}, {"", "ip_local_port_range", "2048\t50000"}, {"n1", "ip_forward", "1"},
		{"n1", "conf/vb/proxy_arp", "1"}, {"", "conf/va/proxy_arp", "1"}} {
		if have := get(c.netns, c.name); have != c.want {
			t.Errorf("%s in %q is %q, want %q", c.name, c.netns, have, c.want)
		}
	}
	// What changes under it is drift, and what is made anew gets its settings again.
	m.shell("", "sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/va/proxy_arp")
	if p := m.plan(); !strings.Contains(p.String(), "~ sysctl net.ipv4.conf.va.proxy_arp value 0 -> 1") {
		t.Errorf("the plan is\n%s", &p)
	}
	m.apply()
	m.edit("name: vb, netns: n1}", "name: vc, netns: n1}", "conf.vb.", "conf.vc.")
	m.apply()
	m.settled()
	if get("", "conf/va/proxy_arp") != "1" || get("n1", "conf/vc/proxy_arp") != "1" {
		t.Error("a device that was made anew has lost its settings")
	}
	m.edit("  - {name: net.ipv4.ip_forward, value: 1}\n", "")
	m.apply()
	m.settled()
	if get("", "ip_forward") != "0" {
		t.Error("a setting that is said no longer is not as it was before")
	}
	m.destroyed(before)
	if have := get("", "ip_local_port_range"); have != "1024\t60000" {
		t.Errorf("the ports are %q afterwards", have)
	}
	m.declare("settings.yaml", "version: 1\nsysctl:\n  - {name: net.ipv4.no_such_thing, value: 1}\n")
	if _, stderr, code := m.culvert("apply", m.file); code != 1 || !strings.Contains(stderr, "settings.yaml:3:5: conflict: sysctl net.ipv4.no_such_thing: "+
		"this kernel knows no such setting here: sysctl -a lists those there are") {
		t.Errorf("apply ended with %d: %s", code, stderr)
	}
}
