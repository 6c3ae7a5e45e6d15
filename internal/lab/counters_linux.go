package lab

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Counters are what a device has counted since it was made.
type Counters struct{ ReceivedPackets, SentPackets uint64 }

// Counters reads a device's counters.
func (h *Host) Counters(device string) (c Counters) {
	h.t.Helper()
	h.withLink(device, func(l netlink.Link) error {
		if s := l.Attrs().Statistics; s != nil {
			c = Counters{ReceivedPackets: s.RxPackets, SentPackets: s.TxPackets}
		}
		return nil
	})
	return c
}

// Carrier reports whether a device is up and has its carrier.
func (h *Host) Carrier(device string) bool {
	h.t.Helper()
	return h.hasFlag(device, unix.IFF_LOWER_UP)
}

// Running reports whether a device sends, which the kernel lets it do a moment after it has its carrier.
func (h *Host) Running(device string) bool {
	h.t.Helper()
	return h.hasFlag(device, unix.IFF_RUNNING)
}

func (h *Host) hasFlag(device string, flag uint32) (has bool) {
	h.t.Helper()
	h.withLink(device, func(l netlink.Link) error {
		has = l.Attrs().RawFlags&flag != 0
		return nil
	})
	return has
}

// HardwareAddr returns a device's MAC address as text.
func (h *Host) HardwareAddr(device string) (text string) {
	h.t.Helper()
	h.withLink(device, func(l netlink.Link) error {
		text = l.Attrs().HardwareAddr.String()
		return nil
	})
	return text
}
