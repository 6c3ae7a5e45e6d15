package spec

import (
	"fmt"
	"iter"
	"strings"
)

// ValidMark has the reverse path filter look up by a packet's mark.
const ValidMark = "net.ipv4.conf.all.src_valid_mark"

// The settings that have a machine forward packets. That of IPv4 has a second name, which is not used.
const (
	Forwarding4      = "net.ipv4.ip_forward"
	Forwarding6      = "net.ipv6.conf.all.forwarding"
	forwarding4Alias = "net.ipv4.conf.all.forwarding"
)

// Forwarding are the settings that have a machine forward packets, each with the family whose they are, 4 or 6.
func Forwarding() iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		_ = yield(Forwarding4, 4) && yield(Forwarding6, 6)
	}
}

// deviceAt is the place of a device among the words of a setting's name: net.ipv4.conf.DEVICE.NAME.
const deviceAt = 3

// SysctlDevice is the device that a setting is one of, "" where it is none's.
func SysctlDevice(name string) string {
	words := strings.Split(name, ".")
	if len(words) != deviceAt+2 || words[2] != "conf" && words[2] != "neigh" || words[deviceAt] == "all" || words[deviceAt] == "default" {
		return ""
	}
	return words[deviceAt]
}

// SysctlOf is the setting of another device that is the same as name, which is one of a device.
func SysctlOf(name, device string) string {
	words := strings.Split(name, ".")
	words[deviceAt] = device
	return strings.Join(words, ".")
}

// ForwardingOf is the setting of [Forwarding] with which the kernel changes this one; "" where it does not. Of IPv4 they are the forwarding
// of each device and of those to come, and whether redirects are accepted, which is the opposite (inet_forward_change); of IPv6 the
// forwarding alone (addrconf_fixup_forwarding).
func ForwardingOf(name string) string {
	switch name {
	case redirects4, "net.ipv4.conf.default.forwarding":
		return Forwarding4
	case "net.ipv6.conf.default.forwarding":
		return Forwarding6
	}
	device := SysctlDevice(name)
	for main, family := range Forwarding() {
		if device != "" && name == DeviceForwarding(device, family) {
			return main
		}
	}
	return ""
}

const redirects4 = "net.ipv4.conf.all.accept_redirects"

// DeviceForwarding is the forwarding of a device in a family, 4 or 6; a dot in the device's name is written as a slash, as sysctl(8) has it.
func DeviceForwarding(device string, family int) string {
	return fmt.Sprintf("net.ipv%d.conf.%s.forwarding", family, strings.ReplaceAll(device, ".", "/"))
}

// Forwarded is the value that the kernel gives a setting when that of [ForwardingOf] is given one.
func Forwarded(name, value string) string {
	switch {
	case name != redirects4:
		return value
	case value == "0":
		return "1"
	}
	return "0"
}

// ForwardingSettings are those that the kernel changes with one of [Forwarding] in a namespace with these devices.
func ForwardingSettings(main string, devices []string) (list []string) {
	for name, family := range Forwarding() {
		if name != main {
			continue
		}
		if family == 4 {
			list = append(list, redirects4)
		}
		list = append(list, DeviceForwarding("default", family))
		for _, d := range devices {
			list = append(list, DeviceForwarding(d, family))
		}
	}
	return list
}
