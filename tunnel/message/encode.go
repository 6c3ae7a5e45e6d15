package message

import (
	"slices"

	"github.com/fxamacker/cbor/v2"
)

var encoding = func() cbor.EncMode {
	options := cbor.CoreDetEncOptions()
	options.IndefLength, options.TagsMd = cbor.IndefLengthForbidden, cbor.TagsForbidden
	mode, err := options.EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
}()

// body returns what m holds, by key.
func body(m Message) map[int64]any {
	switch m := m.(type) {
	case Hello:
		h := map[int64]any{1: m.Agent, 2: m.MTU, 3: m.Layer}
		if m.Relays { // left out otherwise, as by ends that know nothing of it
			h[4] = uint64(helloRelays)
		}
		return h
	case Ack:
		return map[int64]any{1: m.Number}
	case Echo:
		return map[int64]any{1: m.ID, 2: m.Sent}
	case Reply:
		return map[int64]any{1: m.ID, 2: m.Received}
	case Probe:
		return map[int64]any{1: m.ID}
	case Probed:
		return map[int64]any{1: m.ID}
	case Push:
		document := m.Document
		if document == nil {
			document = []byte{} // nil would be encoded as null
		}
		return map[int64]any{1: m.Subject, 2: document}
	case Goodbye:
		return map[int64]any{1: m.Reason}
	case Moved:
		return map[int64]any{1: m.Hops}
	}
	return nil
}

// Encode appends m to dst. number is that of a numbered message, from 1, and 0 for the others. On error dst comes back as
// it was: [ErrNumber]; [ErrField], with a field out of range; [ErrType], for an Unknown or nil.
func Encode(dst []byte, number uint64, m Message) ([]byte, error) {
	if m == nil {
		return dst, ErrType
	}
	if err := m.check(); err != nil {
		return dst, err
	}
	if m.Type().Numbered() != (number != 0) {
		return dst, ErrNumber
	}
	encoded, err := encoding.Marshal([]any{m.Type(), number, body(m)})
	if err != nil {
		return dst, ErrMalformed
	}
	return append(dst, encoded...), nil
}

// EncodeProbe appends a [Probe] followed by zeros that takes exactly size bytes, from [MinProbe] to [MaxProbe]; otherwise it
// returns dst as it was and [ErrProbeSize].
func EncodeProbe(dst []byte, id uint64, size int) ([]byte, error) {
	if size < MinProbe || size > MaxProbe {
		return dst, ErrProbeSize
	}
	from := len(dst)
	out, err := Encode(dst, 0, Probe{ID: id})
	if err != nil {
		return dst, err
	}
	used := len(out)
	out = slices.Grow(out, from+size-used)[:from+size]
	clear(out[used:])
	return out, nil
}
