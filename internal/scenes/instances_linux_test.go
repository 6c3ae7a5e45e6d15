package scenes

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// instance declares a file of its own for an instance, and returns its path.
func (m *machine) another(instance, text string) string {
	m.Helper()
	path := filepath.Join(m.dir, instance+".yaml")
	if err := os.WriteFile(path, []byte("version: 1\n"+text), 0o600); err != nil {
		m.Fatal(err)
	}
	return path
}

// shared is what two instances say of one device.
const shared = `links:
  eth0: {external: true, mtu: 1400, txqueuelen: 500, addresses: [10.9.0.1/24], routes: [10.10.0.0/16]}
shaping:
  - {source: eth0, egress: {tbf: {rate: 8mbit, burst: 10k}}}
rules:
  - {from: 10.9.0.0/24, table: 100, priority: 1000}
sysctl:
  - {name: net.ipv4.ip_forward, value: 1}
`

// network is a snapshot without journals.
func (m *machine) network() snapshot {
	m.Helper()
	return slices.DeleteFunc(m.settledSnapshot(), func(line string) bool { return strings.HasPrefix(line, "files: /var/lib/culvert/") })
}

// keeps demands that the network is as it was.
func (m *machine) keeps(before snapshot, when string) {
	m.Helper()
	if diff := before.diff(m.network()); len(diff) > 0 {
		m.Errorf("%s: not as it was before:\n%s", when, strings.Join(diff, "\n"))
	}
}

// What two instances say alike of one device stays until the last of them goes, whichever that is, and goes back to what it was before the
// first then.
func TestInstancesShare(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		t.Run(order[0]+" goes first", func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.outside("eth0", "192.0.2.7/24", "")
			before := m.settledSnapshot()
			m.must("apply", m.another("a", shared))
			with := m.network()
			stdout, _, _ := m.culvert("apply", m.another("b", shared))
			for _, want := range []string{"# link eth0: its mtu is set by the instance a already: both keep it from now on",
				"# rule 1000 ipv4 is there already, made by the instance a: both have it from now on", "nothing to do"} {
				if !strings.Contains(stdout, want) {
					t.Errorf("the second apply does not say %q:\n%s", want, stdout)
				}
			}
			m.keeps(with, "applied twice")
			m.must("destroy", order[0])
			m.keeps(with, "one is destroyed")
			if out, _, code := m.culvert("plan", m.dir+"/"+order[1]+".yaml", "--exit-code"); code != 0 {
				t.Errorf("the other would change something:\n%s", out)
			}
			m.must("destroy", order[1])
			m.same(before, "both are destroyed")
		})
	}
}

// Where two instances disagree, or one would use what the other made, that is a conflict which names it, and nothing is touched.
func TestInstancesInConflict(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.outside("eth0", "192.0.2.7/24", "")
	start := m.settledSnapshot()
	m.must("apply", m.another("a", shared+"netns: {n1: {}}\n"))
	before := m.network()
	file := m.another("b", strings.NewReplacer("mtu: 1400", "mtu: 1300", "table: 100", "table: 101", "8mbit", "9mbit", "value: 1", "value: 0",
		"routes: [10.10.0.0/16]", "routes: [{to: 10.10.0.0/16, mtu: 1300}]").Replace(shared)+"netns: {n1: {}}\n")
	_, stderr, code := m.culvert("apply", file)
	for _, want := range []string{
		"b.yaml:3:31: conflict: link eth0: the instance a keeps its mtu at 1400, and this file says 1300: say the same in both files, or take it out of one",
		"conflict: netns n1: the instance a has made a namespace of that name: say external: true to use it, or choose another name",
		"conflict: qdisc eth0 root: the instance a has made it: its limit is 60240, not 66490, its rate is 8mbit, not 9mbit; say the same in both",
		"conflict: route 10.10.0.0/16: the instance a has made it: its mtu is none, not 1300; say the same in both",
		"conflict: rule 1000 ipv4: the instance a has made it: its table is 100, not 101; say the same in both",
		"conflict: sysctl net.ipv4.ip_forward: the instance a keeps its value at 1, and this file says 0: say the same in both",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("apply does not say %q", want)
		}
	}
	if code != 1 || t.Failed() {
		t.Errorf("apply ended with %d:\n%s", code, stderr)
	}
	m.keeps(before, "in conflict")
	m.must("destroy", "a")
	m.same(start, "destroyed")
}

