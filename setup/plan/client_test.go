package plan_test

import (
	"net/netip"
	"strings"
	"testing"

	"culvert/internal/golden"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

const validMark = "net.ipv4.conf.all.src_valid_mark"

// client declares a tunnel that takes all there is, of which it carries IPv4 alone.
func client() *spec.Spec {
	return &spec.Spec{Instance: "net", Links: []spec.Link{{Place: at(40, "tunnels.vpn0"), Key: "vpn0", Type: spec.TypeTunnel,
		Tun: &spec.Tun{Mode: spec.TypeTun}, Client: &spec.Client{
			Place: at(41, "tunnels.vpn0"), Full: []int{4, 6}, Carries: []int{4}, KillSwitch: true, Mark: 51820, Table: 51820,
			Except: []netip.Prefix{prefix("192.168.0.0/16")}, Addresses: []netip.Addr{netip.MustParseAddr("10.8.0.2")},
			Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:51820")},
			DNS:       &spec.DNS{Place: at(42, "tunnels.vpn0.dns"), Servers: []netip.Addr{netip.MustParseAddr("10.8.0.53"), netip.MustParseAddr("10.8.0.54")}}}}}}
}

func TestClientText(t *testing.T) {
	for name, c := range map[string]struct {
		fresh  bool
		change func(s *spec.Spec, k *kerneltest.Kernel)
	}{
		"create":  {true, func(*spec.Spec, *kerneltest.Kernel) {}},
		"nothing": {false, func(*spec.Spec, *kerneltest.Kernel) {}},
		"destroy": {false, func(s *spec.Spec, _ *kerneltest.Kernel) { *s = spec.Spec{Instance: "net"} }},
		"change": {false, func(s *spec.Spec, _ *kerneltest.Kernel) {
			c := s.Links[0].Client
			c.Except = append(c.Except, prefix("172.16.0.0/12"))
			c.DNS.Servers = c.DNS.Servers[:1]
			c.Full = []int{4}
		}},
		"no-kill-switch": {false, func(s *spec.Spec, _ *kerneltest.Kernel) { s.Links[0].Client.KillSwitch = false }},
		"resolver":       {false, func(s *spec.Spec, _ *kerneltest.Kernel) { s.Links[0].Client.DNS.Resolver = "file" }},
		"killed": {false, func(_ *spec.Spec, k *kerneltest.Kernel) {
			delete(k.Objects, "link vpn0")
			delete(k.Objects, "route - 51820 0.0.0.0/0 0")
			k.Objects["dns vpn0"].Fields["servers"], k.Objects["dns vpn0"].Fields["domains"] = "", ""
		}},
		"taken": {false, func(_ *spec.Spec, k *kerneltest.Kernel) {
			k.Objects["dns vpn0"].Taken = "/etc/resolv.conf was changed by somebody else"
		}},
		"taken-destroy": {false, func(s *spec.Spec, k *kerneltest.Kernel) {
			k.Objects["dns vpn0"].Taken = "/etc/resolv.conf was changed by somebody else"
			*s = spec.Spec{Instance: "net"}
		}},
		"conflict": {true, func(_ *spec.Spec, k *kerneltest.Kernel) {
			k.Add(model.RuleID("", "4", "6399"), model.Fields{"action": "lookup", "table": "7", "not": "yes", "mark": "0x1/0xffffffff"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k, s := kerneltest.New(), client()
			k.Add(model.SysctlID("", validMark), model.Fields{"value": "0"})
			k.Boot = "boot"
			make := func(known plan.Known) *plan.Plan {
				t.Helper()
				if errs := s.Validate(); len(errs) > 0 {
					t.Fatal(errs)
				}
				sys, err := k.Read(t.Context(), model.Scope{Netns: []string{""}})
				if err != nil {
					t.Fatal(err)
				}
				return plan.Make(plan.Input{Instance: s.Instance, Items: model.Expand(s), System: sys, Known: known, Tunnels: true})
			}
			var known plan.Known
			if !c.fresh {
				known = do(t, k, make(known))
				known.Prior = map[model.ID]plan.Prior{model.SysctlID("", validMark): {Fields: map[model.Field]plan.FieldChange{
					"value": {Field: "value", Old: "0", New: "1"}}}}
				k.Objects["dns vpn0"].Fields["resolver"] = "resolvconf"
			}
			c.change(s, k)
			p := make(known)
			golden.Check(t, "testdata/client-"+name+".txt", p.String()+"\n"+stepText(p))
			firewallSurrounds(t, p)
		})
	}
}

// firewallSurrounds: it is made before all else, and goes after it.
func firewallSurrounds(t *testing.T, p *plan.Plan) {
	t.Helper()
	made, gone := false, false
	for i, s := range p.Steps {
		is := s.ID.Kind() == model.KindFirewall
		switch {
		case is && s.Op == plan.Delete:
			gone = true
		case is:
			made = true
		case gone && s.Op == plan.Delete:
			t.Errorf("%s is deleted after the firewall", s.ID)
		case !made && s.Op != plan.Delete:
			for _, later := range p.Steps[i:] {
				if later.ID.Kind() == model.KindFirewall && later.Op != plan.Delete {
					t.Errorf("%s %s comes before the firewall", s.Op, s.ID)
				}
			}
		}
	}
	if !strings.Contains(p.String(), "firewall") && len(p.Steps) > 6 {
		t.Error("no firewall")
	}
}
