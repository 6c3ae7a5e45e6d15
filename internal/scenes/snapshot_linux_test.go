package scenes

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// snapshotScript writes all that there is on a machine, as programs other than culvert see it. What counts or ages is left out.
const snapshotScript = `
space() {
	echo "# $1 links, addresses and routes"
	printf '%s\n' addr 'route show table all' rule | ip -d -b -
	[ -d /proc/sys/net/ipv6 ] && ip -6 rule
	echo "# $1 queueing"
	for device in $(ls /sys/class/net); do
		printf '%s\n' "class show dev $device" "filter show dev $device root" "filter show dev $device ingress"
	done | { echo qdisc; cat; } | tc -force -b - 2>/dev/null
	echo "# $1 nftables"
	nft list ruleset
	echo "# $1 settings"
	cat /etc/resolv.conf 2>/dev/null
	cd /proc/sys/net
	grep . ipv4/conf/all/src_valid_mark ipv4/ip_forward ipv[46]/conf/*/forwarding ipv4/conf/*/accept_redirects
	cd /
}
if [ "$1" != "" ]; then space $1; exit; fi
space machine
echo "# files"
find /run/netns /run/culvert /run/wireguard /run/teamd /var/lib/culvert ! -path /run/wireguard/.culvert.lock | sort # which stays, for all
for name in $(ls /run/netns); do ip netns exec $name sh $0 $name; done
`

// snapshot is what there is on a machine. Devices are told by their names, and those that are not culvert's by their index, too.
type snapshot []string

var (
	// A bridge numbers its ports as they come, and learns from them what they can take at once.
	numbers = regexp.MustCompile(`\b(port_id|port_no|designated_port|tso_max_size) \S+`)
	device  = regexp.MustCompile(`^(\d+): ([^:@ ]+)(@\S+)?: `)
	timers  = regexp.MustCompile(`\b(\w+_timer|valid_lft|preferred_lft) +\S+|\bindex \d+ ref`)
)

func (m *machine) snapshot() snapshot {
	m.Helper()
	script := m.dir + "/snapshot"
	write(m.T, script, snapshotScript)
	section, of := "", ""
	var s snapshot
	for line := range strings.Lines(m.shell("", "sh", script)) {
		line = strings.TrimRight(numbers.ReplaceAllString(timers.ReplaceAllString(line, ""), ""), " \n")
		if title, ok := strings.CutPrefix(line, "# "); ok {
			section, of = title, ""
			continue
		}
		if !strings.HasPrefix(line, " ") {
			of = ""
		}
		if d := device.FindStringSubmatch(line); d != nil {
			of = d[2] + " "
			line = strings.Replace(line, d[0], "", 1)
			if !strings.Contains(line, "group 25462 ") {
				line = "index " + d[1] + " " + line
			}
		}
		s = append(s, section+": "+of+strings.TrimSpace(line))
	}
	s = append(s, "processes: "+strings.Join(slices.Sorted(maps.Values(m.processes())), " "))
	return s
}

// settledSnapshot waits until the kernel has done by itself what it does after a change: carriers are told of, at most once a second, and
// addresses are checked.
func (m *machine) settledSnapshot() snapshot {
	m.Helper()
	last, since := m.snapshot(), time.Now()
	for end := time.Now().Add(4 * patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		now := m.snapshot()
		if len(last.diff(now)) > 0 || slices.ContainsFunc(now, func(line string) bool { return strings.HasSuffix(line, " tentative") }) {
			last, since = now, time.Now()
		}
		if time.Since(since) > 1500*time.Millisecond {
			return last
		}
	}
	m.Fatal("the machine does not come to rest")
	return nil
}

// diff are the lines that one has and the other has not.
func (s snapshot) diff(after snapshot) (list []string) {
	count := map[string]int{}
	for _, line := range s {
		count[line]++
	}
	for _, line := range after {
		count[line]--
	}
	for _, line := range slices.Sorted(maps.Keys(count)) {
		switch n := count[line]; {
		case n > 0:
			list = append(list, "- "+line)
		case n < 0:
			list = append(list, "+ "+line)
		}
	}
	return list
}

// same demands that everything is as it was. The kernel takes a moment to clear up behind a device or a namespace that goes.
func (m *machine) same(before snapshot, when string) {
	m.Helper()
	var diff []string
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if diff = before.diff(m.snapshot()); len(diff) == 0 {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	m.Errorf("%s: not as it was before:\n%s\nlog:\n%s", when, strings.Join(diff, "\n"), m.log())
}

// destroyed takes all down and demands that everything is as it was.
func (m *machine) destroyed(before snapshot) {
	m.Helper()
	m.destroy()
	m.same(before, "destroyed")
}

// A snapshot that sees nothing would pass every test.
func TestSnapshotSees(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.outside("eth0", "10.0.0.1/24", "10.0.0.2/24")
	before := m.settledSnapshot()
	if diff := before.diff(m.snapshot()); len(diff) != 0 {
		t.Errorf("two snapshots of one state differ:\n%s", strings.Join(diff, "\n"))
	}
	for _, change := range [][2]string{
		{"ip link add x0 type bridge", "ip link del x0"},
		{"ip addr add 10.0.0.7/24 dev eth0", "ip addr del 10.0.0.7/24 dev eth0"},
		{"ip route add 10.9.0.0/16 via 10.0.0.2 table 77", "ip route del 10.9.0.0/16 table 77"},
		{"ip rule add from 10.9.0.0/16 table 77", "ip rule del from 10.9.0.0/16 table 77"},
		{"tc qdisc add dev eth0 root tbf rate 1mbit burst 10k limit 10k", "tc qdisc del dev eth0 root"},
		{"nft add table inet x", "nft delete table inet x"},
		{"ip netns add x", "ip netns del x"},
		{"ip link set eth0 alias x", "ip link set eth0 alias ''"},
		{"touch /run/culvert/x", "rm /run/culvert/x"},
		{"echo 1 > /proc/sys/net/ipv4/ip_forward", "echo 0 > /proc/sys/net/ipv4/ip_forward"},
		{"echo 1 > /proc/sys/net/ipv4/conf/lo/forwarding", "echo 0 > /proc/sys/net/ipv4/conf/lo/forwarding"},
		{"echo 0 > /proc/sys/net/ipv4/conf/all/accept_redirects", "echo 1 > /proc/sys/net/ipv4/conf/all/accept_redirects"},
	} {
		m.shell("", "sh", "-c", change[0])
		if len(before.diff(m.snapshot())) == 0 {
			t.Errorf("%q is not seen", change[0])
		}
		m.shell("", "sh", "-c", change[1])
		m.same(before, change[1])
	}
	sleep := m.host.Command(t.Context(), "sleep", "1000")
	if err := m.host.Start(sleep); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, patience, "a process is seen", func() bool { return len(before.diff(m.snapshot())) == 2 })
	_ = sleep.Process.Kill()
	_ = sleep.Wait()
	m.same(before, "the process has ended")
}
