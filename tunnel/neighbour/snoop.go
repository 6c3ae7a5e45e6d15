package neighbour

import (
	"net/netip"

	"culvert/tunnel/ethernet"
)

// Role is what is known of a station besides its addresses.
type Role uint8

const (
	// Unknown: it has not said.
	Unknown Role = iota
	// Host: it has said that it is no router.
	Host
	// Router: it has said that it is one.
	Router
)

// Binding is an IP address with the hardware address that its station claims for it.
type Binding struct {
	IP   netip.Addr // IPv4 or IPv6, without zone, of one host
	MAC  ethernet.Address
	Role Role // only with IPv6
	// Weak: not meant to replace another claim (a neighbour advertisement without Override, as anycast servers and proxies send).
	Weak bool
}

// Snoop returns what the sender of a frame claims for itself: in an ARP request or reply as the sender; in a neighbour solicitation
// by its source address and the option for its link-layer address; in a neighbour advertisement as the target; in a
// router advertisement as the router. ok is false where it claims nothing, claims it for a hardware address that is not the
// frame's source, or the frame is not valid in any way (RFC 826; RFC 4861 §6.1.2, §7.1: hop limit, checksum, lengths).
func Snoop(frame []byte) (b Binding, ok bool) {
	etherType, at := payload(frame)
	switch etherType {
	case typeARP:
		a, ok := parseARP(frame, at)
		if !ok || !host(a.sender) {
			return Binding{}, false
		}
		return Binding{IP: a.sender, MAC: a.senderMAC}, true
	case typeIPv6:
		d, ok := parseDiscovery(frame, at)
		if !ok {
			return Binding{}, false
		}
		switch d.kind {
		case neighbourSolicitation:
			b = Binding{IP: d.source, MAC: d.sourceMAC}
		case routerAdvertisement:
			b = Binding{IP: d.source, MAC: d.sourceMAC, Role: Router}
		case neighbourAdvertisement:
			b = Binding{IP: d.target, MAC: d.targetMAC, Role: Host, Weak: d.flags&flagOverride == 0}
			if d.flags&flagRouter != 0 {
				b.Role = Router
			}
		}
		if !host(b.IP) || !station(b.MAC) || b.MAC != source(frame) {
			return Binding{}, false
		}
		return b, true
	}
	return Binding{}, false
}
