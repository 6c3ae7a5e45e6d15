package neighbour

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"

	"culvert/tunnel/ethernet"
	"culvert/tunnel/ippacket"
)

const (
	macA ethernet.Address = 0x5254_0000_000a
	macB ethernet.Address = 0x5254_0000_000b
)

var (
	a4, b4 = netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	a6, b6 = netip.MustParseAddr("2001:db8::a"), netip.MustParseAddr("2001:db8::b")
	bLocal = netip.MustParseAddr("fe80::5054:ff:fe00:b")
)

// Frames that two Linux hosts A and B sent each other over a veth pair; B is a router.
var (
	arpAsks      = unhex("ffffffffffff52540000000a0806000108000604000152540000000a0a0900010000000000000a090002")
	arpAnswers   = unhex("52540000000a52540000000b0806000108000604000252540000000b0a09000252540000000a0a090001")
	arpAsksOne   = unhex("52540000000a52540000000b0806000108000604000152540000000b0a0900020000000000000a090001")
	solicits     = unhex("3333ff00000b52540000000a86dd6000000000203aff20010db800000000000000000000000aff0200000000000000000001ff00000b8700cbae0000000020010db800000000000000000000000b010152540000000a")
	advertises   = unhex("52540000000a52540000000b86dd6000000000203aff20010db800000000000000000000000b20010db800000000000000000000000a8800b9f8e000000020010db800000000000000000000000b020152540000000b")
	solicitsOne  = unhex("52540000000a52540000000b86dd6000000000203afffe80000000000000505400fffe00000b20010db800000000000000000000000a87007bde0000000020010db800000000000000000000000a010152540000000b")
	withoutMAC   = unhex("52540000000b52540000000a86dd6000000000183aff20010db800000000000000000000000afe80000000000000505400fffe00000b88008e464000000020010db800000000000000000000000a")
	probesDAD    = unhex("3333ff00000b52540000000b86dd6000000000203aff00000000000000000000000000000000ff0200000000000000000001ff00000b870011430000000020010db800000000000000000000000b0e0156d6f33fe376")
	asksRouters  = unhex("33330000000252540000000a86dd6000000000103afffe80000000000000505400fffe00000aff0200000000000000000000000000028500da7100000000010152540000000a")
	kernelFrames = [][]byte{arpAsks, arpAnswers, arpAsksOne, solicits, advertises, solicitsOne, withoutMAC, probesDAD, asksRouters}
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// edited returns a copy of the frame with the bytes at an offset replaced, and its ICMPv6 checksum put right.
func edited(frame []byte, at int, with ...byte) []byte {
	out := slices.Clone(frame)
	copy(out[at:], with)
	return checksummed(out)
}

// checksummed puts the ICMPv6 checksum of an untagged frame right where it is one.
func checksummed(frame []byte) []byte {
	if len(frame) >= 58 && binary.BigEndian.Uint16(frame[12:]) == typeIPv6 && frame[20] == protocolICMPv6 {
		if b := frame[54:]; len(b) >= int(binary.BigEndian.Uint16(frame[18:])) && binary.BigEndian.Uint16(frame[18:]) >= 4 {
			b = b[:binary.BigEndian.Uint16(frame[18:])]
			b[2], b[3] = 0, 0
			pseudo := binary.BigEndian.AppendUint32(bytes.Clone(frame[22:54]), uint32(len(b)))
			pseudo = binary.BigEndian.AppendUint32(pseudo, protocolICMPv6)
			binary.BigEndian.PutUint16(b[2:], ^ippacket.Fold(ippacket.Sum(b, ippacket.Sum(pseudo, 0))))
		}
	}
	return frame
}

// tagged returns a copy of the frame behind VLAN tags.
func tagged(frame []byte, tags ...byte) []byte {
	return slices.Insert(slices.Clone(frame), 12, tags...)
}

// routerAdvertises is B's, as RFC 4861 §4.2 has it.
var routerAdvertises = func() []byte {
	f := unhex("33330000000152540000000b86dd6000000000183afffe80000000000000505400fffe00000bff02000000000000000000000000000186000000400007080000000000000000010152540000000b")
	return checksummed(f)
}()
