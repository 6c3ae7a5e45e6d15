package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
)

// Masquerading is one table of family inet with one chain, whose rules are "meta nfproto FAMILY oifname OUT saddr SOURCE masquerade", the
// comparison of the source left out where it is everything; or, for the clients of a tunnel, "oifname != TUNNEL" and "masquerade fully-random".

const (
	natChain   = "postrouting"
	ours       = "culvert" // what the name of a table made here begins with
	reg        = 1         // nftables' first register
	sourceIPv4 = 12        // where the source address is in a header
	sourceIPv6 = 8
)

// nftables opens a connection in the namespace. That the kernel has the family at all is found out first: the library crashes without.
func (n *namespace) nftables() (*nftables.Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	unix.Close(fd)
	if n.here() {
		return nftables.New()
	}
	return nftables.New(nftables.WithNetNSFd(n.file))
}

// flush sends what was put together, all or nothing. Of a refusal the kernel's answer is told, once: the library has one for each message,
// in words of its own functions.
func flush(conn *nftables.Conn) error {
	err := conn.Flush()
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return fmt.Errorf("nftables: %w", errno)
	}
	return err
}

// masquerade is one rule.
type masquerade struct {
	out    string // the device that packets leave by
	except bool   // by any but that one, and from ports picked at random
	source netip.Prefix
}

func (m masquerade) String() string {
	text := m.out + "," + m.source.String()
	if m.except {
		text = "!" + text
	}
	return text
}

func parseMasquerades(v model.Value) ([]masquerade, error) {
	var list []masquerade
	for _, word := range v.List() {
		m := masquerade{}
		at := strings.LastIndexByte(word, ',')
		if at < 1 {
			return nil, fmt.Errorf("%q is not OUT,SOURCE", word)
		}
		p, err := netip.ParsePrefix(word[at+1:])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
		m.source = p.Masked()
		if m.out, m.except = strings.CutPrefix(word[:at], "!"); m.out == "" || len(m.out) >= unix.IFNAMSIZ {
			return nil, fmt.Errorf("%q: the device's name has not 1 to %d bytes", word, unix.IFNAMSIZ-1)
		}
		list = append(list, m)
	}
	return list, nil
}

// expressions are the rule in the language of nftables.
func (m masquerade) expressions() []expr.Any {
	protocol, offset := byte(unix.NFPROTO_IPV4), uint32(sourceIPv4)
	if m.source.Addr().Is6() {
		protocol, offset = unix.NFPROTO_IPV6, sourceIPv6
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, m.out)
	is := expr.CmpOpEq
	if m.except {
		is = expr.CmpOpNeq
	}
	list := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{protocol}},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg},
		&expr.Cmp{Op: is, Register: reg, Data: name},
	}
	if bits := m.source.Bits(); bits > 0 {
		length := uint32(m.source.Addr().BitLen() / 8)
		mask := make([]byte, length)
		for i := range bits {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		list = append(list,
			&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length, DestRegister: reg},
			&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: length, Mask: mask, Xor: make([]byte, length)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: m.source.Addr().AsSlice()})
	}
	return append(list, &expr.Masq{FullyRandom: m.except})
}

