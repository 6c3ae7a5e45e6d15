package access

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Action is what becomes of a packet. The zero value denies.
type Action uint8

const (
	Deny Action = iota
	Allow
)

// Direction is which way a packet goes.
type Direction uint8

const (
	FromPeer Direction = iota
	ToPeer
	directions
)

// Protocols with a meaning of their own here (IANA, "Protocol Numbers"). ICMP stands for ICMPv6 over IPv6.
const (
	ICMP = 1
	TCP  = 6
	UDP  = 17

	icmpv6 = 58
)

// Ports is a range of ports, both ends of it included.
type Ports struct{ First, Last uint16 }

// Rule decides about packets that begin something: answers follow what they answer.
type Rule struct {
	Action    Action
	Direction Direction
	// Addresses are of this end's side: the destination of packets from the peer, the source of packets to it. None stands
	// for all of both families.
	Addresses []netip.Prefix
	// Except are networks within Addresses that the rule is not about; of both the longest counts that holds an address, and Except where
	// they are the same. None without Addresses.
	Except []netip.Prefix
	// Protocols of the packet, ICMP being that of its family. None stands for all.
	Protocols []uint8
	// Ports that the packet is sent to. None stands for all; where there are any, Protocols are TCP, UDP or both.
	Ports []Ports
}

// Bounds of one policy. A policy at all of them is about 10 MiB.
const (
	MaxRules    = 1024  // rules of one policy
	MaxPrefixes = 16384 // addresses of all its rules
	MaxPorts    = 8192  // ranges of ports of all its rules
)

// ErrInvalid is wrapped by what is refused of a [Spec].
var ErrInvalid = errors.New("invalid access policy")

// validate checks one rule in itself.
func (r *Rule) validate() error {
	if r.Action > Allow || r.Direction >= directions {
		return fmt.Errorf("%w: no such action or direction", ErrInvalid)
	}
	if len(r.Except) > 0 && len(r.Addresses) == 0 {
		return fmt.Errorf("%w: exceptions from all addresses", ErrInvalid)
	}
	for _, p := range slices.Concat(r.Addresses, r.Except) {
		if !p.IsValid() || p != p.Masked() {
			return fmt.Errorf("%w: %v is no network", ErrInvalid, p)
		}
	}
	for _, p := range r.Ports {
		if p.First > p.Last {
			return fmt.Errorf("%w: the range of ports %d to %d is empty", ErrInvalid, p.First, p.Last)
		}
	}
	if len(r.Ports) == 0 {
		return nil
	}
	if len(r.Protocols) == 0 {
		return fmt.Errorf("%w: ports without a protocol that has them", ErrInvalid)
	}
	for _, p := range r.Protocols {
		if p != TCP && p != UDP {
			return fmt.Errorf("%w: protocol %d has no ports here", ErrInvalid, p)
		}
	}
	return nil
}
