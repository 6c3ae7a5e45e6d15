package kernel_test

import (
	"strings"
	"testing"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// Whatever is done to a firewall by hand is seen, and set right by the change that the difference leads to.
func TestFirewallDrift(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "nft")
	m := newMachine(t)
	id := model.FirewallID("", "culvert/test")
	fields := model.Fields{"kill_switch": "vpn0", "endpoints": "0xca6c,192.0.2.1,51820", "lookups": "", "listen": "", "except": "10.0.0.0/8",
		"guard": "vpn0,10.8.0.2", "marks": "0xca6c"}
	m.create(id, "", fields)
	for _, by := range []string{
		"flush chain inet culvert/test output",
		"add rule inet culvert/test output accept",
		"insert rule inet culvert/test input accept",
		"insert rule inet culvert/test forward accept",
		"add chain inet culvert/test output { policy accept; }",
		"add chain inet culvert/test more",
		"flush chain inet culvert/test input; delete chain inet culvert/test input",
		"add rule inet culvert/test output ip daddr 10.0.0.0/8 accept comment \"except 10.0.0.0/8\"",
	} {
		nft := m.home.Command(t.Context(), "nft", by)
		if out, err := m.home.Output(nft); err != nil {
			t.Fatalf("nft %s: %v %s", by, err, out)
		}
		have := m.object(id).Fields
		var changes []plan.FieldChange
		for f, v := range fields {
			if have[f] != v {
				changes = append(changes, plan.FieldChange{Field: f, Old: have[f], New: v})
			}
		}
		if len(changes) == 0 {
			t.Errorf("nft %s: not seen", by)
			continue
		}
		m.do(plan.Step{Op: plan.Change, ID: id, Changes: changes})
		for f, v := range fields {
			if have := m.object(id).Fields[f]; have != v {
				t.Errorf("nft %s: set right, %s is %q, not %q", by, f, have, v)
			}
		}
	}
	_, err := m.try(plan.Step{Op: plan.Create, ID: model.FirewallID("", "culvert/other"), Fields: model.Fields{"kill_switch": "vpn0", "except": "10.0.0.0"}})
	if err == nil || !strings.Contains(err.Error(), "except") {
		t.Errorf("a network without its length: %v", err)
	}
	_, err = m.try(plan.Step{Op: plan.Create, ID: model.FirewallID("", "filter"), Fields: model.Fields{}})
	if err == nil {
		t.Error("a table of another's name was made")
	}
}

// A setting is read, set and set back, but not while somebody else's rules rely on it.
func TestSysctl(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "ip")
	m := newMachine(t)
	const name = "net.ipv4.conf.all.src_valid_mark"
	for _, netns := range []string{"", m.netns()} {
		id := model.SysctlID(netns, name)
		host := m.home
		if netns != "" {
			host = m.other
		}
		value := func() model.Value {
			t.Helper()
			s, err := m.k.Read(t.Context(), model.Scope{Netns: []string{netns}, Settings: []model.ID{id, model.SysctlID(netns, "net.no.such")}})
			if err != nil || s.Objects[id] == nil {
				t.Fatal(err)
			}
			if s.Objects[model.SysctlID(netns, "net.no.such")] != nil {
				t.Error("what is not there is read")
			}
			return s.Objects[id].Fields["value"]
		}
		set := func(old, new model.Value) error {
			_, err := m.try(plan.Step{Op: plan.Change, ID: id, Changes: []plan.FieldChange{{Field: "value", Old: old, New: new}}})
			return err
		}
		if err := set("0", "1"); err != nil || value() != "1" {
			t.Errorf("%s: value %q, %v", netns, value(), err)
		}
		if out, err := host.Output(host.Command(t.Context(), "ip", "rule", "add", "not", "fwmark", "1", "table", "77")); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		if err := set("1", "0"); err != nil || value() != "1" {
			t.Errorf("%s: with others' rules: value %q, %v", netns, value(), err)
		}
		if out, err := host.Output(host.Command(t.Context(), "ip", "rule", "del", "table", "77")); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		if err := set("1", "0"); err != nil || value() != "0" {
			t.Errorf("%s: value %q, %v", netns, value(), err)
		}
	}
	for _, bad := range []string{"kernel.core_pattern", "net/../kernel.core_pattern", "net...kernel.hostname"} {
		if _, err := m.try(plan.Step{Op: plan.Change, ID: model.SysctlID("", bad), Changes: []plan.FieldChange{{Field: "value", New: "1"}}}); err == nil {
			t.Errorf("%s was set", bad)
		}
	}
}
