package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/rtnl"
)

const routeLength = 12 // of struct rtmsg

// routeTypes are the kinds of routes, by their names in ip-route(8).
var routeTypes = names{"unicast": unix.RTN_UNICAST, "blackhole": unix.RTN_BLACKHOLE, "unreachable": unix.RTN_UNREACHABLE,
	"prohibit": unix.RTN_PROHIBIT, "local": unix.RTN_LOCAL, "broadcast": unix.RTN_BROADCAST, "anycast": unix.RTN_ANYCAST,
	"multicast": unix.RTN_MULTICAST, "throw": unix.RTN_THROW}

// route is an entry of a routing table.
type route struct {
	prefix   netip.Prefix
	table    uint32
	metric   uint32
	kind     uint8
	protocol uint8
	index    int // of the output device, 0 for none
	gateway  netip.Addr
	source   netip.Addr
	mtu      uint32
	onlink   bool
}

func parseRoute(b []byte) (route, bool) {
	if len(b) < routeLength || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return route{}, false
	}
	if binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
		return route{}, false // a remembered decision, not an entry
	}
	r := route{table: uint32(b[4]), protocol: b[5], kind: b[7], onlink: binary.NativeEndian.Uint32(b[8:])&unix.RTNH_F_ONLINK != 0}
	attributes := rtnl.Parse(b[routeLength:])
	destination, ok := netip.AddrFromSlice(attributes[unix.RTA_DST])
	if !ok {
		destination = netip.IPv4Unspecified()
		if b[0] == unix.AF_INET6 {
			destination = netip.IPv6Unspecified()
		}
	}
	r.prefix = netip.PrefixFrom(destination, int(b[1]))
	if t, ok := attributes[unix.RTA_TABLE]; ok {
		r.table = uint32(rtnl.Uint(t))
	}
	r.metric = uint32(rtnl.Uint(attributes[unix.RTA_PRIORITY]))
	r.index = int(rtnl.Uint(attributes[unix.RTA_OIF]))
	r.gateway, _ = netip.AddrFromSlice(attributes[unix.RTA_GATEWAY])
	if via := attributes[unix.RTA_VIA]; len(via) > 2 {
		r.gateway, _ = netip.AddrFromSlice(via[2:])
	}
	r.source, _ = netip.AddrFromSlice(attributes[unix.RTA_PREFSRC])
	r.mtu = uint32(rtnl.Uint(rtnl.Parse(attributes[unix.RTA_METRICS])[unix.RTAX_MTU]))
	return r, true
}

// routes lists the entries of every table but local that the kernel did not make itself.
func (n *namespace) routes() (list []route, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		head := make([]byte, routeLength)
		head[0] = family
		messages, err := n.conn.Dump(unix.RTM_GETROUTE, head)
		if missingFamily(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if r, ok := parseRoute(m); ok && r.table != unix.RT_TABLE_LOCAL && r.protocol != unix.RTPROT_KERNEL {
				list = append(list, r)
			}
		}
	}
	return list, nil
}

// missingFamily reports whether an error says that the kernel knows no such addresses or rules.
func missingFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// fields returns the object's ID and fields; devices are the links of the namespace by index.
func (r route) fields(netns string, devices map[int]*link) (model.ID, model.Fields) {
	id := model.RouteID(netns, strconv.FormatUint(uint64(r.table), 10), r.prefix.String(), strconv.FormatUint(uint64(r.metric), 10))
	f := model.Fields{"onlink": model.Bool(r.onlink)}
	f["type"], _ = named(1, routeTypes).decode([]byte{r.kind})
	if l := devices[r.index]; l != nil && r.kind == unix.RTN_UNICAST {
		f["link"] = model.Link(model.NewRef(netns, l.name))
	}
	if r.gateway.IsValid() {
		f["gateway"] = model.Text(r.gateway.String())
	}
	if r.source.IsValid() {
		f["source"] = model.Text(r.source.String())
	}
	if r.mtu != 0 {
		f["mtu"] = model.Uint(r.mtu)
	}
	return id, f
}

