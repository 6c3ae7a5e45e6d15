package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// What configures a tunnel on darwin and the BSDs, and what does not go there.
func TestPlain(t *testing.T) {
	prefix := netip.MustParsePrefix
	c := L3{Link: "utun7", MTU: 1416, Addresses: []netip.Prefix{prefix("10.20.0.1/24"), prefix("fd20::1/64"), prefix("10.21.0.1/32")},
		Routes: []Route{{Prefix: prefix("10.30.0.5/16")}, {Prefix: prefix("10.20.0.0/24")}, {Prefix: prefix("fd30::/48"), Metric: 7},
			{Prefix: prefix("10.40.0.0/16"), Metric: StandInMetric}},
		Uncounted: []netip.Prefix{prefix("10.50.0.0/16")}}
	p, err := plainOf(&c)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, c := range slices.Concat(p.addresses, p.device) {
		text = append(text, c.String())
	}
	for _, r := range slices.Concat(p.networks, p.routes) {
		text = append(text, routeCommand("add", c.Link, r).String())
	}
	for _, a := range c.Addresses[:2] {
		text = append(text, dropAddressCommand(c.Link, a).String())
	}
	want := `ifconfig utun7 inet 10.20.0.1/24 10.20.0.1 alias
ifconfig utun7 inet6 fd20::1/64 alias
ifconfig utun7 inet 10.21.0.1/32 10.21.0.1 alias
ifconfig utun7 mtu 1416
ifconfig utun7 up
route -q -n add -inet 10.20.0.0/24 -interface utun7
route -q -n add -inet6 fd20::/64 -interface utun7
route -q -n add -inet 10.30.0.0/16 -interface utun7
route -q -n add -inet6 fd30::/48 -interface utun7
ifconfig utun7 inet 10.20.0.1 -alias
ifconfig utun7 inet6 fd20::1 -alias`
	if got := strings.Join(text, "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	// What may be taken away by itself is neither an address's network nor routed into the link already.
	if got := fmt.Sprint(p.networks, p.routes); got != "[10.20.0.0/24 fd20::/64] [10.30.0.0/16 fd30::/48]" {
		t.Errorf("networks and routes %s", got)
	}
	for name, wrong := range map[string]L3{
		"a namespace":     {Link: "utun7", Namespace: "/run/netns/blue"},
		"a default route": {Link: "utun7", Routes: []Route{{Prefix: prefix("0.0.0.0/0")}}},
		"a table":         {Link: "utun7", Routes: []Route{{Prefix: prefix("10.0.0.0/8"), Table: 7}}},
	} {
		if _, err := plainOf(&wrong); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "needs Linux") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := plainOf(&L3{Link: "no such/name"}); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a wrong name: %v", err)
	}
}
