package ethernet

import (
	"encoding/hex"
	"errors"
	"strings"
)

// Address is a MAC address in the low 48 bits, its first byte the most significant.
type Address uint64

// Broadcast is the address of everybody.
const Broadcast Address = 0xffff_ffff_ffff

// AddressSize is the length of an address in a frame, in bytes.
const AddressSize = 6

// ErrAddress is returned for what is not six bytes in hexadecimal.
var ErrAddress = errors.New("not a MAC address, which is six bytes in hexadecimal such as 52:54:00:12:34:56")

// ParseAddress reads six bytes in hexadecimal, parted by colons or dashes. Errors: ErrAddress.
func ParseAddress(s string) (Address, error) {
	if len(s) != 3*AddressSize-1 {
		return 0, ErrAddress
	}
	separator := s[2]
	if separator != ':' && separator != '-' {
		return 0, ErrAddress
	}
	parts := strings.Split(s, string(separator))
	if len(parts) != AddressSize {
		return 0, ErrAddress
	}
	var a Address
	for _, part := range parts {
		b, err := hex.DecodeString(part)
		if err != nil || len(b) != 1 {
			return 0, ErrAddress
		}
		a = a<<8 | Address(b[0])
	}
	return a, nil
}

// AddressAt reads the address in the first six bytes of b.
func AddressAt(b []byte) Address {
	_ = b[5]
	return Address(b[0])<<40 | Address(b[1])<<32 | Address(b[2])<<24 | Address(b[3])<<16 | Address(b[4])<<8 | Address(b[5])
}

// Put writes the address to the first six bytes of b.
func (a Address) Put(b []byte) {
	_ = b[5]
	b[0], b[1], b[2], b[3], b[4], b[5] = byte(a>>40), byte(a>>32), byte(a>>24), byte(a>>16), byte(a>>8), byte(a)
}

// Group reports whether the address is one of several stations, broadcast included (the I/G bit).
func (a Address) Group() bool { return a>>40&1 != 0 }

// LinkLocal reports whether the address is one of 01:80:c2:00:00:00 to 0f, which bridges keep to the link (IEEE 802.1Q-2018
// table 8-1): spanning tree, pause frames, LACP, LLDP.
func (a Address) LinkLocal() bool { return a&^0xf == 0x0180_c200_0000 }

// String gives the usual form, such as 52:54:00:12:34:56.
func (a Address) String() string {
	const digits = "0123456789abcdef"
	var b [3*AddressSize - 1]byte
	for i := range AddressSize {
		v := byte(a >> (8 * (AddressSize - 1 - i)))
		b[3*i], b[3*i+1] = digits[v>>4], digits[v&0xf]
		if i > 0 {
			b[3*i-1] = ':'
		}
	}
	return string(b[:])
}

// MarshalText is String.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is [ParseAddress].
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAddress(string(text))
	return err
}
