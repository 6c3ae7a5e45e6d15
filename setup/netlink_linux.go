package setup

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

func init() {
	// Without this a refusal is a bare errno; with it the kernel's own sentence comes along (NETLINK_EXT_ACK). The
	// variable is the library's and has to be set before the first request.
	nl.EnableErrorMessageReporting = true
}

// dumpAttempts bounds how often a listing is asked for again that changed while the kernel was giving it.
const dumpAttempts = 10

// dumped returns a complete listing.
func dumped[T any](list func() ([]T, error)) (items []T, err error) {
	for range dumpAttempts {
		items, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return items, err
}

// device returns a link of only the index, which is all that a change of it needs.
func device(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// addAddress adds an address to the link of that index. EEXIST where it is there already.
func addAddress(index int, p netip.Prefix, flags int) error {
	return netlink.AddrAdd(device(index),
		&netlink.Addr{IPNet: ipNet(p), Flags: flags, Broadcast: net.IPv4zero}) // no broadcast address, like ip-address(8)
}

// ipNet converts a prefix, keeping its host part.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf converts a prefix of the netlink library; false for nil, which some of its listings have for a default.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if bits := len(n.Mask) * 8; bits == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones), ok
}

// familyOf returns the address family as netlink numbers it.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
