package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"culvert/setup"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Wire is a veth pair between two hosts.
type Wire struct{ A, B End }

// End is one end of a wire.
type End struct {
	Host   *Host
	Device string
	V4, V6 netip.Prefix // with the host part; the zero value where the end has none
}

// LinkOption changes what Link makes.
type LinkOption func(*linkOptions)

type linkOptions struct {
	nameA, nameB   string
	addrsA, addrsB []netip.Prefix
	addrsSet       bool
	mtu            int
	noOffloads     bool
}

// Names names the two devices; by default they are eth0, eth1 and so on in each host.
func Names(a, b string) LinkOption {
	return func(o *linkOptions) { o.nameA, o.nameB = a, b }
}

// Addresses sets the addresses of both ends, each a list of prefixes parted by spaces; "" for none. By default each end
// gets one of either family from a subnet no other wire of this process has.
func Addresses(a, b string) LinkOption {
	return func(o *linkOptions) {
		o.addrsA, o.addrsB, o.addrsSet = prefixes(a), prefixes(b), true
	}
}

// MTU sets the MTU of both ends.
func MTU(n int) LinkOption { return func(o *linkOptions) { o.mtu = n } }

// NoOffloads switches off checksum and segmentation offloads of both ends, so that each packet crosses the wire as it
// would cross a real one.
func NoOffloads() LinkOption { return func(o *linkOptions) { o.noOffloads = true } }

var wireCount atomic.Uint32

// Link joins two hosts by a veth pair.
func Link(t testing.TB, a, b *Host, opts ...LinkOption) Wire {
	t.Helper()
	var o linkOptions
	for _, opt := range opts {
		opt(&o)
	}
	if o.nameA == "" {
		o.nameA = a.nextDevice()
	}
	if o.nameB == "" {
		o.nameB = b.nextDevice()
	}
	if !o.addrsSet {
		n := wireCount.Add(1)
		hi, lo := byte(n>>8), byte(n)
		o.addrsA = []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + hi, lo, 1}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0xc0, 6: hi, 7: lo, 15: 1}), 64),
		}
		for _, p := range o.addrsA {
			o.addrsB = append(o.addrsB, netip.PrefixFrom(p.Addr().Next(), p.Bits()))
		}
	}
	err := setup.VethPair(
		setup.VethEnd{Namespace: a.Namespace, Name: o.nameA, Addresses: o.addrsA},
		setup.VethEnd{Namespace: b.Namespace, Name: o.nameB, Addresses: o.addrsB}, o.mtu)
	if err != nil {
		t.Fatal(err)
	}
	if o.noOffloads {
		a.SetOffloads(o.nameA, false)
		b.SetOffloads(o.nameB, false)
	}
	return Wire{newEnd(a, o.nameA, o.addrsA), newEnd(b, o.nameB, o.addrsB)}
}

func newEnd(h *Host, device string, addrs []netip.Prefix) End {
	e := End{Host: h, Device: device}
	for _, p := range addrs {
		switch {
		case p.Addr().Is4() && !e.V4.IsValid():
			e.V4 = p
		case p.Addr().Is6() && !e.V6.IsValid():
			e.V6 = p
		}
	}
	return e
}

// prefixes parses a list of prefixes parted by spaces; a mistake in it is one in the test.
func prefixes(list string) (ps []netip.Prefix) {
	for s := range strings.FieldsSeq(list) {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// withLink runs f inside the namespace on one of its devices.
func (h *Host) withLink(device string, f func(netlink.Link) error) {
	h.t.Helper()
	h.Must(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
		if err := f(link); err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
		return nil
	})
}

// Up sets a device up.
func (h *Host) Up(device string) {
	h.t.Helper()
	h.withLink(device, netlink.LinkSetUp)
}

// Down sets a device down; its IPv6 addresses and its routes go with that.
func (h *Host) Down(device string) {
	h.t.Helper()
	h.withLink(device, netlink.LinkSetDown)
}

// SetMTU sets a device's MTU.
func (h *Host) SetMTU(device string, mtu int) {
	h.t.Helper()
	h.withLink(device, func(l netlink.Link) error { return netlink.LinkSetMTU(l, mtu) })
}

// DeleteLink deletes a device.
func (h *Host) DeleteLink(device string) {
	h.t.Helper()
	h.withLink(device, netlink.LinkDel)
}

// AddAddr gives a device an address with its prefix length.
func (h *Host) AddAddr(device, prefix string) {
	h.t.Helper()
	h.withLink(device, func(l netlink.Link) error { return netlink.AddrAdd(l, labAddr(prefix)) })
}

// DelAddr takes an address from a device.
func (h *Host) DelAddr(device, prefix string) {
	h.t.Helper()
	h.withLink(device, func(l netlink.Link) error { return netlink.AddrDel(l, labAddr(prefix)) })
}

func labAddr(prefix string) *netlink.Addr {
	p := netip.MustParsePrefix(prefix)
	return &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// AddRoute routes a prefix ("default4" and "default6" stand for all addresses) via a gateway, over a device, or both;
// either may be empty.
func (h *Host) AddRoute(prefix, via, device string) {
	h.t.Helper()
	h.route(prefix, via, device, netlink.RouteAdd)
}

// DelRoute takes away what AddRoute added.
func (h *Host) DelRoute(prefix, via, device string) {
	h.t.Helper()
	h.route(prefix, via, device, netlink.RouteDel)
}

func (h *Host) route(prefix, via, device string, f func(*netlink.Route) error) {
	h.t.Helper()
	switch prefix {
	case "default4":
		prefix = "0.0.0.0/0"
	case "default6":
		prefix = "::/0"
	}
	route := &netlink.Route{Dst: ipNet(netip.MustParsePrefix(prefix).Masked())}
	if via != "" {
		route.Gw = netip.MustParseAddr(via).AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	h.Must(func() error {
		if device != "" {
			link, err := netlink.LinkByName(device)
			if err != nil {
				return fmt.Errorf("%s: %w", device, err)
			}
			route.LinkIndex = link.Attrs().Index
		}
		if err := f(route); err != nil {
			return fmt.Errorf("route %s: %w", prefix, err)
		}
		return nil
	})
}

// Forward makes the host a router for both families.
func (h *Host) Forward() {
	h.t.Helper()
	h.Sysctl("net/ipv4/ip_forward", "1")
	h.trySysctl("net/ipv6/conf/all/forwarding", "1")
}

// HasLink reports whether the host has a device of that name.
func (h *Host) HasLink(device string) bool {
	h.t.Helper()
	var has bool
	h.Must(func() error {
		_, err := netlink.LinkByName(device)
		if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
			return nil
		}
		has = err == nil
		return err
	})
	return has
}