// routeRequest is the message that creates or deletes the step's route; a nil message says that its device is gone.
func (w *work) routeRequest() ([]byte, error) {
	words := w.step.ID.Words() // netns, table, prefix, metric
	table, errTable := strconv.ParseUint(words[1], 10, 32)
	prefix, errPrefix := netip.ParsePrefix(words[2])
	metric, errMetric := strconv.ParseUint(words[3], 10, 32)
	if err := errors.Join(errTable, errPrefix, errMetric); err != nil {
		return nil, err
	}
	fields := w.step.Fields
	kind := uint64(unix.RTN_UNICAST)
	if text := fields["type"]; text != "" {
		b, err := named(1, routeTypes).encode(text)
		if err != nil {
			return nil, err
		}
		kind = rtnl.Uint(b)
	}
	head := make([]byte, routeLength)
	head[0], head[1] = family(prefix.Addr()), byte(prefix.Bits())
	head[4] = byte(min(table, unix.RT_TABLE_COMPAT))
	head[5], head[7] = w.protocol(), byte(kind)
	if table < 256 {
		head[4] = byte(table)
	}
	gateway, hasGateway, err := fieldAddress(fields, "gateway")
	if err != nil {
		return nil, err
	}
	if kind == unix.RTN_UNICAST && !hasGateway && prefix.Addr().Is4() {
		head[6] = unix.RT_SCOPE_LINK
	}
	if w.step.Op == plan.Delete {
		head[6] = unix.RT_SCOPE_NOWHERE
	}
	if fields["onlink"].Bool() {
		binary.NativeEndian.PutUint32(head[8:], unix.RTNH_F_ONLINK)
	}
	a := &rtnl.Attributes{}
	a.Raw(head)
	a.Put(unix.RTA_DST, prefix.Masked().Addr().AsSlice())
	a.Uint32(unix.RTA_TABLE, uint32(table))
	if metric != 0 {
		a.Uint32(unix.RTA_PRIORITY, uint32(metric))
	}
	if ref := fields["link"].Link(); ref != "" {
		l, err := w.ns.linkByName(ref.Name())
		if err != nil {
			return nil, err
		}
		if l == nil && w.step.Op == plan.Delete {
			return nil, nil
		}
		if l == nil {
			return nil, fmt.Errorf("link %s: %w", ref, unix.ENODEV)
		}
		if w.step.Index != 0 && w.step.Index != l.index {
			return nil, another(string(ref), l.index, w.step.Index)
		}
		a.Uint32(unix.RTA_OIF, uint32(l.index))
	}
	if hasGateway && gateway.Is4() == prefix.Addr().Is4() {
		a.Put(unix.RTA_GATEWAY, gateway.AsSlice())
	} else if hasGateway {
		a.Put(unix.RTA_VIA, append(sized(uint64(family(gateway)), 2), gateway.AsSlice()...))
	}
	if w.step.Op == plan.Delete {
		return a.Bytes(), nil
	}
	source, hasSource, err := fieldAddress(fields, "source")
	if err != nil {
		return nil, err
	}
	if hasSource {
		a.Put(unix.RTA_PREFSRC, source.AsSlice())
	}
	if mtu := fields["mtu"].Uint(); mtu != 0 {
		a.Nest(unix.RTA_METRICS, func(a *rtnl.Attributes) { a.Uint32(unix.RTAX_MTU, uint32(mtu)) })
	}
	return a.Bytes(), nil
}

// protocol is who made a route or rule: culvert, or an administrator where somebody else's is put back. Deleting one of somebody else's, any.
func (w *work) protocol() uint8 {
	switch {
	case !w.step.Foreign:
		return model.RouteProtocol
	case w.step.Op == plan.Delete:
		return unix.RTPROT_UNSPEC
	}
	return unix.RTPROT_BOOT
}

func fieldAddress(fields model.Fields, f model.Field) (netip.Addr, bool, error) {
	text := fields[f]
	if text == "" {
		return netip.Addr{}, false, nil
	}
	a, err := netip.ParseAddr(string(text))
	if err != nil {
		err = fmt.Errorf("%s: %w", f, err)
	}
	return a, err == nil, err
}

func createRoute(w *work) (apply.Done, error) {
	request, err := w.routeRequest()
	if err != nil {
		return apply.Done{}, err
	}
	return apply.Done{}, w.ns.conn.Do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, request)
}

func deleteRoute(w *work) (apply.Done, error) {
	request, err := w.routeRequest()
	if err != nil || request == nil {
		return apply.Done{}, err
	}
	err = w.ns.conn.Do(unix.RTM_DELROUTE, 0, request)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) {
		err = nil
	}
	return apply.Done{}, err
}
