package terminal

import "testing"

func TestPrintable(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "alice@example.net, Zoë 日本": true,
		"a\nb": false, "\x1b[2J": false, "a\u202eb": false, "a\u2028b": false, "\xff": false, "a\x00": false,
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