// readMasquerade is the inverse; false for any other rule.
func readMasquerade(list []expr.Any) (m masquerade, ok bool) {
	compared := func(at int) []byte {
		if c, is := list[at].(*expr.Cmp); is && c.Op == expr.CmpOpEq {
			return c.Data
		}
		return nil
	}
	meta := func(at int, key expr.MetaKey) bool {
		m, is := list[at].(*expr.Meta)
		return is && m.Key == key && !m.SourceRegister
	}
	if len(list) != 5 && len(list) != 8 || !meta(0, expr.MetaKeyNFPROTO) || !meta(2, expr.MetaKeyOIFNAME) {
		return m, false
	}
	masq, is := list[len(list)-1].(*expr.Masq)
	if !is || masq.ToPorts {
		return m, false
	}
	if c, is := list[3].(*expr.Cmp); is && masq.FullyRandom == (c.Op == expr.CmpOpNeq) && (c.Op == expr.CmpOpEq || c.Op == expr.CmpOpNeq) {
		m.out, m.except = string(bytes.TrimRight(c.Data, "\x00")), c.Op == expr.CmpOpNeq
	} else {
		return m, false
	}
	m.source = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if bytes.Equal(compared(1), []byte{unix.NFPROTO_IPV6}) {
		m.source = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if len(list) == 8 {
		mask, is := list[5].(*expr.Bitwise)
		source, valid := netip.AddrFromSlice(compared(6))
		if !is || !valid {
			return m, false
		}
		bits := 0
		for _, b := range mask.Mask {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
		m.source = netip.PrefixFrom(source, bits)
	}
	return m, true
}

// readNAT adds culvert's tables to a system.
func (n *namespace) readNAT(s *model.System) error {
	conn, err := n.nftables()
	if err != nil {
		return nil // no netfilter, so none
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil // no nftables, so none
	}
	for _, table := range tables {
		if !strings.HasPrefix(table.Name, ours) {
			continue
		}
		chains, err := chainsIn(conn, table.Name)
		if err != nil {
			return err
		}
		if strings.HasPrefix(table.Name, firewallPrefix) {
			fields, err := readFirewall(conn, table, chains)
			if err != nil {
				return err
			}
			id := model.FirewallID(n.name, table.Name)
			s.Objects[id] = &model.Object{ID: id, Fields: fields, Inode: n.inode, Ours: looksMade(fields)}
			continue
		}
		id := model.NATID(n.name, table.Name)
		o := &model.Object{ID: id, Fields: model.Fields{}, Inode: n.inode}
		s.Objects[id] = o
		rules, err := conn.GetRules(table, &nftables.Chain{Name: natChain, Table: table})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		var words []string
		for _, r := range rules {
			word := "?"
			if m, ok := readMasquerade(r.Exprs); ok {
				word = m.String()
			}
			words = append(words, word)
		}
		slices.Sort(words)
		o.Fields["masquerade"] = model.List(words)
		// The name is no more than a hint: somebody else's table may have it.
		o.Ours = len(chains) == 1 && chains[0].Name == natChain && chains[0].Type == nftables.ChainTypeNAT && !slices.Contains(words, "?")
	}
	return nil
}

// table is the step's.
func (w *work) table() *nftables.Table {
	return &nftables.Table{Name: w.step.ID.Words()[1], Family: nftables.TableFamilyINet}
}

// addMasquerades fills a new table.
func addMasquerades(conn *nftables.Conn, table *nftables.Table, list []masquerade) {
	chain := conn.AddChain(&nftables.Chain{Name: natChain, Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	for _, m := range list {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: m.expressions()})
	}
}

func createNAT(w *work) (apply.Done, error) {
	list, err := parseMasquerades(w.step.Fields["masquerade"])
	if err != nil {
		return apply.Done{}, err
	}
	if !strings.HasPrefix(w.table().Name, ours) {
		return apply.Done{}, fmt.Errorf("the name of a table does not begin with %q: %w", ours, errRefused)
	}
	conn, err := w.ns.nftables()
	if err != nil {
		return apply.Done{}, err
	}
	addMasquerades(conn, conn.CreateTable(w.table()), list)
	return apply.Done{}, flush(conn)
}

// changeNAT puts another table in the place of the one that is there, in one transaction.
func changeNAT(w *work) (apply.Done, error) {
	for _, c := range w.step.Changes {
		if c.Field != "masquerade" {
			continue
		}
		list, err := parseMasquerades(c.New)
		if err != nil {
			return apply.Done{}, &fieldError{c, err}
		}
		conn, err := w.ns.nftables()
		if err != nil {
			return apply.Done{}, err
		}
		conn.DelTable(w.table())
		addMasquerades(conn, conn.AddTable(w.table()), list)
		if err := flush(conn); err != nil {
			return apply.Done{}, &fieldError{c, err}
		}
	}
	return apply.Done{}, nil
}

func deleteNAT(w *work) (apply.Done, error) {
	if !strings.HasPrefix(w.table().Name, ours) {
		return apply.Done{}, fmt.Errorf("the name of a table does not begin with %q: %w", ours, errRefused)
	}
	conn, err := w.ns.nftables()
	if err != nil {
		return apply.Done{}, err
	}
	conn.DelTable(w.table())
	err = flush(conn)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return apply.Done{}, err
}
