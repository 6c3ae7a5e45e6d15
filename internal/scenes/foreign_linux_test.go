package scenes

import (
	"slices"
	"strings"
	"testing"
)

// Whatever a file would use and somebody else has is a conflict, said with the line, and nothing is touched.
func TestForeignIsConflict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file string
		replace    []string
		prepare    []string // commands
		says       []string
	}{
		{"devices", "vm-bridge.yaml", nil, []string{"ip link add br0 type bridge", "ip tuntap add vnet1 mode tap", "ip addr add 192.0.2.10/24 dev br0"},
			[]string{"vm-bridge.yaml:13:3: ", "conflict: link br0: a device of that name is there, and culvert did not make it: say external: true to use it",
				"conflict: link vnet1: a device of that name is there"}},
		{"a port of another bridge", "vm-bridge.yaml", nil, []string{"ip link add other type bridge", "ip link set eth0 master other"},
			[]string{"conflict: attachment eth0: it is a port of other already, and culvert did not put it there"}},
		{"a missing device", "macvtap.yaml", nil, nil, []string{"conflict: link eth1: it is external, but it is not there"}},
		{"a namespace", "dhcp-namespace.yaml", nil, []string{"ip netns add qdhcp-ba48a3fc"},
			[]string{"conflict: netns qdhcp-ba48a3fc: a namespace of that name is there, and culvert did not make it"}},
		{"one end of a pair", "dhcp-namespace.yaml", nil, []string{"ip link add veth-a type bridge"}, []string{"conflict: link veth-a: a device of that name is there"}},
		{"a route", "routed-namespace.yaml", nil, []string{"ip addr add 192.0.2.7/24 dev eth0", "ip route add default via 192.0.2.99 dev eth0 table 100"},
			[]string{"conflict: route 0.0.0.0/0 table 100: there is one, and culvert did not make it: its gateway is 192.0.2.99, not 192.0.2.254"}},
		{"a rule", "routed-namespace.yaml", nil, []string{"ip rule add from 10.1.0.0/16 table 7 priority 1000"},
			[]string{"conflict: rule 1000 ipv4: there is one, and culvert did not make it"}},
		{"a queueing discipline", "ifb-limit.yaml", withoutSFQ, []string{"tc qdisc add dev eth0 root tbf rate 1mbit burst 10k limit 10k"},
			[]string{"conflict: qdisc eth0 root: a queueing discipline is there, tbf 8", "and culvert did not make it"}},
		{"an ingress", "ifb-limit.yaml", withoutSFQ, []string{"ip link add other type ifb", "tc qdisc add dev eth0 ingress",
			"tc filter add dev eth0 parent ffff: protocol all prio 25462 u32 match u32 0 0 action mirred egress redirect dev other"}, []string{"conflict: filter eth0 ingress: "}},
		{"an ifb", "ifb-limit.yaml", withoutSFQ, []string{"ip link add ifb-wan type ifb"}, []string{"conflict: link ifb-wan: a device of that name is there"}},
		{"another instance's device", "vm-bridge.yaml", nil, []string{"ip link add br0 group 25462 type bridge", "ip link set br0 alias 'culvert:another:link br0:0123456789abcdef'"},
			[]string{"conflict: link br0: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.outside("eth0", "", "")
			for _, command := range c.prepare {
				m.shell("", "sh", "-c", command)
			}
			before := m.settledSnapshot()
			m.example(c.file, c.replace...)
			_, stderr, code := m.culvert("apply", m.file)
			if code != 1 || !strings.HasSuffix(stderr, "nothing was touched\n") {
				t.Errorf("apply ended with %d:\n%s", code, stderr)
			}
			for _, want := range c.says {
				if !strings.Contains(stderr, want) {
					t.Errorf("apply does not say %q:\n%s", want, stderr)
				}
			}
			stdout, _, code := m.culvert("plan", m.file)
			if code != 1 || !strings.Contains(stdout, "! conflict ") {
				t.Errorf("plan ended with %d:\n%s", code, stdout)
			}
			m.same(before, "after a conflict")
			m.destroyed(before)
		})
	}
}

// Beside what culvert makes, everything stays as it is: while it is made, while it is there, and when it goes.
func TestForeignIsUntouched(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.outside("eth0", "192.0.2.7/24", "192.0.2.254/24")
	m.shell("", "sh", "-ec", `
		ip link add other0 type bridge
		ip addr add 10.88.0.1/24 dev other0
		ip link add other1 type veth peer name other2
		ip link set other1 master other0 up
		ip netns add other
		ip link set other2 netns other up
		ip link set other0 up group 25462
		ip tuntap add other3 mode tap
		tc qdisc add dev other1 root handle 6376: htb default 1
		tc class add dev other1 parent 6376: classid 6376:1 htb rate 5mbit
		tc qdisc add dev other1 ingress
		tc filter add dev other1 parent ffff: protocol all prio 25462 u32 match u32 0 0 action mirred egress redirect dev other3
		ip route add 10.88.1.0/24 dev other0 proto 67
		ip rule add from 10.88.0.0/16 table 88 priority 88 protocol 67
		nft add table inet other
		ip addr add 10.88.2.1/24 dev eth0`)
	before := m.settledSnapshot()
	others := func() []string {
		return slices.DeleteFunc(m.settledSnapshot(), func(line string) bool {
			forwards := strings.HasPrefix(line, "machine settings: ") && strings.Contains(line, "/forwarding:") // of every device, by the kernel, with ip_forward
			return forwards || !strings.Contains(line, "other") && !strings.Contains(line, "10.88.")
		})
	}
	start := others()
	m.example("routed-namespace.yaml")
	m.apply()
	m.settled()
	if diff := snapshot(start).diff(others()); len(diff) > 0 {
		t.Errorf("other people's things have changed:\n%s", strings.Join(diff, "\n"))
	}
	m.destroyed(before)
	// Nor does a destroy touch what looks like culvert's, when no journal tells of it.
	m.destroyed(before)
}
