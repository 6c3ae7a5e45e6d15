package transporttest

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

	"culvert/transport"
)

// firstEphemeralPort is where a host starts to look for a free port.
const firstEphemeralPort = 49152

// hostInterface is the index of a host's only interface.
const hostInterface = 1

// Host is a host with one interface. It is a [transport.Network]: sockets opened on it have all its addresses.
type Host struct {
	network    *Network
	number     int
	behind     *NAT // nil on the public wire
	addrs      []netip.Addr
	sockets    map[uint16]*socket
	nextPort   uint16
	queueBytes int
	mtu        int // 0 for no limit
}

var _ transport.Network = (*Host)(nil)

// Host adds a host with addresses of one or both families. The first of a family is what it sends from unless a
// train says otherwise.
func (n *Network) Host(addrs ...netip.Addr) *Host { return n.addHost(nil, addrs) }

func (n *Network) addHost(behind *NAT, addrs []netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &Host{
		network:    n,
		number:     len(n.hosts),
		behind:     behind,
		addrs:      slices.Clone(addrs),
		sockets:    map[uint16]*socket{},
		nextPort:   firstEphemeralPort,
		queueBytes: DefaultQueueBytes,
	}
	h.realm().claim(h, h.addrs)
	n.hosts = append(n.hosts, h)
	return h
}

// realm is where the host's addresses live.
func (h *Host) realm() realm {
	if h.behind != nil {
		return h.behind.inside
	}
	return h.network.realm
}

// SetAddrs changes the host's addresses, as a roaming host's change. Its sockets stay open and are told of it by
// RouteChanges.
func (h *Host) SetAddrs(addrs ...netip.Addr) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	h.move(h.behind, addrs)
}

// Move puts the host behind another NAT, or on the public wire where that is nil, with new addresses.
func (h *Host) Move(behind *NAT, addrs ...netip.Addr) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	h.move(behind, addrs)
}

func (h *Host) move(behind *NAT, addrs []netip.Addr) {
	h.realm().drop(h.addrs)
	h.behind, h.addrs = behind, slices.Clone(addrs)
	h.realm().claim(h, h.addrs)
	for _, s := range h.sockets {
		s.routesChanged()
	}
}

// Addrs returns the host's addresses.
func (h *Host) Addrs() []netip.Addr {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	return slices.Clone(h.addrs)
}

// SetQueue bounds the bytes that wait in each of the host's sockets, instead of DefaultQueueBytes.
func (h *Host) SetQueue(bytes int) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	h.queueBytes = bytes
}

// SetMTU sets the MTU of the host's interface, 0 for no limit as at first: the largest IP packet, headers included, it sends
// whole. What is larger fails with [transport.ErrTooBig] where its socket has DontFragment on, and is fragmented
// otherwise. What the host receives it does not bound.
func (h *Host) SetMTU(bytes int) {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	h.mtu = bytes
}

// ChangeRoutes makes the host's sockets tell of a route change without there being one.
func (h *Host) ChangeRoutes() {
	h.network.mu.Lock()
	defer h.network.mu.Unlock()
	for _, s := range h.sockets {
		s.routesChanged()
	}
}

// Open opens a socket. A port that is open already is refused with EADDRINUSE.
func (h *Host) Open(o transport.Options) (transport.Socket, error) {
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	port := o.Port
	for tries := 0; port == 0 && tries < 1<<16; tries++ {
		if h.sockets[h.nextPort] == nil {
			port = h.nextPort
		}
		if h.nextPort++; h.nextPort == 0 {
			h.nextPort = firstEphemeralPort
		}
	}
	if port == 0 || h.sockets[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	s := &socket{host: h, port: port, mark: o.Mark, whole: o.DontFragment, routes: make(chan struct{}, 1)}
	s.steer = o.Steering
	for i := range max(1, o.Workers) {
		s.inboxes = append(s.inboxes, &inbox{socket: s, worker: i, arrived: sync.NewCond(&n.mu)})
	}
	h.sockets[port] = s
	return s, nil
}

// receive puts d into the socket it is for.
func (h *Host) receive(d *datagram) {
	n := h.network
	s := h.sockets[d.to.Port()]
	if s == nil {
		n.counters.NoSocket++
		n.release(d)
		return
	}
	in := s.inboxOf(d)
	if in.queued+len(d.data) > h.queueBytes {
		n.counters.QueueFull++
		n.release(d)
		return
	}
	n.counters.Delivered++
	in.put(d)
}
