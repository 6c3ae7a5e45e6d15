package config

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What a tunnel of Ethernet frames (ModeTap) has besides. Where a zero value stands for a default, the default is the
// switch's own.

// A MAC is the address of an Ethernet interface (IEEE 802, EUI-48). The zero MAC is none.
type MAC [6]byte

// IsZero reports whether there is no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// Group reports whether the address is one of several stations, broadcast included (the I/G bit).
func (m MAC) Group() bool { return m[0]&1 != 0 }

// String gives the usual form, such as 52:54:00:12:34:56.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// A Station is a MAC address with its place in the file.
type Station struct {
	MAC
	Pos Position
}

// A Switch is how a tunnel forwards frames. The zero value is the default.
type Switch struct {
	Ageing    time.Duration // after which a silent address is forgotten: whole seconds, 1 s to 24 h; 0 is the default
	LinkLocal bool          // frames to 01:80:c2:00:00:00 to 0f are forwarded between more than two ends as well
	Proxy     bool          // ARP and ND for known stations are answered here
	KeepLoops bool          // loops are not looked for
}

// VLANs are those whose frames cross between a tunnel and a peer. The zero value lets all cross as they are.
type VLANs struct {
	PVID   uint16   // of untagged frames, 1 to 4094; 0 is none
	Tagged []uint16 // 1 to 4094, ascending, each once
	Pos    Position
}

// Limits are frames a second that are taken from a peer. 0 is the default, NoLimit none.
type Limits struct {
	Broadcast, Multicast, UnknownUnicast int
}

// NoLimit in [Limits] takes all.
const NoLimit = -1

// TapKeepalive is the keepalive of a tap tunnel's peers where none is given and the carrier follows them: the carrier
// shows that a peer is gone only where something is sent to it.
const TapKeepalive = 10 * time.Second

const (
	maxTapMTU = maxMTU - 14 - 8 // what an Ethernet header with two VLAN tags leaves of the largest packet
	maxVLAN   = 4094            // IEEE 802.1Q: 4095 is reserved
	maxAgeing = 24 * time.Hour
	maxRate   = 1_000_000_000 // frames a second
)

const macForm = "write six bytes in hexadecimal, in quotes, such as \"52:54:00:12:34:56\""

// parseMAC reads the address of one station, its bytes parted by colons or dashes.
func parseMAC(s string) (m MAC, _ *problem) {
	bad := func() (MAC, *problem) { return MAC{}, wrong(macForm, "%s is not a MAC address", quote(s)) }
	if len(s) != 3*len(m)-1 || s[2] != ':' && s[2] != '-' {
		return bad()
	}
	for i, part := range strings.Split(s, s[2:3]) {
		if i >= len(m) || len(part) != 2 {
			return bad()
		}
		b, err := hex.DecodeString(part)
		if err != nil {
			return bad()
		}
		m[i] = b[0]
	}
	switch {
	case m.IsZero():
		return MAC{}, wrong(macForm, "%s is no station's address", quote(s))
	case m.Group():
		return MAC{}, wrong("the second hexadecimal digit of a station's address is even", "%s is the address of a group, not of one station", quote(s))
	}
	return m, nil
}

// parseQueues reads a number of queues, 0 for auto.
func parseQueues(s string) (int, *problem) {
	if s == "auto" {
		return 0, nil
	}
	n, ok := decimal(s, MaxQueues)
	if !ok || n == 0 {
		return 0, wrong("write auto, or 1 to "+strconv.Itoa(MaxQueues)+"; more than there are processors gain nothing", "%s is not a number of queues", quote(s))
	}
	return int(n), nil
}

func parseLearned(s string) (int, *problem) {
	n, ok := decimal(s, MaxLearned)
	if !ok || n == 0 {
		return 0, wrong("write 1 to "+strconv.Itoa(MaxLearned), "%s is not a number of MAC addresses", quote(s))
	}
	return int(n), nil
}

func parseAgeing(s string) (time.Duration, *problem) {
	const rule = "write whole seconds with their unit, such as 300s, from 1s to 24h"
	if _, ok := decimal(s, 1<<32); ok && s != "0" {
		return 0, wrong("write "+s+"s", "%s has no unit; a duration was expected", quote(s))
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, wrong(rule, "%s is not a duration", quote(s))
	case d < time.Second || d > maxAgeing || d%time.Second != 0:
		return 0, wrong(rule, "an address cannot be forgotten after %s", quote(s))
	}
	return d, nil
}

