package scenes

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
)

// faultsEnv makes the test program of cmd/culvert culvert itself, in which something happens to a step of it or of its daemons. The folder
// it names says what, and has the steps afterwards (cmd/culvert/faulty_test.go).
const faultsEnv = "CULVERT_FAULTS"

func (m *machine) faultFolder() string { return filepath.Join(m.dir, "faults") }

// withFaults runs a command in which something happens to a step, as in "fail 3"; "" is nothing. It returns what was said, the exit code,
// and the steps begun.
func (m *machine) withFaults(fault string, args ...string) (said string, code int, steps []string) {
	m.Helper()
	m.tries++
	try := fmt.Sprint("try", m.tries)
	if fault == "" {
		fault = "none 0"
	}
	write(m.T, filepath.Join(m.faultFolder(), "fault"), fault+" "+try)
	stdout, stderr, code := m.culvert(args...)
	if err := os.Remove(filepath.Join(m.faultFolder(), "fault")); err != nil {
		m.Fatal(err)
	}
	text, _ := os.ReadFile(filepath.Join(m.faultFolder(), "steps"))
	for line := range strings.Lines(string(text)) {
		if step, ok := strings.CutPrefix(strings.TrimSpace(line), try+" "); ok {
			steps = append(steps, step)
		}
	}
	return stdout + stderr, code, steps
}

// daemons are the numbers of the processes that run instances.
func (m *machine) daemons() (pids []int) {
	for pid := range m.processes() {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if args := strings.Split(string(cmdline), "\x00"); len(args) > 1 && args[1] == "up" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// forDaemonFaults runs f for each case and way, on a machine on which nothing of it is up.
func forDaemonFaults(t *testing.T, f func(m *machine, before snapshot, w way)) {
	t.Parallel()
	if inGuest() {
		t.Skip("is of the host's kernel")
	}
	for _, c := range daemonFaultCases {
		for i := range 3 {
			t.Run(c.name+"/"+[]string{"up", "reload", "down"}[i], func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				m.faulty = lab.BuildTest(t, "culvert/cmd/culvert")
				if err := os.Mkdir(m.faultFolder(), 0o700); err != nil {
					t.Fatal(err)
				}
				c.around(m)
				before := m.settledSnapshot()
				c.begin(m)
				first := m.text
				m.edit(c.change...)
				f(m, before, daemonWays([2]string{first, m.text})[i])
			})
		}
	}
}

// daemonWays are those of a file with tunnels.
func daemonWays(states [2]string) []way {
	first := func(m *machine) {
		m.set(states[0])
		m.must("up", m.file)
		m.isUp = true
	}
	return []way{
		{"up", func(m *machine) { m.set(states[0]) }, "up"},
		{"reload", func(m *machine) { first(m); m.set(states[1]) }, "reload"},
		{"down", first, "down"},
	}
}

// carry carries a way's command out, with something that happens to one of its steps. ended says that the steps came to their end before.
func (w *way) carry(m *machine, fault string, k int) (said string, code int, when string, ended bool) {
	m.Helper()
	args := []string{w.command, m.instance()}
	if w.command == "up" {
		args[1] = m.file
	}
	said, code, steps := m.withFaults(fmt.Sprint(fault, " ", k), args...)
	if len(steps) >= k {
		return said, code, fmt.Sprintf("%s: %s %d (%s)", w.command, fault, k, steps[k-1]), false
	}
	if code != 0 || k == 1 {
		m.Fatalf("%s ended with %d after %d steps:\n%s%s", w.command, code, len(steps), said, m.log())
	}
	m.isUp = w.command != "down"
	return said, code, "", true
}

// remade are the numbers and random addresses of the devices that a reload takes away, and has to make anew where it fails afterwards.
var remade = regexp.MustCompile(`(old0|inner0) index \d+|fe80::\S+( dev (old0|inner0)|/64 scope link stable-privacy)`)

// sameButRemade is same, for what a reload that has failed may have made anew.
func (m *machine) sameButRemade(start snapshot, when string) {
	m.Helper()
	without := func(s snapshot) (out snapshot) {
		for _, line := range s {
			out = append(out, remade.ReplaceAllString(line, "$1"))
		}
		return out
	}
	var diff []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if diff = without(start).diff(without(m.snapshot())); len(diff) == 0 {
			return
		}
	}
	m.Errorf("%s: not as it was before:\n%s\nlog:\n%s", when, strings.Join(diff, "\n"), m.log())
}

// hasAddresses demands that each tunnel has the addresses that the file gives it: no plan shows them.
func (m *machine) hasAddresses() {
	m.Helper()
	have := m.shell("", "ip", "-br", "addr")
	for _, a := range regexp.MustCompile(`(?m)^    addresses: \[(.*)\]$`).FindAllStringSubmatch(m.text, -1) {
		if !strings.Contains(have, a[1]) {
			m.Errorf("there is no address %s:\n%s", a[1], have)
		}
	}
}

