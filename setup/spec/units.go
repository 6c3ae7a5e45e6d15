package spec

import (
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
)

// BitRate is a rate in bits per second.
type BitRate uint64

// Size is a number of bytes.
type Size uint64

// MAC is a 48-bit Ethernet address in transmission order.
type MAC [6]byte

// ParseMAC reads an address written with colons or hyphens.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(MAC{}) || strings.Contains(s, ".") {
		return MAC{}, fmt.Errorf("%q is not a MAC address such as 02:00:00:00:00:01", s)
	}
	return MAC(hw), nil
}

// String returns six pairs of lower-case hexadecimal digits, joined by colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsGroup reports whether it is a multicast or the broadcast address, which no device can have (IEEE 802, 8.2.2).
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// Handle is a traffic-control handle: major in the upper 16 bits, minor in the lower.
type Handle uint32

// String returns what tc(8) shows: both numbers in hexadecimal, an empty minor for 0.
func (h Handle) String() string {
	if h&0xffff == 0 {
		return fmt.Sprintf("%x:", uint32(h>>16))
	}
	return fmt.Sprintf("%x:%x", uint32(h>>16), uint32(h&0xffff))
}

// ParseHandle reads what [Handle.String] writes.
func ParseHandle(s string) (Handle, error) {
	major, minor, ok := strings.Cut(s, ":")
	a, err := strconv.ParseUint(major, 16, 16)
	b := uint64(0)
	if minor != "" && err == nil {
		b, err = strconv.ParseUint(minor, 16, 16)
	}
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is not a handle such as 1:10", s)
	}
	return Handle(a<<16 | b), nil
}

// rateUnits are tc(8)'s, without regard to case: bits, SI and IEC prefixes; "bps" is bytes per second there.
var rateUnits = []struct {
	suffix string
	factor float64
}{
	{"tibit", 1 << 40}, {"gibit", 1 << 30}, {"mibit", 1 << 20}, {"kibit", 1 << 10},
	{"tbit", 1e12}, {"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1},
	{"tbps", 8e12}, {"gbps", 8e9}, {"mbps", 8e6}, {"kbps", 8e3}, {"bps", 8},
}

// ParseBitRate reads a rate as tc(8) takes it: "8mbit", "1gbit", "500kbit", "64kibit"; bps, kbps, mbps and gbps are bytes per
// second. A number without unit is refused: it would be bits to one reader and bytes to another.
func ParseBitRate(s string) (BitRate, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	for _, u := range rateUnits {
		if number, ok := strings.CutSuffix(text, u.suffix); ok {
			v, err := scaled(number, u.factor)
			if err != nil {
				return 0, fmt.Errorf("%q is not a rate: %w", s, err)
			}
			return BitRate(v), nil
		}
	}
	return 0, fmt.Errorf("%q is not a rate such as 8mbit", s)
}

// String returns the shortest exact form with an SI prefix, which [ParseBitRate] reads back.
func (r BitRate) String() string {
	for _, u := range []struct {
		suffix string
		factor BitRate
	}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}} {
		if r != 0 && r%u.factor == 0 {
			return strconv.FormatUint(uint64(r/u.factor), 10) + u.suffix
		}
	}
	return strconv.FormatUint(uint64(r), 10) + "bit"
}

// ParseSize reads a number of bytes as tc(8) takes it: "1600", "10k" (1024 bytes each), "2m", "1g", with or without a "b".
func ParseSize(s string) (Size, error) {
	text := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "b")
	factor := 1.0
	for _, u := range []struct {
		suffix string
		factor float64
	}{{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}} {
		if number, ok := strings.CutSuffix(text, u.suffix); ok {
			text, factor = number, u.factor
			break
		}
	}
	v, err := scaled(text, factor)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size such as 10k: %w", s, err)
	}
	return Size(v), nil
}

// String returns the shortest exact form, which [ParseSize] reads back.
func (s Size) String() string {
	for _, u := range []struct {
		suffix string
		factor Size
	}{{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}} {
		if s != 0 && s%u.factor == 0 {
			return strconv.FormatUint(uint64(s/u.factor), 10) + u.suffix
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

func scaled(number string, factor float64) (uint64, error) {
	for _, c := range []byte(number) {
		if (c < '0' || c > '9') && c != '.' {
			return 0, errors.New("not a decimal number with a known unit")
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, errors.New("not a decimal number with a known unit")
	}
	v = math.Round(v * factor)
	if v >= 1<<53 {
		return 0, errors.New("too large")
	}
	return uint64(v), nil
}
