package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Masquerade makes the host a router that hides what leaves through device behind the device's own addresses, for both
// families. Each flow is mapped to a random port and keeps it until [Host.ForgetFlows].
func (h *Host) Masquerade(device string) {
	h.t.Helper()
	h.Forward()
	h.Must(func() error { return masquerade(device) })
}

func masquerade(device string) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		table := conn.AddTable(&nftables.Table{Name: "lab-nat-" + device, Family: family})
		chain := conn.AddChain(&nftables.Chain{Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: interfaceName(device)},
			&expr.Masq{FullyRandom: true},
		}})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables: masquerade %s: %w", device, err)
	}
	return nil
}

// interfaceName is a device's name as nftables compares it: with its zero bytes.
func interfaceName(device string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, device)
	return b
}

// ForgetFlows empties the table of tracked connections, as a restarted router does: a mapping is chosen anew with
// the next packet.
func (h *Host) ForgetFlows() {
	h.t.Helper()
	h.Must(func() error {
		err := netlink.ConntrackTableFlush(netlink.ConntrackTable)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("flush the connection table: %w", err)
		}
		return nil
	})
}

// Flow is a tracked connection: where its first packet came from and went to, and the same of its answers.
type Flow struct {
	Protocol         uint8
	From, To         netip.AddrPort
	BackFrom, BackTo netip.AddrPort
}

// Flows lists the connections that the kernel tracks for the host.
func (h *Host) Flows() (list []Flow) {
	h.t.Helper()
	at := func(ip net.IP, port uint16) netip.AddrPort {
		a, _ := netip.AddrFromSlice(ip)
		return netip.AddrPortFrom(a.Unmap(), port)
	}
	h.Must(func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return fmt.Errorf("list the connection table: %w", err)
			}
			for _, f := range flows {
				list = append(list, Flow{f.Forward.Protocol, at(f.Forward.SrcIP, f.Forward.SrcPort), at(f.Forward.DstIP, f.Forward.DstPort),
					at(f.Reverse.SrcIP, f.Reverse.SrcPort), at(f.Reverse.DstIP, f.Reverse.DstPort)})
			}
		}
		return nil
	})
	return list
}

// NeedNAT skips the test where the kernel cannot masquerade.
func NeedNAT(t testing.TB) {
	t.Helper()
	NeedNetns(t)
	h := NewHost(t, "natprobe")
	if err := h.Do(func() error { return masquerade("lo") }); err != nil {
		Skip(t, "needs address translation in the kernel: "+err.Error())
	}
}
