package model

import "testing"

func TestText(t *testing.T) {
	for id, want := range map[ID]string{
		RouteID("", "254", "0.0.0.0/0", "0"):          "route 0.0.0.0/0",
		RouteID("lab", "100", "2001:db8::/32", "512"): "route 2001:db8::/32 table 100 metric 512 in lab",
		RuleID("", "4", "77"):                         "rule 77 ipv4",
		RuleID("lab", "6", "0"):                       "rule 0 ipv6 in lab",
		NATID("", "culvert-site"):                     "nat culvert-site",
		NATID("lab", "culvert-site"):                  "nat culvert-site in lab",
		LinkID("lab/br0"):                             "link lab/br0",
		AddressID("eth0", "192.0.2.1/24"):             "address eth0 192.0.2.1/24",
	} {
		if got := id.Text(); got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}
