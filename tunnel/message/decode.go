package message

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

var decoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		UTF8:             cbor.UTF8RejectInvalid,
		MaxNestedLevels:  maxNesting,
		MaxArrayElements: maxElements,
		MaxMapPairs:      maxElements,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
}()

// Major types (RFC 8949 §3.1).
const (
	majorUint   = 0
	majorBytes  = 2
	majorText   = 3
	majorMap    = 5
	majorSimple = 7
)

// envelope is a message with its body still to be decoded.
type envelope struct {
	_      struct{} `cbor:",toarray"`
	Type   cbor.RawMessage
	Number cbor.RawMessage
	Body   cbor.RawMessage
}

// Decode reads the message that content consists of. number is 0 for an unnumbered one. Of an [Unknown] message the
// body has been checked for form alone, and the number may be either: if it is not 0 the message is to be acknowledged.
// Errors are [ErrMalformed], [ErrTooLarge], [ErrTrailing], [ErrNumber], [ErrField].
func Decode(content []byte) (number uint64, m Message, err error) {
	if len(content) > MaxProbe {
		return 0, nil, ErrTooLarge
	}
	var e envelope
	rest, err := decoding.UnmarshalFirst(content[:min(len(content), MaxSize)], &e)
	if err != nil {
		if len(content) > MaxSize {
			return 0, nil, ErrTooLarge
		}
		return 0, nil, ErrMalformed
	}
	size := min(len(content), MaxSize) - len(rest)
	rest = content[size:]
	code, ok := unsigned(e.Type)
	if !ok {
		return 0, nil, ErrMalformed
	}
	if number, ok = unsigned(e.Number); !ok || major(e.Body) != majorMap || !plain(e.Body) {
		return 0, nil, ErrMalformed
	}
	var f fields
	if decoding.Unmarshal(e.Body, &f) != nil {
		return 0, nil, ErrMalformed
	}
	t := Type(code)
	if t != TypeProbe && len(content) > MaxSize {
		return 0, nil, ErrTooLarge
	}
	if t != TypeProbe && len(rest) > 0 || !zero(rest) {
		return 0, nil, ErrTrailing
	}
	m, ok = f.message(t)
	if !ok {
		return 0, nil, ErrField
	}
	if _, unknown := m.(Unknown); unknown {
		return number, m, nil
	}
	if m.check() != nil {
		return 0, nil, ErrField
	}
	if t.Numbered() != (number != 0) {
		return 0, nil, ErrNumber
	}
	return number, m, nil
}

// fields are a body's values by key.
type fields map[int64]cbor.RawMessage

// message reads a message of type t; false where a field is missing or of the wrong type.
func (f fields) message(t Type) (m Message, ok bool) {
	var a, b, c bool
	switch t {
	case TypeHello:
		var h Hello
		var mtu, layer uint64
		h.Agent, a = f.text(1)
		mtu, b = f.unsigned(2)
		layer, c = f.unsigned(3)
		if !a || !b || !c || mtu > MaxMTU || layer > 0xff {
			return nil, false
		}
		h.MTU, h.Layer = int(mtu), uint8(layer)
		if _, has := f[4]; has {
			flags, ok := f.unsigned(4)
			if !ok {
				return nil, false
			}
			h.Relays = flags&helloRelays != 0
		}
		return h, true
	case TypeAck:
		number, a := f.unsigned(1)
		return Ack{number}, a
	case TypeEcho:
		var e Echo
		e.ID, a = f.unsigned(1)
		e.Sent, b = f.unsigned(2)
		return e, a && b
	case TypeReply:
		var r Reply
		r.ID, a = f.unsigned(1)
		r.Received, b = f.unsigned(2)
		return r, a && b
	case TypeProbe:
		id, a := f.unsigned(1)
		return Probe{id}, a
	case TypeProbed:
		id, a := f.unsigned(1)
		return Probed{id}, a
	case TypePush:
		var p Push
		p.Subject, a = f.text(1)
		p.Document, b = f.bytes(2)
		return p, a && b
	case TypeGoodbye:
		reason, a := f.unsigned(1)
		return Goodbye{reason}, a
	case TypeMoved:
		hops, a := f.unsigned(1)
		return Moved{hops}, a
	}
	return Unknown{t}, true
}

func (f fields) unsigned(key int64) (v uint64, ok bool) { return unsigned(f[key]) }

func (f fields) text(key int64) (v string, ok bool) {
	ok = major(f[key]) == majorText && decoding.Unmarshal(f[key], &v) == nil
	return v, ok
}

func (f fields) bytes(key int64) (v []byte, ok bool) {
	ok = major(f[key]) == majorBytes && decoding.Unmarshal(f[key], &v) == nil
	return v, ok
}

// unsigned decodes an unsigned integer and nothing else; the library would take null for 0.
func unsigned(raw cbor.RawMessage) (v uint64, ok bool) {
	if major(raw) != majorUint {
		return 0, false
	}
	ok = decoding.Unmarshal(raw, &v) == nil
	return v, ok
}

// major returns the major type of an encoded item, -1 for none.
func major(raw []byte) int {
	if len(raw) == 0 {
		return -1
	}
	return int(raw[0] >> 5)
}

// plain reports whether an item, known to be well-formed and of definite lengths, holds no floats, no simple values other
// than false, true and null, and no text that is not UTF-8: the library looks only at what it decodes, which leaves out
// the values of unknown keys.
func plain(item []byte) bool {
	for len(item) > 0 {
		kind, info := item[0]>>5, item[0]&0x1f
		head, argument := 1, uint64(info)
		switch info {
		case 24:
			head, argument = 2, uint64(item[1])
		case 25:
			head, argument = 3, uint64(binary.BigEndian.Uint16(item[1:]))
		case 26:
			head, argument = 5, uint64(binary.BigEndian.Uint32(item[1:]))
		case 27:
			head, argument = 9, binary.BigEndian.Uint64(item[1:])
		}
		size := head
		switch kind {
		case majorBytes:
			size += int(argument)
		case majorText:
			size += int(argument)
			if !utf8.Valid(item[head:size]) {
				return false
			}
		case majorSimple:
			if info < 20 || info > 22 {
				return false
			}
		}
		item = item[size:]
	}
	return true
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
