package transport

import "testing"

func TestCorruptsEqualTrains(t *testing.T) {
	for release, want := range map[string]bool{
		"6.18.44":                false,
		"6.19.99-generic":        false,
		"7.0.0":                  true,
		"7.0.0-rc1":              true,
		"7.0":                    true,
		"7.0.12-14-generic":      true,
		"7.1.0-rc4+":             true,
		"7.1.4":                  true,
		"7.1.5":                  false,
		"7.1.10":                 false,
		"7.2.0":                  false,
		"7.10.1":                 false,
		"8.0.1":                  false,
		"":                       false,
		"x.y":                    false,
		"7":                      true,
		"99999999999999999999.0": false,
	} {
		if got := parseKernelRelease(release).corruptsEqualTrains(); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}