// A failure of any step of a daemon's leads back to exactly what was before, and is told of. On the way down there is no way back: it is
// told of, and destroy takes the rest.
func TestDaemonFailureOfEveryStep(t *testing.T) {
	forDaemonFaults(t, func(m *machine, before snapshot, w way) {
		w.prepare(m)
		start := m.settledSnapshot()
		for k := 1; ; k++ {
			said, code, when, ended := w.carry(m, "fail", k)
			if ended {
				break
			}
			if code != 1 || !strings.Contains(said, "injected") {
				m.Fatalf("%s: it ended with %d, and says\n%s", when, code, said)
			}
			switch w.command {
			case "up":
				// Its log tells why.
				if err := os.Remove(filepath.Join(m.root, "run/culvert", m.instance()+".log")); err != nil {
					m.Error(err)
				}
				m.same(start, when)
			case "reload":
				m.sameButRemade(start, when)
			case "down":
				m.isUp = false
				m.destroy()
				m.same(before, when+", then destroy")
				w.prepare(m)
			}
			if m.Failed() {
				return
			}
		}
		if m.isUp {
			m.settled()
			if w.command == "reload" {
				m.hasAddresses()
			}
			m.destroy()
		}
		m.same(before, w.command+" without a fault, then down")
	})
}

// A daemon is killed before or after any of its steps: what is left is repaired by the next one, or destroyed.
func TestDaemonKilledBetweenSteps(t *testing.T) {
	forDaemonFaults(t, func(m *machine, before snapshot, w way) {
		for _, fault := range []string{"kill", "kill-after"} {
			for k := 1; ; k++ {
				w.prepare(m)
				said, code, when, ended := w.carry(m, fault, k)
				if ended {
					break
				}
				m.isUp = false
				m.await("the daemon is gone", func() bool { return len(m.daemons()) == 0 })
				if code != 1 {
					m.Errorf("%s: %s ended with %d:\n%s", when, w.command, code, said)
				}
				if k%2 == 0 == (fault == "kill") { // each step is repaired by up once, and once not
					m.must("up", m.file)
					m.isUp = true
					if p := m.plan(); !p.IsEmpty() || len(p.Steps) > 0 {
						m.Fatalf("%s: up leaves to do:\n%s", when, &p)
					}
					when += ", then up"
				}
				m.destroy()
				m.same(before, when+", then destroy")
				if m.Failed() {
					return
				}
			}
			if m.isUp {
				m.destroy()
			}
			m.same(before, w.command+" without a fault, then down")
		}
	})
}

// daemonFaultCases are [faultCases] with tunnels.
var daemonFaultCases = []faultCase{
	{
		name: "a tunnel that takes everything", file: "full.yaml",
		text: `version: 1
tunnels:
  vpn0:
    private_key_file: vpn0.key
    addresses: [10.8.0.2/24]
    full_tunnel: true
    kill_switch: true
    except: [192.168.0.0/16]
    dns: {servers: [10.8.0.53]}
    peers: {gate: {public_key: "` + exampleKey + `", endpoints: ["10.98.0.2:51820"], allowed_ips: [0.0.0.0/0, 10.44.0.0/16]}}
  old0:
    private_key_file: old0.key
    addresses: [10.9.0.1/24]
    peers: {a: {public_key: "` + exampleKey + `", allowed_ips: [10.9.0.2/32]}}
`,
		around: func(m *machine) {
			m.key("vpn0.key")
			m.key("old0.key")
			m.resolvConf("nameserver 10.98.0.2\n")
			m.outside("wan", "10.98.0.1/24", "10.98.0.2/24")
			m.host.AddRoute("0.0.0.0/0", "10.98.0.2", "wan")
		},
		change: []string{"10.8.0.2/24", "10.8.0.3/24", "192.168.0.0/16", "192.168.0.0/16, 172.16.0.0/12", "10.8.0.53", "10.8.0.54",
			"10.44.0.0/16", "10.45.0.0/16", "old0:", "new0:"},
	},
	{
		name: "a tunnel in a bridge, and one in a namespace", file: "bridged.yaml",
		text: `version: 1
netns: {ns0: {}}
tunnels:
  office:
    mode: tap
    listen: 51821
    private_key_file: office.key
    peers: {b: {public_key: "` + exampleKey + `", endpoints: ["10.98.0.2:51821"]}}
  inner0:
    netns: ns0
    private_key_file: inner0.key
    addresses: [10.30.0.1/24]
    peers: {c: {public_key: "` + exampleKey + `", allowed_ips: [10.30.0.0/24, 10.31.0.0/24]}}
links:
  eth1: {external: true, up: true}
  br0: {type: bridge, addresses: [10.20.0.1/24], ports: {eth1: {}, office: {cost: 100}}}
  ifb-office: {type: ifb}
shaping:
  - {source: office, ingress_to: ifb-office, qdisc: {htb: {rate: 8mbit}}, egress: {tbf: {rate: 8mbit, burst: 10k}}}
`,
		around: func(m *machine) {
			m.key("office.key")
			m.key("inner0.key")
			m.outside("eth1", "", "10.20.0.5/24")
			m.host.Down("eth1")
		},
		change: []string{"cost: 100", "cost: 50", "8mbit", "6mbit", "    netns: ns0\n", "", "listen: 51821", "listen: 51829",
			"ifb-office: {type: ifb}", "ifb-office: {type: ifb}\n  t9: {type: tap}"},
	},
}
