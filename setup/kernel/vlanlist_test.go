package kernel

import (
	"fmt"
	"testing"

	"culvert/setup/model"
)

func TestParseVLANs(t *testing.T) {
	for text, want := range map[model.Value]string{
		"":                            "[]",
		"1,pvid,untagged 5-7":         "[{1 0 true true} {5 0 false false} {6 0 false false} {7 0 false false}]",
		"4094,untagged":               "[{4094 0 false true}]",
		"0":                           "",
		"4095":                        "",
		"7-5":                         "",
		"x":                           "",
		"5,tagged":                    "",
		"1-99999999999999999999":      "",
		"1-2-3":                       "",
		"2,untagged 3,untagged 4-5 ":  "[{2 0 false true} {3 0 false true} {4 0 false false} {5 0 false false}]",
		"100-101,untagged,pvid 4000 ": "[{100 0 true true} {101 0 true true} {4000 0 false false}]",
	} {
		list, err := parseVLANs(text)
		if want == "" {
			if err == nil {
				t.Errorf("%q is taken: %v", text, list)
			}
			continue
		}
		if got := fmt.Sprint(list); err != nil || got != want {
			t.Errorf("%q: %s %v, want %s", text, got, err, want)
		}
	}
}
