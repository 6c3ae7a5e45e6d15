package plan_test

import (
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// What is declared of a device that is there already, and that the kernel knows nothing of, is a change, for the kernel to be asked about. It
// is none where the device has it and just does not show it, and where nothing but "no" is declared.
func TestFieldsNotShown(t *testing.T) {
	for _, c := range []struct {
		name    string
		filter  *bool
		unread  []model.Field
		changes bool
	}{
		{"lacking", new(true), nil, true},
		{"not shown for now", new(true), []model.Field{"vlan_filtering"}, false},
		{"declared as it is without", new(false), nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := world()
			s := &spec.Spec{Instance: "net", Links: []spec.Link{{Place: at(1, "links.br0"), Key: "br0", Type: spec.TypeBridge}}}
			known := do(t, k, makePlan(t, k, s, plan.Known{}))
			br0 := k.Objects[model.LinkID("br0")]
			delete(br0.Fields, "vlan_filtering")
			br0.Unread = c.unread
			s.Links[0].Bridge = &spec.Bridge{VLAN: spec.BridgeVLAN{Filtering: c.filter}}
			p := makePlan(t, k, s, known)
			found := false
			for _, step := range p.Steps {
				for _, change := range step.Changes {
					found = found || change.Field == "vlan_filtering" && change.New == "yes"
				}
			}
			if found != c.changes {
				t.Errorf("the plan is\n%s", p)
			}
		})
	}
}

// A change of a long value shows what differs, wherever in it that is.
func TestLongChange(t *testing.T) {
	long := model.Value("--option=" + strings.Repeat("é", 80) + " --range=10.0.0.10,")
	e := plan.Entry{Label: "process dnsmasq", Changes: []plan.FieldChange{{Field: "args", Old: long + "10.0.0.50", New: long + "10.0.0.60"}}}
	if got := e.String(); !strings.Contains(got, "10.0.0.50") || !strings.Contains(got, "10.0.0.60") || !utf8.ValidString(got) {
		t.Errorf("the plan says %s", got)
	}
}

// TestFieldThatIsMissing: what a route or rule does not have is a difference where it is declared.
func TestFieldThatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		id   model.ID
		have model.Fields
		want string
	}{
		"gateway": {model.RouteID("", "77", "10.1.0.0/16", "0"), model.Fields{"type": "unicast", "link": "eth0", "onlink": "no", "mtu": "1300"},
			"-/+ route 10.1.0.0/16 table 77 gateway none -> 192.0.2.1"},
		"mtu": {model.RouteID("", "77", "10.1.0.0/16", "0"), model.Fields{"type": "unicast", "link": "eth0", "onlink": "no", "gateway": "192.0.2.1"},
			"-/+ route 10.1.0.0/16 table 77 mtu none -> 1300"},
		"from": {model.RuleID("", "4", "1000"), model.Fields{"action": "lookup", "table": "77", "not": "no"}, "-/+ rule 1000 ipv4 from none -> 10.2.0.0/16"},
	} {
		t.Run(name, func(t *testing.T) {
			k := world()
			k.Add(c.id, c.have).Ours = true
			s := &spec.Spec{Instance: "net", Links: []spec.Link{{Key: "eth0", External: true}},
				Routes: []spec.Route{{Prefix: prefix("10.1.0.0/16"), Table: 77, Link: "eth0", Gateway: netip.MustParseAddr("192.0.2.1"), MTU: 1300, OnLink: true}},
				Rules:  []spec.Rule{{Priority: 1000, From: prefix("10.2.0.0/16"), Table: 77}}}
			made := makePlan(t, k, s, plan.Known{Own: map[model.ID]plan.Where{c.id: {}}})
			if !strings.Contains(made.String(), c.want) {
				t.Errorf("the plan is\n%swant\n%s", made, c.want)
			}
		})
	}
}
