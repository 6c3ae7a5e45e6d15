package setup

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// firewallPrefix starts the name of each nftables table made here; the link's name follows.
const firewallPrefix = "culvert-l3-"

// Register of the expressions; nftables' first.
const reg = 1

// addFirewall adds an nftables table per family that protects a link with a default route (see [Apply]). A kernel
// without nftables is a warning: the tunnel works without, only less guarded.
func (w *l3Work) addFirewall(families []int, mark uint32) error {
	for _, family := range families {
		table, set := w.firewall(family, mark)
		err := set()
		if unsupported(err) {
			w.warn(&OpError{Op: "add nftables table", Item: table.Name, Err: err,
				Hint: "packets with forged addresses are not filtered, and under a strict rp_filter answers may be dropped; " +
					"the kernel needs CONFIG_NF_TABLES, CONFIG_NFT_FIB_INET and CONFIG_NFT_CT"})
			return nil
		}
		if err != nil {
			return err
		}
		w.applied.follow = append(w.applied.follow, set)
		w.done("delete nftables table", table.Name, func() error { return deleteTable(table) })
	}
	return nil
}

// unsupported reports whether an error of nftables says that the kernel lacks it, or an expression or a hook of it.
func unsupported(err error) bool {
	for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOENT, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func nftFamily(family int) nftables.TableFamily {
	if family == netlink.FAMILY_V6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// addFirewallTable makes the table in one transaction, in place of one a killed process left under the name.
func addFirewallTable(table *nftables.Table, link string, addrs []netip.Addr, mark uint32) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	// Adding first what may be there already makes the deletion right in any case.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: priority})
	}
	rule := func(chain *nftables.Chain, exprs ...expr.Any) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	markData := binaryutil.NativeEndian.PutUint32(mark)

	// iifname != link, daddr one of the link's, fib saddr type != local: drop. Nobody but the tunnel may deliver
	// to the tunnel's addresses.
	raw := chain("preraw", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	for _, addr := range addrs {
		offset := uint32(16) // of the destination in an IPv4 header
		if addr.Is6() {
			offset = 24
		}
		rule(raw,
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: interfaceName(link)},
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(addr.BitLen() / 8),
				DestRegister: reg},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: addr.AsSlice()},
			&expr.Fib{Register: reg, FlagSADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
			&expr.Verdict{Kind: expr.VerdictDrop})
	}
	udp := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_UDP}},
	}
	isMark := &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: markData}

	// The connection of the tunnel's datagrams remembers their mark,
	rule(chain("postmangle", nftables.ChainHookPostrouting, nftables.ChainPriorityMangle), append(udp[:2:2],
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		isMark,
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true})...)
	// and its answers are given it.
	rule(chain("premangle", nftables.ChainHookPrerouting, nftables.ChainPriorityMangle), append(udp[:2:2],
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg},
		isMark,
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true})...)
	return conn.Flush()
}

func deleteTable(table *nftables.Table) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.DelTable(table)
	return conn.Flush()
}

// reapFirewalls removes the tables of links that are gone.
func reapFirewalls() {
	conn, err := nftables.New()
	if err != nil {
		return
	}
	tables, err := conn.ListTables()
	if err != nil {
		return
	}
	for _, table := range tables {
		link, ours := strings.CutPrefix(table.Name, firewallPrefix)
		if !ours {
			continue
		}
		if _, err := netlink.LinkByName(link); gone(err) {
			_ = deleteTable(table)
		}
	}
}

// interfaceName is a device's name as nftables compares it: with its zero bytes.
func interfaceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
