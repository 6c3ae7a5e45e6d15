package main

import (
	"fmt"
	"net/netip"

	"culvert/setup/spec"
)

const (
	// setupGroup is how many devices a bridge and what belongs to it are.
	setupGroup = 10
	// setupMTU is not the kernel's own choice, so that each device's has to be set.
	setupMTU = 1400
	// minSetupDevices have all kinds of devices among them; with maxSetupDevices every group's network is within 10.0.0.0/8, and the
	// journal far below its bound.
	minSetupDevices, maxSetupDevices = 4, 10_000
)

// setupNetwork declares a network of that many devices. Every ten are a bridge with six ports: by turns one end of a veth pair and a
// tap. The bridge and the far end of each pair have an address of the bridge's network. What is left over is a smaller bridge.
func setupNetwork(devices int) *spec.Spec {
	s := &spec.Spec{Instance: "bench"}
	for group := 0; devices > 0; group++ {
		size := min(devices, setupGroup)
		devices -= size
		address := func(n int) []spec.Address {
			a := netip.AddrFrom4([4]byte{10, byte(group >> 8), byte(group), byte(n)})
			return []spec.Address{{Prefix: netip.PrefixFrom(a, 24)}}
		}
		bridge := spec.Link{Key: fmt.Sprint("br", group), Type: spec.TypeBridge, MTU: setupMTU, Addresses: address(1)}
		var ports []spec.Link
		for made := 1; made < size; {
			n := len(ports) + 1
			port := spec.Link{Key: fmt.Sprintf("tap%d-%d", group, n), Type: spec.TypeTap, Tun: &spec.Tun{Mode: spec.TypeTap}, MTU: setupMTU}
			if n%2 == 1 && size-made >= 2 {
				far := spec.Peer{Key: fmt.Sprintf("far%d-%d", group, n), MTU: setupMTU, Addresses: address(1 + n)}
				port = spec.Link{Key: fmt.Sprintf("veth%d-%d", group, n), Type: spec.TypeVeth, Veth: &spec.Veth{Peer: far}, MTU: setupMTU}
				made++
			}
			made++
			ports = append(ports, port)
			bridge.Ports = append(bridge.Ports, spec.Port{Link: port.Key})
		}
		s.Links = append(append(s.Links, bridge), ports...)
	}
	return s
}
