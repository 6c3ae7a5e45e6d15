package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"culvert/config"
)

// A network is summed up in the file's order, with nothing left out that would be made.
func TestCheckNetwork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.yaml")
	if err := os.WriteFile(path, []byte(`version: 1
netns: {ns0: {}, old: {external: true}}
links:
  eth0: {external: true}
  br0: {type: bridge, addresses: [10.0.0.1/24], ports: [veth-a, tap0]}
  veth-a: {type: veth, peer: {name: veth-b, netns: ns0, addresses: [10.0.0.2/24], routes: [{to: default, gateway: 10.0.0.1}]}}
  tap0: {type: tap, handover: /run/culvert/vm.sock}
  up0: {type: vlan, parent: eth0, vid: 7, name: uplink}
  mv0: {type: macvlan, parent: br0, netns: old}
  ifb9: {type: ifb}
shaping:
  - {source: eth0, ingress_to: ifb9, qdisc: {htb: {rate: 8mbit, leaf: {sfq: {}}}}, egress: {tbf: {rate: 4mbit, burst: 10k}}}
services: [{dnsmasq: {netns: ns0, interface: veth-b, range: "10.0.0.10,10.0.0.50"}}]
routes: [{to: 10.9.0.0/16, type: blackhole, table: 100}]
rules: [{priority: 9, from: 10.0.0.0/24, table: 100}]
nat: [{out: eth0}]
`), 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := writeSummary(&b, file); err != nil {
		t.Fatal(err)
	}
	const want = `net.yaml: right; instance net

network
  namespace ns0
  namespace old, external
  eth0, external
  bridge br0
    ports veth-a, tap0
    address 10.0.0.1/24
  veth veth-a, the other end being veth-b in ns0
    veth-b has address 10.0.0.2/24
    veth-b has route 0.0.0.0/0 via 10.0.0.1
  tap tap0
    handed over on /run/culvert/vm.sock
  vlan up0 (uplink) on eth0, VLAN 7
  macvlan mv0 in old on br0
  ifb ifb9
  what eth0 receives goes through ifb9 by htb 8mbit by sfq
  what eth0 sends is queued by tbf 4mbit
  dnsmasq on veth-b in ns0
  route blackhole 10.9.0.0/16 in table 100
  rule with priority 9
  masquerade by eth0
  26 things in all; culvert plan shows which are to be made

as the service culvert@net it needs more rights than the unit gives:
  wide.conf, for the network namespace ns0 (net.yaml:2:9)
  wide.conf, for the network namespace old (net.yaml:2:18)
  wide.conf, for the device and socket of tap0 (net.yaml:7:3)
  wide.conf, for dnsmasq (net.yaml:13:12)
  install -Dm644 /usr/share/culvert/systemd/wide.conf /etc/systemd/system/culvert@net.service.d/wide.conf && systemctl daemon-reload
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