func parseVLAN(s string) (uint16, *problem) {
	n, ok := decimal(s, maxVLAN)
	if !ok || n == 0 {
		return 0, wrong("write a number from 1 to 4094", "%s is not a VLAN", quote(s))
	}
	return uint16(n), nil
}

// parseVLANs reads a VLAN, or the first and the last of several.
func parseVLANs(s string) (vlans [2]uint16, p *problem) {
	first, last, several := strings.Cut(s, "-")
	if !several {
		last = first
	}
	for i, text := range []string{first, last} {
		if vlans[i], p = parseVLAN(text); p != nil {
			return vlans, wrong(`write VLANs from 1 to 4094, such as 20 or "100-110"`, "%s is neither a VLAN nor a range of them", quote(s))
		}
	}
	if vlans[0] > vlans[1] {
		return vlans, wrong("write the smaller number first", "%s is an empty range of VLANs", quote(s))
	}
	return vlans, nil
}

func parseRate(s string) (int, *problem) {
	if s == "off" {
		return NoLimit, nil
	}
	n, ok := decimal(s, maxRate)
	if !ok || n == 0 {
		return 0, wrong("write frames a second, from 1 to 1000000000, or off for no limit", "%s is not a limit", quote(s))
	}
	return int(n), nil
}

// Ranges gives VLANs in ascending order in the form in which they are configured: single ones, and first-last.
func Ranges(vlans []uint16) []string {
	var out []string
	for i := 0; i < len(vlans); {
		j := i
		for j+1 < len(vlans) && vlans[j+1] == vlans[j]+1 {
			j++
		}
		text := strconv.Itoa(int(vlans[i]))
		if j > i {
			text += "-" + strconv.Itoa(int(vlans[j]))
		}
		out = append(out, text)
		i = j + 1
	}
	return out
}

// relateTap checks what holds between the parts of a tap tunnel.
func (r *report) relateTap(t *Tunnel) {
	const ipOnly = "the wireguard wire carries IP packets only, and this tunnel is of Ethernet frames (line %d)"
	if t.Wire == WireWireGuard {
		r.fail(t.WirePos, `write culvert if the peers run it, or "mode: tun"`, ipOnly, t.ModePos.Line)
	}
	if t.MTU > maxTapMTU {
		r.fail(t.MTUPos, "write at most "+strconv.Itoa(maxTapMTU), "an MTU of %d leaves no room for an Ethernet header with two VLAN tags", t.MTU)
	}
	pinned := map[MAC]Station{}
	owners := map[MAC]int{}
	total := 0
	for i := range t.Peers {
		p := &t.Peers[i]
		if p.WirePos != (Position{}) && p.Wire == WireWireGuard {
			r.fail(p.WirePos, `write culvert if the peer runs it; a peer on the wireguard wire needs a tunnel of "mode: tun"`, ipOnly, t.ModePos.Line)
		}
		for _, s := range p.MACs {
			if total++; total == MaxMACs+1 {
				r.fail(s.Pos, "", "the tunnel has more than %d pinned MAC addresses", MaxMACs)
			}
			first, ok := pinned[s.MAC]
			switch {
			case !ok:
				pinned[s.MAC], owners[s.MAC] = s, i
				if s.MAC == t.MAC {
					r.fail(s.Pos, "write the addresses of the peer's side", "%s is the address of this tunnel's own interface (line %d)", s, t.MACPos.Line)
				}
			case owners[s.MAC] == i:
				r.fail(s.Pos, "remove one of the two", "%s is given twice (first in line %d)", s, first.Pos.Line)
			default:
				r.fail(s.Pos, "a station is behind one peer only; remove one of the two",
					"%s is pinned to peer %s already (line %d)", s, hideKeys(t.Peers[owners[s.MAC]].Name), first.Pos.Line)
			}
		}
		if len(p.MACs) > 0 && p.MaxMACs != 0 {
			r.warn(p.MaxMACsPos, "", "max_macs does nothing beside macs: no other addresses than those are accepted from peer %s", hideKeys(p.Name))
		}
	}
}
