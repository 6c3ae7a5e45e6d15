package crypto

import "strings"

// Suite is an AEAD that protects data messages, a property of each session. All take keys of [KeySize] bytes and give tags of
// 16 bytes. The values are those of the native wire.
type Suite uint8

const (
	ChaCha20Poly1305 Suite = 0 // RFC 8439; the only one of the WireGuard wire, and always offered on the native one
	AES256GCM        Suite = 1 // NIST SP 800-38D
)

// String returns the suite's name as status shows it.
func (s Suite) String() string {
	switch s {
	case ChaCha20Poly1305:
		return "ChaCha20-Poly1305"
	case AES256GCM:
		return "AES-256-GCM"
	}
	return "unknown"
}

// Suites is a set of suites, a bit for each: that of value n is 1<<n.
type Suites uint8

// AllSuites are those known here.
const AllSuites = Suites(1<<ChaCha20Poly1305 | 1<<AES256GCM)

// SuitesOf returns the set of the given suites.
func SuitesOf(suites ...Suite) (set Suites) {
	for _, s := range suites {
		set |= 1 << s
	}
	return set
}

// Has reports whether s is in the set.
func (set Suites) Has(s Suite) bool { return set>>s&1 == 1 }

// Choose returns the suite that two ends which offer set and other use: AES-256-GCM where both offer it, since each offers that only
// where it is no slower, otherwise ChaCha20-Poly1305. It reports false where one of them does not offer ChaCha20-Poly1305, which
// everybody has to.
func (set Suites) Choose(other Suites) (Suite, bool) {
	both := set & other
	if !both.Has(ChaCha20Poly1305) {
		return 0, false
	}
	if both.Has(AES256GCM) {
		return AES256GCM, true
	}
	return ChaCha20Poly1305, true
}

// Only returns the suite of a set of exactly one suite that is known here.
func (set Suites) Only() (Suite, bool) {
	switch set {
	case 1 << ChaCha20Poly1305:
		return ChaCha20Poly1305, true
	case 1 << AES256GCM:
		return AES256GCM, true
	}
	return 0, false
}

// String lists the set's suites.
func (set Suites) String() string {
	var names []string
	for s := range Suite(8) {
		if set.Has(s) {
			names = append(names, s.String())
		}
	}
	return strings.Join(names, ", ")
}
