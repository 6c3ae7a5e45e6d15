package crypto

import "testing"

func TestSuitesChoose(t *testing.T) {
	cha, aes := SuitesOf(ChaCha20Poly1305), SuitesOf(AES256GCM)
	for _, test := range []struct {
		a, b Suites
		want Suite
		ok   bool
	}{
		{AllSuites, AllSuites, AES256GCM, true},
		{AllSuites, cha, ChaCha20Poly1305, true},
		{cha, AllSuites, ChaCha20Poly1305, true},
		{0xff, 0xff, AES256GCM, true}, // suites of the future are ignored
		{0xfd, AllSuites, ChaCha20Poly1305, true},
		{aes, AllSuites, 0, false},
		{AllSuites, aes, 0, false},
		{0, AllSuites, 0, false},
		{0xfc, 0xfc, 0, false},
	} {
		if got, ok := test.a.Choose(test.b); got != test.want || ok != test.ok {
			t.Errorf("%#x and %#x choose %v, %v", test.a, test.b, got, ok)
		}
	}
}

func TestSuitesOnly(t *testing.T) {
	for set := range 256 {
		s, ok := Suites(set).Only()
		if want := set == 1 || set == 2; ok != want || ok && SuitesOf(s) != Suites(set) {
			t.Errorf("%#x: %v, %v", set, s, ok)
		}
	}
	if got := AllSuites.String(); got != "ChaCha20-Poly1305, AES-256-GCM" {
		t.Error(got)
	}
}
