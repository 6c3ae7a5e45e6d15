package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The expressions that rules of a firewall are put together from. All are for tables of family inet.

type expressions []expr.Any

var (
	accept = expressions{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop   = expressions{&expr.Verdict{Kind: expr.VerdictDrop}}
	// notrack has the packet belong to no connection: nothing is translated in it.
	notrack = expressions{&expr.Notrack{}}
)

func ruleOf(c chain, parts ...expressions) filterRule {
	r := filterRule{chain: c.name}
	for _, p := range parts {
		r.exprs = append(r.exprs, p...)
	}
	return r
}

func comparing(op expr.CmpOp, key expr.MetaKey, value []byte) expressions {
	return expressions{&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: op, Register: reg, Data: value}}
}

func equals(key expr.MetaKey, value []byte) expressions { return comparing(expr.CmpOpEq, key, value) }

func differs(key expr.MetaKey, value []byte) expressions {
	return comparing(expr.CmpOpNeq, key, value)
}

func ofFamily(f byte) expressions { return equals(expr.MetaKeyNFPROTO, []byte{f}) }
func protocol(p byte) expressions { return equals(expr.MetaKeyL4PROTO, []byte{p}) }
func marked(m uint32) expressions {
	return equals(expr.MetaKeyMARK, binaryutil.NativeEndian.PutUint32(m))
}

// loaded compares bytes of a header.
func loaded(base expr.PayloadBase, offset uint32, value []byte) expressions {
	return expressions{&expr.Payload{OperationType: expr.PayloadLoad, Base: base, Offset: offset, Len: uint32(len(value)), DestRegister: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: value}}
}

// ports are the source's and the destination's, at the beginning of the headers of UDP and TCP.
func ports(source, destination uint16) expressions {
	return loaded(expr.PayloadBaseTransportHeader, 0, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, source), destination))
}

func toPort(p uint16) expressions {
	return loaded(expr.PayloadBaseTransportHeader, 2, binary.BigEndian.AppendUint16(nil, p))
}

func fromPort(p uint16) expressions {
	return loaded(expr.PayloadBaseTransportHeader, 0, binary.BigEndian.AppendUint16(nil, p))
}

func icmpv6(kind byte) expressions {
	return append(append(ofFamily(unix.NFPROTO_IPV6), protocol(unix.IPPROTO_ICMPV6)...), loaded(expr.PayloadBaseTransportHeader, 0, []byte{kind})...)
}

// within compares the destination with a network, or the source.
func within(p netip.Prefix, source bool) expressions {
	of, offset := byte(unix.NFPROTO_IPV4), uint32(sourceIPv4)
	if p.Addr().Is6() {
		of, offset = unix.NFPROTO_IPV6, sourceIPv6
	}
	value := p.Masked().Addr().AsSlice()
	length := uint32(len(value))
	if !source {
		offset += length
	}
	list := append(ofFamily(of),
		&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length, DestRegister: reg})
	if p.Bits() < p.Addr().BitLen() {
		mask := make([]byte, length)
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		list = append(list, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: length, Mask: mask, Xor: make([]byte, length)})
	}
	return append(list, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: value})
}

// answers are packets of connections that this machine, or the tunnel, has begun, and errors about them.
func answers() expressions {
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return expressions{&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: states, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)}}
}

// notLocal are packets whose source is no address of this machine.
func notLocal() expressions {
	return expressions{&expr.Fib{Register: reg, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)}}
}

// toLocal takes packets for an address of this machine.
func toLocal() expressions {
	return expressions{&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)}}
}

// keepMark has the connection remember the packet's mark, hasKept asks for it, and giveMark gives it to a packet.
func keepMark() expressions {
	return expressions{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, &expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true}}
}

func hasKept(mark uint32) expressions {
	return expressions{&expr.Ct{Key: expr.CtKeyMARK, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(mark)}}
}

func giveMark() expressions {
	return expressions{&expr.Ct{Key: expr.CtKeyMARK, Register: reg}, &expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true}}
}
