// Package sourceguard holds a station behind a switch's port to the IP addresses that are its own: what others filter by with IP source
// guard and ARP inspection (for IPv6: RFC 6620's and RFC 7513's binding tables, here without the learning).
//
//	[New]         the addresses
//	[Set.Allows]  whether a frame of the station's keeps to them
//
// Held to them are, behind up to two VLAN tags,
//
//   - the source of IPv4 packets. 0.0.0.0, with which DHCP asks, is no exception: who is held to addresses is told them otherwise;
//   - the sender of ARP, or in a probe, which comes from 0.0.0.0 (RFC 5227 §2.1.1), the address probed for. ARP is of IPv4 over Ethernet;
//   - the source of IPv6 packets, but for link-local addresses, which anybody may have, and for what a host sends from :: before it has an
//     address: reports of multicast listeners (RFC 3590 §4), router solicitations, and probes for duplicates (RFC 4862 §5.4.2), which
//     must be for an address of its own;
//   - the target of neighbour advertisements, also behind extension headers. Router advertisements and redirects, with which a router tells
//     others where to send to, do not pass at all, nor does neighbour discovery in fragments (RFC 6980), nor a first or only
//     fragment that does not say what it is of (RFC 7112 §5, RFC 7113 §3).
//
// A frame with a third VLAN tag does not pass: Linux takes priority tags off however many there are, and nothing here is seen behind
// them. Frames of all other EtherTypes, or with a length in its place, pass.
//
// A Set is immutable; Allows allocates nothing. Frames are untrusted.
package sourceguard
