// Package neighbour lets a switch answer questions for the hardware addresses of stations behind tunnels, instead of flooding each
// question over all of them: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861).
//
//	[Snoop]   which address a station claims for itself in a frame that passes by
//	[Table]   what was learned so
//	[Asked]   which address a frame asks for
//	[Answer]  the frame with which the station asked for would answer
//
// Whoever asks is told the station's own hardware address, so frames go the same way as without the switch's answer. What is
// not answered must be forwarded as any other frame: in particular probes for duplicate addresses, announcements, and questions
// sent to one station, by which hosts test whether it is still there.
//
// What stations claim is not verified by anything, here as on any Ethernet: the last claim holds. A station can claim addresses
// only for the source address of its frame; a switch that pins source addresses to ports pins the hardware addresses in claims
// with them.
//
// All functions are pure and allocate nothing. Frames are untrusted.
package neighbour
