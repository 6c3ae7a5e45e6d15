package neighbour

import (
	"encoding/binary"
	"net/netip"

	"culvert/tunnel/ethernet"
	"culvert/tunnel/ippacket"
)

// MaxAnswer is the length of the longest answer, in bytes: a neighbour advertisement behind two VLAN tags.
const MaxAnswer = headerSize + maxTags*tagSize + ippacket.Header6 + advertisementSize

const advertisementSize = 24 + optionUnit

// Asked returns the address that a frame asks all stations for, so that its station's answer may be given for it. ok is
// false for everything else, in particular for
//
//   - a question to one station, which is to find out whether that still answers;
//   - a probe for duplicate addresses, which comes from 0.0.0.0 or :: (RFC 5227 §2.1.1, RFC 4862 §5.4), and an announcement,
//     which asks for the sender's own address (RFC 5227 §2.3): these are for everybody to hear;
//   - a solicitation without the sender's link-layer address, which is not valid to many (RFC 4861 §4.3);
//   - a question for or from what is no single host's address.
func Asked(frame []byte) (target netip.Addr, ok bool) {
	q, ok := question(frame)
	return q.target, ok
}

// asked is a question that may be answered.
type asked struct {
	sender, target netip.Addr
	at             int // where the payload starts
}

func question(frame []byte) (q asked, ok bool) {
	etherType, at := payload(frame)
	switch etherType {
	case typeARP:
		a, ok := parseARP(frame, at)
		if !ok || a.operation != arpRequest || destination(frame) != ethernet.Broadcast {
			return asked{}, false
		}
		q = asked{a.sender, a.target, at}
	case typeIPv6:
		d, ok := parseDiscovery(frame, at)
		if !ok || d.kind != neighbourSolicitation || !destination(frame).Group() || !d.destination.IsMulticast() ||
			!station(d.sourceMAC) || d.sourceMAC != source(frame) {
			return asked{}, false
		}
		q = asked{d.source, d.target, at}
	default:
		return asked{}, false
	}
	if !host(q.sender) || !host(q.target) || q.sender == q.target {
		return asked{}, false
	}
	return q, true
}

// Answer returns the answer of the station b to a question for its address, in buf, which must have MaxAnswer bytes and not
// overlap the frame. It has the question's VLAN tags. ok is false where the frame is no question for b.IP (see [Asked]), where the
// station is who asks, or, with IPv6, where its role is not known: hosts drop a router that is said to be none (RFC 4861 §7.2.5).
//
// A neighbour advertisement has Override clear, as one by a proxy (RFC 4861 §7.2.8): what the station itself said to whoever asks
// is newer than what is known here, and who knows nothing yet takes the answer all the same (§7.2.5).
func Answer(frame []byte, b Binding, buf []byte) (answer []byte, ok bool) {
	_ = buf[MaxAnswer-1]
	q, ok := question(frame)
	if !ok || q.target != b.IP || !station(b.MAC) || b.MAC == source(frame) {
		return nil, false
	}
	source(frame).Put(buf)
	b.MAC.Put(buf[ethernet.AddressSize:])
	copy(buf[2*ethernet.AddressSize:q.at], frame[2*ethernet.AddressSize:q.at])
	out := buf[q.at:]
	if q.target.Is4() {
		return buf[:q.at+putReply(out, frame, q, b)], true
	}
	if b.Role == Unknown {
		return nil, false
	}
	return buf[:q.at+putAdvertisement(out, q, b)], true
}

// putReply writes an ARP reply, padded to the shortest frame, and returns its length.
func putReply(out, frame []byte, q asked, b Binding) int {
	size := max(arpSize, minFrame-q.at)
	clear(out[:size])
	binary.BigEndian.PutUint64(out, 1<<48|typeIPv4<<32|6<<24|4<<16|arpReply)
	sender, target := q.sender.As4(), q.target.As4()
	b.MAC.Put(out[8:])
	copy(out[14:], target[:])
	source(frame).Put(out[18:])
	copy(out[24:], sender[:])
	return size
}

// putAdvertisement writes a solicited neighbour advertisement (RFC 4861 §4.4, §7.2.4) in its IPv6 packet and returns its length.
func putAdvertisement(out []byte, q asked, b Binding) int {
	const size = ippacket.Header6 + advertisementSize
	out = out[:size]
	clear(out)
	out[0] = 6 << 4
	binary.BigEndian.PutUint16(out[4:], advertisementSize)
	out[6], out[7] = protocolICMPv6, hopLimit
	sender, target := q.sender.As16(), q.target.As16()
	copy(out[8:], target[:])
	copy(out[24:], sender[:])
	icmp := out[ippacket.Header6:]
	icmp[0] = neighbourAdvertisement
	if icmp[4] = flagSolicited; b.Role == Router {
		icmp[4] |= flagRouter
	}
	copy(icmp[8:], target[:])
	icmp[24], icmp[25] = optionTarget, 1
	b.MAC.Put(icmp[26:])
	binary.BigEndian.PutUint16(icmp[2:], ^ippacket.Fold(ippacket.Sum(icmp, pseudoHeader(out, len(icmp)))))
	return size
}
