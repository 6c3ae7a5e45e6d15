package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
)

const (
	addressLength = 8  // of struct ifaddrmsg
	ifaProtocol   = 11 // IFA_PROTO (linux/if_addr.h); Linux 5.18

	// Who made an address (IFA_PROTO): the kernel on the loopback device, by a router's advertisement, as a link-local one.
	protocolLoopback = 1
	protocolRouter   = 2
	protocolLocal    = 3
)

// address is an entry of a link.
type address struct {
	index  int
	prefix netip.Prefix
	nodad  bool
	ours   bool
	kernel bool // made by the kernel itself
}

func parseAddress(b []byte) (address, bool) {
	if len(b) < addressLength {
		return address{}, false
	}
	bits, flags, scope := int(b[1]), uint32(b[2]), b[3]
	a := address{index: int(binary.NativeEndian.Uint32(b[4:]))}
	attributes := rtnl.Parse(b[addressLength:])
	if f, ok := attributes[unix.IFA_FLAGS]; ok {
		flags = uint32(rtnl.Uint(f))
	}
	ip, ok := netip.AddrFromSlice(attributes[unix.IFA_LOCAL])
	if !ok {
		ip, ok = netip.AddrFromSlice(attributes[unix.IFA_ADDRESS])
	}
	a.prefix = netip.PrefixFrom(ip, bits)
	a.nodad = flags&unix.IFA_F_NODAD != 0
	protocol, told := attributes[ifaProtocol]
	switch {
	case told && rtnl.Uint(protocol) != 0:
		a.ours = rtnl.Uint(protocol) == model.RouteProtocol
		a.kernel = rtnl.Uint(protocol) <= protocolLocal
	case ip.Is6() && flags&unix.IFA_F_PERMANENT == 0, flags&unix.IFA_F_TEMPORARY != 0 && ip.Is6():
		a.kernel = true // from a router
	case !told && ip.Is6() && scope == unix.RT_SCOPE_LINK && ip.AsSlice()[11] == 0xff && ip.AsSlice()[12] == 0xfe:
		a.kernel = true // an older kernel: made of the link's own address
	}
	return a, ok
}

// addresses lists those of every link of the namespace that the kernel did not make itself.
func (n *namespace) addresses() (list []address, err error) {
	messages, err := n.conn.Dump(unix.RTM_GETADDR, make([]byte, addressLength))
	for _, m := range messages {
		if a, ok := parseAddress(m); ok && !a.kernel {
			list = append(list, a)
		}
	}
	return list, err
}

func (w *work) addressRequest(index int) ([]byte, error) {
	prefix, err := netip.ParsePrefix(w.step.ID.Words()[1])
	if err != nil {
		return nil, err
	}
	head := make([]byte, addressLength)
	head[0], head[1] = family(prefix.Addr()), byte(prefix.Bits())
	binary.NativeEndian.PutUint32(head[4:], uint32(index))
	if prefix.Addr().IsLoopback() {
		head[3] = unix.RT_SCOPE_HOST
	}
	a := &rtnl.Attributes{}
	a.Raw(head)
	a.Put(unix.IFA_LOCAL, prefix.Addr().AsSlice())
	a.Put(unix.IFA_ADDRESS, prefix.Addr().AsSlice())
	if w.step.Op == plan.Create {
		if w.step.Fields["nodad"].Bool() {
			a.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
		}
		if !w.step.Foreign {
			a.Uint8(ifaProtocol, model.RouteProtocol)
		}
	}
	return a.Bytes(), nil
}

func createAddress(w *work) (apply.Done, error) {
	l, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	request, err := w.addressRequest(l.index)
	if err != nil {
		return apply.Done{}, err
	}
	return apply.Done{Index: l.index}, w.ns.conn.Do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, request)
}

func deleteAddress(w *work) (apply.Done, error) {
	l, err := w.link()
	if err != nil || l == nil {
		return apply.Done{}, err
	}
	request, err := w.addressRequest(l.index)
	if err != nil {
		return apply.Done{}, err
	}
	err = w.ns.conn.Do(unix.RTM_DELADDR, 0, request)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		err = nil
	}
	return apply.Done{}, err
}

// family is the number of an address's family.
func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
