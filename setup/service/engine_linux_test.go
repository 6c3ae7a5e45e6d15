package service_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup/apply"
	"culvert/setup/journal"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// TestServicesInPlans has a real service beside links that are there in memory only: a plan starts it, a second plans nothing, a
// crash of the supervisor is repaired by the next apply, a change starts it anew, and destroy ends it.
func TestServicesInPlans(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "dnsmasq")
	h := lab.NewHost(t, "server")
	ns := h.Namespace.Name()
	h.Shell("ip", "link", "add", "veth-b", "type", "veth", "peer", "name", "far")
	h.Shell("ip", "addr", "add", "10.7.0.2/24", "dev", "veth-b")
	h.Shell("ip", "link", "set", "veth-b", "up")
	links := kerneltest.New()
	links.Add(model.NetnsID(ns), nil)
	links.AddLink(model.NewRef(ns, "veth-b"), "veth", nil)
	links.Add(model.AddressID(model.NewRef(ns, "veth-b"), "10.7.0.2/24"), nil)

	k := newKeeper(t)
	j, err := journal.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	e := &apply.Engine{Instance: "test", Kernel: &apply.Parts{Kernel: links, Processes: k.Kernel}, Preflight: k.Kernel, Journal: j}
	declared := func(last string) []model.Item {
		return expanded(t, &spec.Spec{
			Instance: "test",
			Netns:    []spec.Netns{{Name: ns, External: true}},
			Links:    []spec.Link{{Key: "veth-b", Netns: ns, External: true, Addresses: []spec.Address{{Prefix: netip.MustParsePrefix("10.7.0.2/24")}}}},
			Services: []spec.Service{{Dnsmasq: &spec.Dnsmasq{Netns: ns, Interface: "veth-b", Ranges: []string{"10.7.0.10," + last}}}},
		})
	}
	id := model.ProcessID("dnsmasq:" + ns + "/veth-b")
	apply := func(items []model.Item) *apply.Result {
		t.Helper()
		r, err := e.Apply(t.Context(), items)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	planned := func(items []model.Item) *plan.Plan {
		t.Helper()
		p, _, err := e.Plan(t.Context(), items)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	items := declared("10.7.0.50")
	apply(items)
	first := k.status(id).PID
	if !isRunning(first) {
		t.Fatal("it does not run")
	}
	if p := planned(items); !p.IsEmpty() {
		t.Errorf("the second plan: %v", p.Entries)
	}

	k.killSupervisor()
	if p := planned(items); len(p.Entries) != 1 || p.Entries[0].Verdict != plan.WillRecreate || p.Entries[0].ID != id {
		t.Errorf("planned without a supervisor: %v, want %s made anew", p.Entries, id)
	}
	if r := apply(items); len(r.Steps) != 0 {
		t.Errorf("steps %v, want the running one taken over", r.Steps)
	}
	lab.Eventually(t, 20*time.Second, "the running one is taken over", func() bool { // a moment after it was found
		s := k.status(id)
		return s.PID == first && !s.Orphaned
	})

	items = declared("10.7.0.60")
	if r := apply(items); len(r.Steps) != 2 {
		t.Errorf("steps %v, want an end and a start", r.Steps)
	}
	second := k.status(id)
	if second.PID == first || isRunning(first) || !strings.Contains(string(second.Fields["args"]), "10.7.0.60") {
		t.Errorf("%+v after the change", second)
	}

	// Killed after the supervisor, and destroyed: both are gone without having been taken over for long.
	k.killSupervisor()
	if _, err := e.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.gone(first, second.PID)
}