// An MTU above that of a device which is there is refused by plan, with the line.
func TestParentTooSmall(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.outside("eth0", "", "")
	before := m.settledSnapshot()
	m.declare("mtu.yaml", "version: 1\nlinks:\n  eth0: {external: true}\n  m0:\n    type: macvlan\n    parent: eth0\n    mode: bridge\n    mtu: 1501\n")
	const want = "link m0 (macvlan): its mtu 1501 is above that of its parent eth0, 1500, and the kernel takes no more: say mtu: 1500 here, or mtu: 1501 of eth0 ("
	for _, command := range []string{"plan", "apply"} {
		if stdout, _, code := m.culvert(command, m.file); code != 1 || !strings.Contains(stdout, want) || !strings.Contains(stdout, "mtu.yaml:8:10)") {
			t.Errorf("%s ended with %d:\n%s", command, code, stdout)
		}
	}
	m.same(before, "refused")
	m.edit("eth0: {external: true}", "eth0: {external: true, mtu: 1501}")
	m.apply()
	m.settled()
	m.destroyed(before)
}

// What somebody has deleted before is told of, and nothing is left that remembers it.
func TestGoneBeforeDestroy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.declare("gone.yaml", `version: 1
netns: {n1: {}}
links:
  br7: {type: bridge, addresses: [10.8.0.1/24], ports: [va]}
  br8: {type: bridge}
  va: {type: veth, peer: {name: vb, netns: n1, addresses: [10.8.0.2/24]}}
services:
  - {dnsmasq: {netns: n1, interface: vb, range: "10.8.0.10,10.8.0.20"}}
`)
	m.apply()
	m.killAll() // the service, and who watches over it
	m.shell("", "sh", "-ec", "ip link del br7; ip link del va; ip netns del n1; ip link set br8 alias mine")
	stdout, _, code := m.culvert("destroy", "gone")
	for _, want := range []string{"# link br7 is gone already\n", "# netns n1 is gone already\n",
		"# link br8 carries culvert's mark no longer, somebody has changed it: left alone\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("destroy does not say %q", want)
		}
	}
	if code != 0 || t.Failed() {
		t.Errorf("destroy ended with %d:\n%s", code, stdout)
	}
	for _, folder := range []string{"var/lib/culvert", "run/culvert"} {
		left, err := filepath.Glob(filepath.Join(m.root, folder, "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left: %v %v", left, err)
		}
	}
}

// Of each kind of thing that a file would use and somebody else has: a conflict, and it stays, by destroy too.
func TestForeignKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, file, prepare, says string }{
		{"link", "links: {br7: {type: bridge}}", "ip link add br7 type bridge", "conflict: link br7: a device of that name is there, and culvert did not make it"},
		{"namespace", "netns: {n1: {}}", "ip netns add n1", "conflict: netns n1: a namespace of that name is there, and culvert did not make it"},
		{"address", "links: {eth0: {external: true, addresses: [{address: '2001:db8::1/64', nodad: true}]}}", "ip addr add 2001:db8::1/64 dev eth0",
			"conflict: address eth0 2001:db8::1/64: there is one, and culvert did not make it: its nodad is no, not yes"},
		{"route", "links: {eth0: {external: true}}\nroutes: [{to: 10.1.0.0/16, link: eth0, mtu: 1300}]", "ip route add 10.1.0.0/16 dev eth0",
			"conflict: route 10.1.0.0/16: there is one, and culvert did not make it: its mtu is none, not 1300"},
		{"rule", "rules: [{priority: 1000, from: 10.1.0.0/16, table: 7}]", "ip rule add from all table 7 priority 1000",
			"conflict: rule 1000 ipv4: there is one, and culvert did not make it: its from is none, not 10.1.0.0/16"},
		{"queueing discipline", "links: {eth0: {external: true}}\nshaping: [{source: eth0, egress: {tbf: {rate: 8mbit, burst: 10k}}}]",
			"tc qdisc add dev eth0 root tbf rate 1mbit burst 10k limit 10k", "conflict: qdisc eth0 root: a queueing discipline is there, tbf "},
		{"nft table", "links: {eth0: {external: true}}\nnat: [{out: eth0}]", "nft add table inet culvert-kinds; nft add chain inet culvert-kinds mine",
			"conflict: nat culvert-kinds: a table of nftables with the name inet culvert-kinds is there, and culvert did not make it: delete it"},
		{"nft table with a chain of the name", "links: {eth0: {external: true}}\nnat: [{out: eth0}]",
			"nft add table inet culvert-kinds; nft 'add chain inet culvert-kinds postrouting { type nat hook postrouting priority 100; }'; " +
				"nft add rule inet culvert-kinds postrouting tcp dport 80 masquerade", "conflict: nat culvert-kinds: a table of nftables"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.outside("eth0", "192.0.2.7/24", "")
			m.shell("", "sh", "-ec", c.prepare)
			before := m.settledSnapshot()
			m.declare("kinds.yaml", "version: 1\n"+c.file+"\n")
			_, stderr, code := m.culvert("apply", m.file)
			if code != 1 || !strings.Contains(stderr, c.says) || !strings.HasSuffix(stderr, "nothing was touched\n") {
				t.Errorf("apply ended with %d, want %q:\n%s", code, c.says, stderr)
			}
			m.same(before, "in conflict")
			m.destroyed(before)
		})
	}
}
