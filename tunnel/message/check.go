package message

import (
	"errors"
	"unicode"
	"unicode/utf8"
)

// Errors of encoding and decoding.
var (
	// ErrMalformed: not one array of type, number and body map, or not within the subset of CBOR the package comment names.
	ErrMalformed = errors.New("message: malformed")
	// ErrTooLarge: more than [MaxSize], or for a probe [MaxProbe], bytes.
	ErrTooLarge = errors.New("message: too large")
	// ErrNumber: a numbered message without a number, or an unnumbered one with one.
	ErrNumber = errors.New("message: number")
	// ErrField: a field of the body is missing, of the wrong type, or out of its range.
	ErrField = errors.New("message: field missing or out of range")
	// ErrTrailing: something follows the message, or what follows a probe is not zero.
	ErrTrailing = errors.New("message: trailing bytes")
	// ErrType: a message of this type cannot be encoded.
	ErrType = errors.New("message: unknown type")
	// ErrProbeSize: a probe cannot be made as small, or as large.
	ErrProbeSize = errors.New("message: size of probe")
)

// printable reports whether text can be shown on a terminal: valid UTF-8 without control characters, line separators or
// the format characters that change the direction of what stands beside them.
func printable(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func checkThat(ok bool) error {
	if !ok {
		return ErrField
	}
	return nil
}

func (m Hello) check() error {
	return checkThat(len(m.Agent) <= MaxAgent && printable(m.Agent) && m.MTU >= 0 && m.MTU <= MaxMTU &&
		(m.Layer == LayerIP || m.Layer == LayerEthernet))
}

func (m Ack) check() error  { return checkThat(m.Number != 0) }
func (Echo) check() error   { return nil }
func (Reply) check() error  { return nil }
func (Probe) check() error  { return nil }
func (Probed) check() error { return nil }

func (m Push) check() error {
	return checkThat(m.Subject != "" && len(m.Subject) <= MaxSubject && printable(m.Subject) && len(m.Document) <= MaxDocument)
}

func (Goodbye) check() error { return nil }
func (m Moved) check() error { return checkThat(m.Hops <= MaxHops) }
func (Unknown) check() error { return ErrType }
