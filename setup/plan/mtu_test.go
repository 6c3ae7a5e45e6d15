package plan_test

import (
	"strings"
	"testing"

	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// TestOversized: an MTU that the kernel would refuse is a conflict, with the line of the MTU; what comes below is looked at as it will be.
func TestOversized(t *testing.T) {
	upper := func(mtu int, parent string) spec.Link {
		place := at(9, "links.mv9")
		place.Fields = map[string]spec.Origin{"mtu": {File: "net.yaml", Line: 11, Column: 5}}
		return spec.Link{Place: place, Key: "mv9", Type: spec.TypeMacvlan, MTU: mtu, Stack: &spec.Stack{Parent: parent, Mode: "bridge"}}
	}
	eth0 := spec.Link{Key: "eth0", External: true}
	middle := spec.Link{Key: "v5", Type: spec.TypeVLAN, VLAN: &spec.VLAN{Parent: "eth0", VID: 5}}
	bridge := spec.Link{Key: "br0", Type: spec.TypeBridge}
	prior := plan.Known{Prior: map[model.ID]plan.Prior{"link eth0": {Fields: map[model.Field]plan.FieldChange{"mtu": {Field: "mtu", Old: "1500", New: "9000"}}}}}
	const says = "! conflict link mv9 (macvlan): its mtu 1600 is above that of its parent %, 1500, and the kernel takes no more: " +
		"say mtu: 1500 here, or mtu: 1600 of % (net.yaml:11:5)"
	for name, c := range map[string]struct {
		links []spec.Link
		real  model.Value // of eth0
		known plan.Known
		on    string // "" is no conflict
	}{
		"above":                   {[]spec.Link{eth0, upper(1600, "eth0")}, "1500", plan.Known{}, "eth0"},
		"equal":                   {[]spec.Link{eth0, upper(1600, "eth0")}, "1600", plan.Known{}, ""},
		"below":                   {[]spec.Link{eth0, upper(1600, "eth0")}, "9000", plan.Known{}, ""},
		"made large enough":       {[]spec.Link{{Key: "eth0", External: true, MTU: 1600}, upper(1600, "eth0")}, "1500", plan.Known{}, ""},
		"above what is made":      {[]spec.Link{eth0, middle, upper(1600, "v5")}, "1500", plan.Known{}, "v5"},
		"below what is made":      {[]spec.Link{eth0, middle, upper(1600, "v5")}, "1600", plan.Known{}, ""},
		"of a bridge's own":       {[]spec.Link{bridge, upper(1600, "br0")}, "1500", plan.Known{}, ""},
		"large until it is given": {[]spec.Link{eth0, upper(1600, "eth0")}, "9000", prior, "eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			k := world()
			k.Objects["link eth0"].Fields["mtu"] = c.real
			made := makePlan(t, k, &spec.Spec{Instance: "net", Links: c.links}, c.known)
			want := strings.ReplaceAll(says, "%", c.on)
			if made.HasConflict() != (c.on != "") || c.on != "" && !strings.Contains(made.String(), want) {
				t.Errorf("the plan is\n%swant\n%s", made, want)
			}
		})
	}
	// Of an external device too, which lies on one that nobody declares.
	k := world()
	k.AddLink("mv9", "macvlan", model.Fields{"parent": "eth1"})
	made := makePlan(t, k, &spec.Spec{Instance: "net", Links: []spec.Link{{Key: "mv9", External: true, MTU: 1600}}}, plan.Known{})
	if !made.HasConflict() {
		t.Errorf("the plan is\n%s", made)
	}
}
