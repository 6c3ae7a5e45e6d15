package spec

import "testing"

// The words around a device may be called as it is.
func TestSysctlOf(t *testing.T) {
	for _, c := range []struct{ name, device, want string }{
		{"net.ipv4.conf.eth0.proxy_arp", "eth0", "net.ipv4.conf.lo.proxy_arp"},
		{"net.ipv4.conf.ipv4.proxy_arp", "ipv4", "net.ipv4.conf.lo.proxy_arp"},
		{"net.ipv4.conf.conf.forwarding", "conf", "net.ipv4.conf.lo.forwarding"},
		{"net.ipv6.neigh.eth0.ucast_solicit", "eth0", "net.ipv6.neigh.lo.ucast_solicit"},
	} {
		if device := SysctlDevice(c.name); device != c.device {
			t.Errorf("%s is of the device %q", c.name, device)
		}
		if have := SysctlOf(c.name, "lo"); have != c.want {
			t.Errorf("%s of lo is %s, want %s", c.name, have, c.want)
		}
	}
}
