package setup_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"culvert/setup"
)

func TestRefusedBeforeAnythingIsTouched(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, test := range map[string]struct {
		config setup.L3
		want   string // in the error
	}{
		"no name":              {setup.L3{}, "not a usable device name"},
		"long name":            {setup.L3{Link: "a-name-of-16-byt"}, "at most 15 bytes"},
		"slash in name":        {setup.L3{Link: "a/b"}, "cannot contain"},
		"template in name":     {setup.L3{Link: "wg%d"}, "cannot contain"},
		"tiny MTU":             {setup.L3{Link: "wg0", MTU: 67}, "MTU 67"},
		"negative MTU":         {setup.L3{Link: "wg0", MTU: -1}, "MTU -1"},
		"huge MTU":             {setup.L3{Link: "wg0", MTU: 65536}, "MTU 65536"},
		"MTU too low for IPv6": {setup.L3{Link: "wg0", MTU: 1279, Routes: []setup.Route{{Prefix: prefix("::/0")}}}, "1280"},
		"zero address":         {setup.L3{Link: "wg0", Addresses: []netip.Prefix{{}}}, "not a valid address"},
		"unspecified address":  {setup.L3{Link: "wg0", Addresses: []netip.Prefix{prefix("0.0.0.0/8")}}, "cannot have"},
		"multicast address":    {setup.L3{Link: "wg0", Addresses: []netip.Prefix{prefix("ff02::1/64")}}, "cannot have"},
		"mapped address":       {setup.L3{Link: "wg0", Addresses: []netip.Prefix{prefix("::ffff:10.0.0.1/120")}}, "cannot have"},
		"zero route":           {setup.L3{Link: "wg0", Routes: []setup.Route{{}}}, "not a valid prefix"},
		"mark of table main":   {setup.L3{Link: "wg0", Mark: 254}, "table of the kernel's own"},
	} {
		t.Run(name, func(t *testing.T) {
			// An ordinary user gets the same answer: nothing is asked of the kernel before.
			_, err := setup.Apply(t.Context(), test.config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			if _, ok := errors.AsType[*setup.OpError](err); !ok {
				t.Errorf("error %v is no OpError", err)
			}
		})
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	_, err := setup.Apply(t.Context(), setup.L3{Link: "", MTU: 1, Mark: 255})
	for _, want := range []string{"device name", "MTU 1", "mark 255"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestOpErrorText(t *testing.T) {
	cause := errors.New("no such thing")
	err := error(&setup.OpError{Op: "add route", Item: "10.0.0.0/8 dev wg0", Err: cause, Hint: "do this"})
	if got, want := err.Error(), "add route 10.0.0.0/8 dev wg0: no such thing (do this)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is not found")
	}
}
