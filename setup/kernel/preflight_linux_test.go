package kernel_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// steps are the creations of everything the trips have.
func steps(m *machine) (list []plan.Step) {
	for _, tr := range trips {
		id, fields := tr.in(m)
		list = append(list, plan.Step{N: len(list) + 1, Op: plan.Create, ID: id, Type: tr.typ, Fields: fields, Peer: tr.peer})
	}
	return list
}

// missing is what is missing for steps, a line each.
func (m *machine) missing(steps []plan.Step) []string {
	m.t.Helper()
	before := m.read()
	list, err := m.k.Try(m.t.Context(), steps)
	if err != nil {
		m.t.Fatal(err)
	}
	m.same("after trying", before, m.read())
	var lines []string
	for _, x := range list {
		lines = append(lines, fmt.Sprintf("%s: %s: %v: %s: %s", x.Step.ID, x.What, x.Err, x.Config, x.Module))
	}
	return lines
}

// Where the kernel has everything, nothing is missing, and the modules may come by themselves.
func TestTryFindsEverything(t *testing.T) {
	t.Parallel()
	needGuest(t)
	m := newMachine(t)
	if lines := m.missing(steps(m)); len(lines) != 0 {
		t.Errorf("missing:\n%s", strings.Join(lines, "\n"))
	}
}

// A step is possible exactly where Try says so, whatever this kernel has.
func TestTryIsRight(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, tr := range trips {
		if model.ID(tr.id).Kind() != model.KindLink {
			continue // the others need one
		}
		id, fields := tr.in(m)
		step := plan.Step{Op: plan.Create, ID: id, Type: tr.typ, Fields: fields, Peer: tr.peer}
		missing := m.missing([]plan.Step{step})
		n := newMachine(t)
		if tr.prepare != nil {
			tr.prepare(n)
		}
		id, fields = tr.in(n)
		_, err := n.try(plan.Step{Op: plan.Create, ID: id, Type: tr.typ, Fields: fields, Peer: tr.peer})
		if (err == nil) != (len(missing) == 0) {
			t.Errorf("%s: %v, but Try says %q", tr.name, err, missing)
		}
	}
}

// TestMissing runs the test after it in a guest that has next to nothing.
func TestMissing(t *testing.T) {
	t.Parallel()
	out := runInGuest(t, "^TestTryFindsNothing$", []string{"veth"}, bare+"=1")
	if !strings.Contains(out, "--- PASS: TestTryFindsNothing") {
		t.Errorf("the test did not run:\n%s", out)
	}
	t.Log(out)
}

// bare says that the guest's kernel has only veth.
const bare = "CULVERT_KERNEL_BARE"

func TestTryFindsNothing(t *testing.T) {
	if os.Getenv(bare) == "" {
		t.Skip("runs in the guest of TestMissing")
	}
	m := newMachine(t)
	all := steps(m)
	want := strings.Split(strings.TrimSpace(`
link t0: tun devices: open /dev/net/tun: no tun driver: no such file or directory: CONFIG_TUN: tun
link t0: tap devices: open /dev/net/tun: no tun driver: no such file or directory: CONFIG_TUN: tun
link br0: bridge devices: operation not supported: Unknown device type: CONFIG_BRIDGE: bridge
link m0: macvlan devices: operation not supported: Unknown device type: CONFIG_MACVLAN: macvlan
link m0: macvtap devices: operation not supported: Unknown device type: CONFIG_MACVTAP: macvtap
link ifb-a: ifb devices: operation not supported: Unknown device type: CONFIG_IFB: ifb
link vl0: vlan devices: operation not supported: Unknown device type: CONFIG_VLAN_8021Q: 8021q
link i0: ipvlan devices: operation not supported: Unknown device type: CONFIG_IPVLAN: ipvlan
link i0: ipvtap devices: operation not supported: Unknown device type: CONFIG_IPVTAP: ipvtap
link team0: team devices: operation not supported: Unknown device type: CONFIG_NET_TEAM: team
link b0: bond devices: operation not supported: Unknown device type: CONFIG_BONDING: bonding
nat - culvert-test: masquerading by nftables: open a netfilter socket: protocol not supported: CONFIG_NF_TABLES CONFIG_NF_TABLES_INET CONFIG_NFT_NAT CONFIG_NFT_MASQ: nf_tables nft_chain_nat nft_masq
firewall - culvert/test: filtering by nftables: open a netfilter socket: protocol not supported: CONFIG_NF_TABLES CONFIG_NF_TABLES_INET CONFIG_NFT_CT CONFIG_NFT_FIB_INET: nf_tables nft_ct nft_fib_inet
qdisc a0 root: the queueing discipline tbf: no such file or directory: Specified qdisc kind is unknown: CONFIG_NET_SCH_TBF: sch_tbf
qdisc a0 root: the queueing discipline htb: no such file or directory: Specified qdisc kind is unknown: CONFIG_NET_SCH_HTB: sch_htb
qdisc a0 root: the queueing discipline sfq: no such file or directory: Specified qdisc kind is unknown: CONFIG_NET_SCH_SFQ: sch_sfq
qdisc a0 root: the queueing discipline cake: no such file or directory: Specified qdisc kind is unknown: CONFIG_NET_SCH_CAKE: sch_cake
qdisc a0 ingress: the ingress queueing discipline: no such file or directory: Specified qdisc kind is unknown: CONFIG_NET_SCH_INGRESS: sch_ingress
`), "\n")
	got := m.missing(all)
	if !slices.Equal(got, want) {
		t.Errorf("missing:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// The steps themselves say the same.
	for _, step := range all {
		if step.ID.Kind() != model.KindLink || step.Type == "veth" || step.Fields["parent"] != "" {
			continue
		}
		if _, err := m.try(step); err == nil || !strings.Contains(err.Error(), "; the kernel needs CONFIG_") || !strings.Contains(err.Error(), "(try modprobe ") {
			t.Errorf("%v, want what the kernel lacks", err)
		}
	}
}

// Of the same need there is one line, and a thousand devices are not tried one by one.
func TestTryIsBrief(t *testing.T) {
	lab.NeedRoot(t)
	m := newMachine(t)
	var list []plan.Step
	for i := range 5000 {
		list = append(list, plan.Step{Op: plan.Create, ID: model.LinkID(model.Ref(fmt.Sprint("m", i))), Type: "macvlan",
			Fields: model.Fields{"type": "macvlan", "parent": "eth0", "mode": "bridge", "mtu": model.Uint(uint32(1000 + i%500)),
				"mac": model.MAC(spec.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)})}})
	}
	if got := testing.AllocsPerRun(1, func() { m.missing(list) }); got > 500_000 {
		t.Errorf("5000 steps take %v allocations", got)
	}
}

// Steps that only delete need nothing.
func TestTryOfDeletions(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if got := m.missing([]plan.Step{{Op: plan.Delete, ID: model.LinkID("b0"), Type: "bond"}}); len(got) != 0 {
		t.Errorf("missing: %q", got)
	}
}
