package transport

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// routeQueryTimeout bounds the wait for the kernel's answer, which it gives before the request's write returns.
const routeQueryTimeout = time.Second

var errNoAnswer = errors.New("netlink: no usable answer")

// openNetlink opens a route netlink socket in the calling thread's network namespace, listening to a set of
// multicast groups.
func openNetlink(flags int, groups uint32) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, os.NewSyscallError("socket AF_NETLINK", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind AF_NETLINK", err)
	}
	return fd, nil
}

// routeQueries asks the kernel for routes. Its methods may be called concurrently.
type routeQueries struct {
	mu  sync.Mutex
	fd  int // -1 once closed
	seq uint32
	buf []byte
}

func openRouteQueries() (*routeQueries, error) {
	fd, err := openNetlink(0, 0)
	if err != nil {
		return nil, err
	}
	timeout := unix.NsecToTimeval(routeQueryTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
	}
	return &routeQueries{fd: fd, buf: make([]byte, 8192)}, nil
}

func (q *routeQueries) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	unix.Close(q.fd)
	q.fd = -1
}

// routeAnswer is what is of interest in a route.
type routeAnswer struct {
	kind uint8 // RTN_*
	oif  int32
}

// sourceValid reports whether e.Source is a local address and what is sent from it to e.Remote leaves through
// e.Interface. Where the kernel cannot be asked, the source is left as it is.
func (q *routeQueries) sourceValid(e Endpoint, port uint16, mark uint32) bool {
	local, err := q.get(routeRequest{dst: e.Source, oif: linkLocalInterface(e.Source, e.Interface)})
	if errors.Is(err, errNoAnswer) {
		return true
	}
	if err != nil || local.kind != unix.RTN_LOCAL && local.kind != unix.RTN_ANYCAST {
		return false
	}
	remote := e.Remote.Addr()
	route, err := q.get(routeRequest{
		dst:   remote.WithZone(""),
		src:   e.Source,
		oif:   linkLocalInterface(remote, int32(zoneIndex(remote.Zone()))),
		mark:  mark,
		sport: port,
		dport: e.Remote.Port(),
	})
	if errors.Is(err, errNoAnswer) {
		return true
	}
	if err != nil {
		return false
	}
	switch route.kind {
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		return false
	}
	return e.Interface == 0 || route.oif == e.Interface
}

// linkLocalInterface is the interface a lookup of a link-local address must name; 0 for others.
func linkLocalInterface(a netip.Addr, index int32) int32 {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return index
	}
	return 0
}

// routeRequest is a lookup as the kernel would make it for a datagram. Zero values are left out.
type routeRequest struct {
	dst, src     netip.Addr
	oif          int32
	mark         uint32
	sport, dport uint16
}

// Routing attributes that x/sys/unix has no names for (linux/rtnetlink.h).
const (
	rtaIPProto = 27
	rtaSport   = 28
	rtaDport   = 29
)

// append writes the RTM_GETROUTE message:
//
//	nlmsghdr: len(4) type(2) flags(2) seq(4) pid(4) | rtmsg: family dst_len src_len tos table protocol scope type
//	flags(4) | rtattr: len(2) type(2) data, padded to 4 ...
func (r routeRequest) append(b []byte, seq uint32) []byte {
	family, bits := byte(unix.AF_INET), byte(32)
	if r.dst.Is6() {
		family, bits = unix.AF_INET6, 128
	}
	srcBits := byte(0)
	if r.src.IsValid() {
		srcBits = bits
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, unix.RTM_GETROUTE)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = append(b, 0, 0, 0, 0)
	b = append(b, family, bits, srcBits, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = appendAttr(b, unix.RTA_DST, r.dst.AsSlice())
	if r.src.IsValid() {
		b = appendAttr(b, unix.RTA_SRC, r.src.AsSlice())
	}
	if r.oif != 0 {
		b = appendAttr(b, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(r.oif)))
	}
	if r.mark != 0 {
		b = appendAttr(b, unix.RTA_MARK, binary.NativeEndian.AppendUint32(nil, r.mark))
	}
	if r.dport != 0 {
		b = appendAttr(b, rtaIPProto, []byte{unix.IPPROTO_UDP})
		b = appendAttr(b, rtaSport, binary.BigEndian.AppendUint16(nil, r.sport))
		b = appendAttr(b, rtaDport, binary.BigEndian.AppendUint16(nil, r.dport))
	}
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func appendAttr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// get asks for one route. The error is the kernel's errno where it has none, errNoAnswer where it could not be asked.
func (q *routeQueries) get(r routeRequest) (routeAnswer, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fd < 0 {
		return routeAnswer{}, errNoAnswer
	}
	q.seq++
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(q.fd, r.append(q.buf[:0], q.seq), 0, kernel); err != nil {
		return routeAnswer{}, errors.Join(errNoAnswer, err)
	}
	for {
		n, _, err := unix.Recvfrom(q.fd, q.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return routeAnswer{}, errors.Join(errNoAnswer, err)
		}
		if a, found, err := parseRouteAnswer(q.buf[:n], q.seq); found || err != nil {
			return a, err
		}
	}
}

// parseRouteAnswer looks for the answer to request seq in what was read; found is false where it is of another, left
// over from a request that timed out.
func parseRouteAnswer(b []byte, seq uint32) (a routeAnswer, found bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := binary.NativeEndian.Uint32(b)
		if size < unix.SizeofNlMsghdr || uint64(size) > uint64(len(b)) {
			return a, false, nil
		}
		body := b[unix.SizeofNlMsghdr:size]
		if binary.NativeEndian.Uint32(b[8:]) == seq {
			switch kind := binary.NativeEndian.Uint16(b[4:]); {
			case kind == unix.NLMSG_ERROR && len(body) >= 4:
				if errno := -int32(binary.NativeEndian.Uint32(body)); errno > 0 {
					return a, false, unix.Errno(errno)
				}
				return a, false, errNoAnswer
			case kind == unix.RTM_NEWROUTE && len(body) >= unix.SizeofRtMsg:
				a.kind = body[7]
				a.oif = parseOIF(body[unix.SizeofRtMsg:])
				return a, true, nil
			}
		}
		b = b[min(uint64(len(b)), (uint64(size)+3)&^3):]
	}
	return a, false, nil
}

// parseOIF finds the output interface among a route's attributes.
func parseOIF(b []byte) int32 {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return 0
		}
		if binary.NativeEndian.Uint16(b[2:]) == unix.RTA_OIF && size >= unix.SizeofRtAttr+4 {
			return int32(binary.NativeEndian.Uint32(b[4:]))
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return 0
}
