// Package terminal says what of others' text may be shown to people.
package terminal

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Printable reports whether text can be shown on a terminal: valid UTF-8 without control characters, line separators or the format
// characters that change the direction of what stands beside them.
func Printable(text string) bool {
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

// Safe is text as it may be shown: quoted where it is not [Printable].
func Safe(text string) string {
	if Printable(text) {
		return text
	}
	return strconv.QuoteToGraphic(text)
}
