package scenes

import (
	"slices"
	"strings"
	"testing"
)

const router = "sysctl:\n  - {name: net.ipv4.ip_forward, value: 1}\n  - {name: net.ipv6.conf.all.forwarding, value: 1}\n"

// unlike makes what the kernel changes with ip_forward neither all on nor all off.
func (m *machine) unlike() {
	m.Helper()
	for _, s := range []string{"ipv4/ip_forward=0", "ipv4/conf/all/accept_redirects=0", "ipv4/conf/lo/forwarding=1", "ipv4/conf/eth0.5/forwarding=1",
		"ipv6/conf/all/forwarding=0", "ipv6/conf/eth0.5/forwarding=1"} {
		name, value, _ := strings.Cut(s, "=")
		m.host.Sysctl("net/"+name, value)
	}
}

// What the kernel changes with forwarding stays changed until the last instance that wants it goes, and is as before the first then.
func TestInstancesForward(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		t.Run(order[0]+" goes first", func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.outside("eth0.5", "192.0.2.7/24", "")
			m.unlike()
			before := m.settledSnapshot()
			m.must("apply", m.another("a", router))
			with := m.network()
			m.must("apply", m.another("b", router))
			m.keeps(with, "shared")
			m.must("destroy", order[0])
			m.keeps(with, "the first is gone")
			m.must("destroy", order[1])
			m.same(before, "both are gone")
		})
	}
}

// Devices that came meanwhile are left as the kernel has them, and so are those that were changed by hand; one that is another by now is not
// taken for the one before.
func TestForwardingOfOtherDevices(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.outside("eth0.5", "192.0.2.7/24", "")
	m.outside("eth1", "", "")
	m.shell("", "ip", "link", "add", "gone0", "type", "bridge")
	m.shell("", "ip", "link", "add", "other0", "type", "bridge")
	m.unlike()
	for _, device := range []string{"gone0", "other0"} {
		m.host.Sysctl("net/ipv4/conf/"+device+"/forwarding", "1")
	}
	before := m.settledSnapshot()
	m.declare("router.yaml", "version: 1\n"+router+"  - {name: net.ipv4.conf.eth1.forwarding, value: 0}\n")
	m.apply()
	m.settled()
	get := func(name string) string {
		m.Helper()
		return strings.TrimSpace(m.shell("", "cat", "/proc/sys/net/ipv4/"+name))
	}
	if get("conf/eth1/forwarding") != "0" || get("conf/eth0.5/forwarding") != "1" || get("conf/all/accept_redirects") != "0" {
		t.Error("it is not as declared")
	}
	m.shell("", "ip", "link", "del", "gone0")
	m.shell("", "ip", "link", "del", "other0")
	m.shell("", "ip", "link", "add", "other0", "type", "bridge")
	m.shell("", "ip", "link", "add", "late0", "type", "bridge")
	m.destroy()
	for _, device := range []string{"other0", "late0"} {
		if get("conf/"+device+"/forwarding") != "0" {
			t.Errorf("%s forwards, which came while all did", device)
		}
	}
	m.shell("", "ip", "link", "del", "late0")
	m.shell("", "ip", "link", "del", "other0")
	without := func(s snapshot) snapshot {
		return slices.DeleteFunc(s, func(line string) bool { return strings.Contains(line, "gone0") || strings.Contains(line, "other0") })
	}
	if diff := without(before).diff(without(m.snapshot())); len(diff) > 0 {
		t.Errorf("not as it was before:\n%s", strings.Join(diff, "\n"))
	}
}
