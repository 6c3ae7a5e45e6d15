package server

import (
	"bytes"
	"errors"
	"net/netip"

	"github.com/fxamacker/cbor/v2"
)

// Documents are CBOR (RFC 8949) maps with integer keys, in core deterministic encoding (section 4.2.1): a document has one encoding
// and every other is malformed. What a version does not know is malformed in it.

// Errors of decoding.
var (
	// ErrMalformed: not a document of this form, within its bounds.
	ErrMalformed = errors.New("malformed document")
	// ErrVersion: of a version that is not known here.
	ErrVersion = errors.New("document of another version")
)

var encoding = func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
}()

var decoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   4,
		MaxArrayElements:  MaxRoutes,
		MaxMapPairs:       16,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// decode reads one document into the struct at v, which begins with its version under key 1.
func decode(b []byte, v any) error {
	if len(b) > MaxDocument {
		return ErrMalformed
	}
	var head map[int64]cbor.RawMessage
	if decoding.Unmarshal(b, &head) != nil {
		return ErrMalformed
	}
	var version uint64
	if decoding.Unmarshal(head[1], &version) != nil {
		return ErrMalformed
	}
	if version != 1 {
		return ErrVersion
	}
	if decoding.Unmarshal(b, v) != nil {
		return ErrMalformed
	}
	again, err := encoding.Marshal(v)
	if err != nil || !bytes.Equal(again, b) {
		return ErrMalformed
	}
	return nil
}

// packAddr is an address in 4 or 16 bytes.
func packAddr(a netip.Addr) []byte { return a.AsSlice() }

// packPrefix is an address, with a byte that has the length of the prefix behind it.
func packPrefix(p netip.Prefix) []byte { return append(p.Addr().AsSlice(), byte(p.Bits())) }

func unpackAddr(b []byte) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(b)
	return a, ok && !a.Is4In6()
}

func unpackPrefix(b []byte) (netip.Prefix, bool) {
	if len(b) == 0 {
		return netip.Prefix{}, false
	}
	a, ok := unpackAddr(b[:len(b)-1])
	if !ok {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(a, int(b[len(b)-1]))
	return p, p.IsValid()
}

// pack and unpack do so with several.
func pack[T any](list []T, one func(T) []byte) (out [][]byte) {
	for _, x := range list {
		out = append(out, one(x))
	}
	return out
}

func unpack[T any](list [][]byte, one func([]byte) (T, bool)) (out []T, ok bool) {
	for _, b := range list {
		x, ok := one(b)
		if !ok {
			return nil, false
		}
		out = append(out, x)
	}
	return out, true
}
