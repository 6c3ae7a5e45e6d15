package scenes

// faultCase is a file whose every step is killed or fails: of its making, of a change, and of its end.
type faultCase struct {
	name    string
	guest   bool     // only the guest's kernel can do it
	file    string   // of examples/, or what text is to be called
	text    string   // "": that of the example
	replace []string // of the example
	around  func(m *machine)
	change  []string
}

// begin makes the case's first state the machine's.
func (c *faultCase) begin(m *machine) {
	m.Helper()
	if c.text != "" {
		m.declare(c.file, c.text)
		return
	}
	m.example(c.file, c.replace...)
}

// faultCases have between them every kind of thing that a file can declare, but tunnels: their steps are a daemon's, and in daemonFaultCases.
var faultCases = []faultCase{
	{
		name: "a service in a namespace", file: "dhcp-namespace.yaml",
		around: func(*machine) {},
		change: []string{"option:router,10.0.0.1", "option:router,10.0.0.2", "ports: [veth-a, tap1]", "ports: [veth-a]", "addresses: [10.0.0.2/24]",
			"mtu: 1400\n      addresses: [10.0.0.2/24, 10.0.0.3/24]"},
	},
	{
		name: "routes and NAT", file: "routed-namespace.yaml",
		around: func(m *machine) { m.outside("eth0", "192.0.2.7/24", "192.0.2.254/24") },
		change: []string{"192.0.2.254", "192.0.2.253", "sources: [10.50.0.0/24]", "sources: [10.50.0.0/16]", "priority: 1000", "priority: 900", "netns: ns0\n",
			"netns: ns1\n", "netns: {ns0: {}}", "netns: {ns1: {}}"},
	},
	{
		name: "a bridge, a limit and a machine's tap", file: "vm-bridge.yaml",
		replace: []string{"links:\n", "links:\n  ifb-vm: {type: ifb}\n  eth1: {external: true, mtu: 1400, addresses: [10.7.0.1/24]}\n  m0: {type: macvlan, parent: eth1, mode: bridge}\n",
			"    handover:", "    txqueuelen: 500\n    handover:", "version: 1\n",
			"version: 1\nshaping:\n  - {source: vnet1, ingress_to: ifb-vm, qdisc: {htb: {rate: 8mbit}}, egress: {tbf: {rate: 8mbit, burst: 10k}}}\n"},
		around: func(m *machine) {
			m.outside("eth0", "", "192.0.2.1/24")
			m.outside("eth1", "10.1.0.1/24", "10.1.0.2/24")
			m.host.Down("eth0")
		},
		change: []string{"8mbit", "9mbit", "vnet_hdr: true ", "vnet_hdr: true\n    queues: 2 ", "mtu: 1400, addresses: [10.7.0.1/24]", "mtu: 1300",
			"mode: bridge}", "mode: private}"},
	},
	{
		name: "a macvtap", file: "macvtap.yaml",
		around: func(m *machine) { m.outside("eth1", "", "192.0.2.1/24") },
		change: []string{"mode: bridge", "mode: passthru", "vm2.sock}", "vm2.sock, mode: 0660}"}, // made anew
	},
	{
		name: "a cross-connection and a tun", file: "cross.yaml",
		text: `version: 1
links:
  tap-a: {type: tap}
  tap-b: {type: tap}
  tap-c: {type: tap}
  tun0: {type: tun, owner: 1234, addresses: [10.5.0.1/24]}
xconnect:
  - {a: tap-a, b: tap-b}
`,
		around: func(*machine) {},
		change: []string{"tap-a: {type: tap}", "tap-a: {type: tap, queues: 2}", "b: tap-b}", "b: tap-c}", "owner: 1234", "owner: 1235"},
	},
	{
		name: "a router", file: "router.yaml",
		text: `version: 1
netns: {n1: {}}
links:
  tap-r: {type: tap, addresses: [10.6.0.1/24]}
sysctl:
  - {name: net.ipv4.ip_forward, value: 1}
  - {netns: n1, name: net.ipv4.ip_forward, value: 1}
`,
		around: func(m *machine) {
			// What the kernel changes with ip_forward is neither all on nor all off before.
			m.outside("eth0.5", "192.0.2.7/24", "")
			m.outside("eth1", "", "")
			m.unlike()
		},
		change: []string{"  - {name: net.ipv4.ip_forward, value: 1}\n", "  - {name: net.ipv6.conf.all.forwarding, value: 1}\n"},
	},
	{
		name: "a bond on a bridge with VLANs", guest: true, file: "bond.yaml",
		text: `version: 1
links:
  p1: {external: true}
  p2: {external: true}
  bond0: {type: bond, mode: active-backup, miimon: 100ms, primary: p1, ports: [p1, p2]}
  br0:
    type: bridge
    vlan: {filtering: true, default_pvid: 0, self: [10]}
    addresses: [192.0.2.10/24]
    ports: {bond0: {vlans: [10, {vid: 20, pvid: true, untagged: true}]}}
`,
		around: func(m *machine) {
			m.outside("p1", "", "")
			m.outside("p2", "", "")
			m.host.Down("p1")
			m.host.Down("p2")
		},
		change: []string{"mode: active-backup, miimon: 100ms, primary: p1", "mode: balance-xor, miimon: 50ms", "self: [10]", "self: [10, 30]", "vid: 20", "vid: 30"}, // the bond is made anew
	},
	{
		name: "a team", guest: true, file: "team.yaml",
		text: `version: 1
links:
  p3: {external: true}
  p4: {external: true}
  team0: {type: team, runner: activebackup, addresses: [192.0.2.40/24], ports: {p3: {prio: 10}, p4: {}}}
`,
		around: func(m *machine) {
			// The kernel makes link-local addresses from what MAC address a team has in that moment: another one when it is made again.
			m.host.Sysctl("net/ipv6/conf/default/addr_gen_mode", "1")
			m.outside("p3", "", "")
			m.outside("p4", "", "")
			m.host.Down("p3")
			m.host.Down("p4")
		},
		change: []string{"runner: activebackup", "runner: roundrobin", "{p3: {prio: 10}, p4: {}}", "[p3]"},
	},
	{
		name: "an ipvlan and fair queues", guest: true, file: "queues.yaml",
		text: `version: 1
netns: {ns0: {}}
links:
  eth0: {external: true, up: true}
  eth1: {external: true}
  ipvl0: {type: ipvlan, parent: eth0, mode: l2, flag: bridge, netns: ns0, addresses: [192.0.2.60/24]}
  ifb-a: {type: ifb}
shaping:
  - {source: eth1, ingress_to: ifb-a, qdisc: {sfq: {perturb: 10s}}, egress: {fq_codel: {limit: 500}}}
`,
		around: func(m *machine) {
			m.outside("eth0", "", "192.0.2.1/24")
			m.outside("eth1", "192.0.2.66/32", "")
		},
		change: []string{"mode: l2", "mode: l3", "perturb: 10s", "perturb: 10s, limit: 60", "limit: 500", "limit: 600"},
	},
}
