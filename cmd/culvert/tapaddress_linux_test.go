package main

import (
	"strings"
	"testing"

	"culvert/config"
	"culvert/internal/lab"
	"culvert/tunnel/device"
)

// A bridge keeps the address that the network knows the host by when a tap becomes a port of it, and when that goes.
func TestTapLeavesTheBridgesAddress(t *testing.T) {
	lab.NeedTun(t)
	h := lab.NewHost(t, "a")
	h.Shell("ip", "link", "add", "br0", "type", "bridge")
	h.Shell("ip", "link", "add", "port", "type", "veth", "peer", "name", "station")
	h.Shell("ip", "link", "set", "port", "address", "f2:00:00:00:00:01") // higher than nearly all random ones
	h.Shell("ip", "link", "set", "port", "master", "br0")
	address := func(link string) string {
		return strings.Fields(strings.SplitAfter(h.Shell("ip", "-o", "link", "show", "dev", link), "link/ether ")[1])[0]
	}
	before := address("br0")
	seen := make(map[string]bool)
	for range 5 {
		var d device.Device
		h.Must(func() (err error) {
			d, err = linux().openTap("", "office", config.MAC{}, 1)
			return err
		})
		h.Shell("ip", "link", "set", "office", "master", "br0")
		if got := address("br0"); got != before {
			t.Errorf("the bridge's address is %s, was %s; the tap's is %s", got, before, address("office"))
		}
		seen[address("office")] = true
		d.Close()
		if got := address("br0"); got != before {
			t.Errorf("the bridge's address is %s afterwards, was %s", got, before)
		}
	}
	if len(seen) != 5 {
		t.Errorf("taps share addresses: %v", seen)
	}
}
