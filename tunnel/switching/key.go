package switching

import (
	"crypto/rand"
	"encoding/binary"

	"culvert/tunnel/ethernet"
)

// Port is where frames come from and go to.
type Port uint16

const (
	// Device is this end's interface.
	Device Port = 0
	// MaxPort is the highest number of a peer's port.
	MaxPort Port = 1<<16 - 2
)

// Key is a station: its address in the low 48 bits and the VLAN it is in, as in [ethernet.Header], in the 13 above. The same
// address in two VLANs is two stations (IEEE 802.1Q's independent learning).
type Key uint64

const (
	addressBits = 48
	keyBits     = addressBits + 13
	keyMask     = 1<<keyBits - 1
)

// KeyOf is the key of a station. Bits of vlan above the 13th are ignored.
func KeyOf(a ethernet.Address, vlan uint16) Key {
	return Key(a&ethernet.Broadcast) | Key(vlan)<<addressBits&keyMask
}

// Address is the station's address.
func (k Key) Address() ethernet.Address { return ethernet.Address(k) & ethernet.Broadcast }

// VLAN is the station's VLAN: the VID and [ethernet.ServiceVLAN].
func (k Key) VLAN() uint16 { return uint16(k & keyMask >> addressBits) }

// permutation maps numbers of keyBits bits to each other, one to one and by a secret. What its top bits are, someone who
// chooses keys but not the secret can neither tell nor steer, so they serve as a hash; and since the map can be undone, a table
// that is indexed by some of the bits need only store the others. It is no cipher: it has to withstand somebody who sees
// nothing of its output but, at best, which of a few thousand addresses is not learned.
//
// It alternates multiplications by odd secrets, whose products' top bits depend on all bits, with shifts that bring the top
// down.
type permutation struct {
	mask                 uint64
	multiply, unmultiply [2]uint64
}

// half is at least half of keyBits, so that x ^ x>>half is its own inverse.
const half = 31

func newPermutation() permutation {
	var b [24]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	p := permutation{mask: binary.LittleEndian.Uint64(b[:]) & keyMask}
	for i := range p.multiply {
		m := binary.LittleEndian.Uint64(b[8+8*i:])&keyMask | 1
		p.multiply[i], p.unmultiply[i] = m, inverse(m)
	}
	return p
}

// inverse is what an odd number times is 1 modulo 2^64, by Newton's method: m itself is right in 3 bits, and every step doubles
// them.
func inverse(m uint64) uint64 {
	x := m
	for range 5 {
		x *= 2 - m*x
	}
	return x
}

func (p *permutation) apply(k Key) uint64 {
	x := (uint64(k) ^ p.mask) * p.multiply[0] & keyMask
	x ^= x >> half
	return x * p.multiply[1] & keyMask
}

// undo finds the key that apply made x of.
func (p *permutation) undo(x uint64) Key {
	x = x * p.unmultiply[1] & keyMask
	x ^= x >> half
	return Key(x*p.unmultiply[0]&keyMask ^ p.mask)
}
