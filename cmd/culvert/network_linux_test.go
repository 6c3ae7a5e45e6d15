package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/control"
	"culvert/internal/lab"
	"culvert/setup/plan"
)

// place is a host that networks are applied on, with directories of its own for what culvert writes.
type place struct {
	t    *testing.T
	host *lab.Host
	dir  string // holds run, state, wg, and the files
	name string // of the instance, and of its file without extension
	ns   string // a name for a namespace that nobody else has
}

func newPlace(t *testing.T, name string) *place {
	t.Helper()
	lab.NeedTun(t)
	h := lab.NewHost(t, name)
	// Named namespaces are the machine's: a destroy finds what is an instance's by its marks, and other runs are not to have one alike.
	name += strconv.Itoa(os.Getpid())
	p := &place{t: t, host: h, dir: t.TempDir(), name: name}
	p.ns = h.NetnsName() + "-n1"
	if err := os.Chmod(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Whatever went wrong: services run in namespaces of their own.
		p.culvert("down", name)
		p.culvert("destroy", name)
	})
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// write writes the instance's file; $NS in it stands for the namespace's name. No key has a $ in it, and one in a hundred has NS.
func (p *place) write(text string) {
	p.t.Helper()
	text = "version: 1\n" + strings.ReplaceAll(text, "$NS", p.ns)
	if err := os.WriteFile(p.path(p.name+".yaml"), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) command(args ...string) *exec.Cmd {
	culvert, err := exec.LookPath("culvert")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(culvert, args...) // by a context that is not the test's: the last ones run when that has ended
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "CULVERT_RUN_DIR="+p.path("run"), "CULVERT_STATE_DIR="+p.path("state"), "CULVERT_WG_DIR="+p.path("wg"))
	return cmd
}

func (p *place) culvert(args ...string) (out string, code int) {
	p.t.Helper()
	var b bytes.Buffer
	cmd := p.command(args...)
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := p.host.Start(cmd); err != nil {
		p.t.Error(err)
		return "", -1
	}
	if err := cmd.Wait(); err != nil {
		e, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			p.t.Fatal(err)
		}
		return b.String(), e.ExitCode()
	}
	return b.String(), 0
}

func (p *place) must(args ...string) string {
	p.t.Helper()
	out, code := p.culvert(args...)
	if code != 0 {
		p.t.Fatalf("culvert %v ended with %d:\n%s", args, code, out)
	}
	return out
}

func (p *place) refused(code int, message string, args ...string) {
	p.t.Helper()
	out, got := p.culvert(args...)
	if got != code || !strings.Contains(out, message) {
		p.t.Errorf("culvert %v ended with %d, want %d and %q:\n%s", args, got, code, message, out)
	}
}

// file is the path of the instance's file.
func (p *place) file() string { return p.name + ".yaml" }

// settled says that there is nothing to do.
func (p *place) settled() {
	p.t.Helper()
	if out := p.must("plan", p.file()); out != "nothing to do\n" {
		p.t.Errorf("plan: %s", out)
	}
}

// has says that a plan has these lines, by their beginnings, and as many.
func (p *place) has(lines ...string) {
	p.t.Helper()
	out, _ := p.culvert("plan", p.file())
	var got []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "#") {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	got = got[:max(0, len(got)-1)] // the summary
	ok := len(got) == len(lines)
	for i := range min(len(got), len(lines)) {
		ok = ok && strings.HasPrefix(got[i], lines[i])
	}
	if !ok {
		p.t.Errorf("the plan is\n%s\nwant\n%s", out, strings.Join(lines, "\n"))
	}
}

// snapshot is everything that could be left behind on the host, and beside it.
func (p *place) snapshot() string {
	p.t.Helper()
	var all strings.Builder
	for _, c := range []string{
		"ip -d link", "ip -br address show scope global", "ip route show table all scope link", "ip route show table all scope global",
		"ip rule", "ip -6 rule", "tc qdisc", "tc filter show dev lo", "nft list ruleset",
	} {
		args := strings.Fields(c)
		fmt.Fprintf(&all, "== %s\n%s", c, p.host.Shell(args[0], args[1:]...))
	}
	for _, l := range strings.Fields(p.host.Shell("ls", "/sys/class/net")) {
		fmt.Fprintf(&all, "== filters of %s\n%s", l, p.host.Shell("sh", "-c", "tc filter show dev "+l+" ingress 2>&1; tc class show dev "+l+" 2>&1; true"))
	}
	names, err := os.ReadDir("/run/netns")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), p.host.NetnsName()) {
			fmt.Fprintf(&all, "namespace %s\n", n.Name())
		}
	}
	for _, folder := range []string{"run", "state", "wg"} {
		err := filepath.WalkDir(p.path(folder), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && path != p.path(folder) {
				fmt.Fprintf(&all, "file %s\n", path)
			}
			return err
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}
	for _, process := range p.processes() {
		fmt.Fprintf(&all, "process %s\n", process)
	}
	// But for the far ends, which follow the near ones, what comes by itself in time, and the lock that the folder of wg's sockets keeps.
	// A device that is down has one of the kernel's two empty queues, and another after it had one of somebody's.
	ignored := regexp.MustCompile(`-far@| dev eth[01]-far |fe80::|ff00::|/wg/\.culvert\.lock|^qdisc noqueue `)
	var lines []string
	for line := range strings.Lines(all.String()) {
		line = strings.Replace(line, " qdisc noop state DOWN", " qdisc noqueue state DOWN", 1)
		if !ignored.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// processes are those that were started with the place's directories.
func (p *place) processes() (list []string) {
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, path := range environments {
		if env, err := os.ReadFile(path); err == nil && bytes.Contains(env, []byte("CULVERT_RUN_DIR="+p.path("run"))) {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			list = append(list, filepath.Base(filepath.Dir(path))+" "+strings.ReplaceAll(string(name), "\x00", " "))
		}
	}
	return list
}

// same says that everything is as it was.
func (p *place) same(before string) {
	p.t.Helper()
	after := p.snapshot()
	for deadline := time.Now().Add(15 * time.Second); after != before && time.Now().Before(deadline); after = p.snapshot() {
		time.Sleep(50 * time.Millisecond) // a process that has answered last may be about to end; a supervisor whose apply was killed waits 10 s for work
	}
	if before != after {
		p.t.Errorf("something is left:\n%s", difference(before, after))
	}
}

// difference lists the lines that only one of two texts has.
func difference(before, after string) string {
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	var out strings.Builder
	for _, l := range a {
		if !slices.Contains(b, l) {
			fmt.Fprintf(&out, "- %s\n", l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			fmt.Fprintf(&out, "+ %s\n", l)
		}
	}
	return out.String()
}

// cable gives the host a port that somebody else made.
func (p *place) cable(name string) {
	p.t.Helper()
	p.host.Shell("ip", "link", "add", name, "type", "veth", "peer", "name", name+"-far")
	p.host.Shell("ip", "link", "set", name+"-far", "addrgenmode", "none", "up")
	// A device that has once been up is not quite the same when it is down again.
	p.host.Shell("ip", "link", "set", name, "up")
	p.host.Shell("ip", "link", "set", name, "down")
}

func (p *place) reaches(to string) {
	p.t.Helper()
	defer func() {
		if p.t.Failed() {
			p.t.Log(p.host.Shell("sh", "-c", "ip -d link; bridge link; tc -s qdisc; ip neigh; bridge fdb"), p.must("status"))
		}
	}()
	lab.Eventually(p.t, patience, "a ping to "+to, func() bool { return p.host.Ping(netip.MustParseAddr(to)) == nil })
}

// all has something of all that this machine's kernel can.
const all = `
netns: {$NS: {}}
links:
  eth0: {external: true, up: true}
  br0:
    type: bridge
    stp: {enabled: true, priority: 4096, forward_delay: 2s}
    addresses: [10.0.0.1/24, {address: "fd10::1/64", nodad: true}]
    ports:
      eth0: {}
      veth-a: {cost: 7}
      tap1: {}
  veth-a:
    type: veth
    peer: {name: veth-b, netns: $NS, addresses: [10.0.0.2/24], routes: [{to: default, gateway: 10.0.0.1}]}
  tap1: {type: tap, mtu: 1400}
  mv1: {type: macvlan, parent: eth1, mode: bridge, netns: $NS, addresses: [10.1.0.1/24]}
  eth1: {external: true, up: true}
  ifb-eth1: {type: ifb}
shaping:
  - {source: eth1, ingress_to: ifb-eth1, qdisc: {htb: {rate: 8mbit}}, egress: {tbf: {rate: 4mbit, burst: 10k}}}
routes:
  - {to: default, gateway: 10.0.0.254, link: br0, table: 100}
rules:
  - {from: 10.9.0.0/24, table: 100, priority: 1000}
nat:
  - {out: br0, sources: [10.9.0.0/24]}
`

const services = "services:\n  - {dnsmasq: {netns: $NS, interface: veth-b, range: \"10.0.0.10,10.0.0.50,255.255.255.0\"}}\n"

// What a file declares is made, found to be so, changed in place, made anew, and taken away with nothing left.
func TestApplyPlanDestroy(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "dnsmasq")
	p := newPlace(t, "net")
	p.cable("eth0")
	p.cable("eth1")
	before := p.snapshot()
	p.write(all + services)

	if out := p.must("check", p.file()); !strings.Contains(out, "things in all") {
		t.Errorf("check: %s", out)
	}
	out, code := p.culvert("plan", p.file(), "--exit-code")
	if code != exitChanges || !strings.Contains(out, "+ link br0 (bridge) forward_delay 2s, priority 4096, stp yes, up yes\n") || !strings.Contains(out, "+ process dnsmasq:") {
		t.Errorf("plan ended with %d:\n%s", code, out)
	}
	p.same(before)

	if again := p.must("apply", p.file()); again != out {
		t.Errorf("apply shows\n%s\nand the plan was\n%s", again, out)
	}
	p.settled()
	p.must("plan", p.file(), "--exit-code")
	if out := p.must("apply", p.file()); out != "nothing to do\n" {
		t.Errorf("a second apply: %s", out)
	}
	p.reaches("10.0.0.2") // bridge, veth pair, namespace
	if out := p.must("graph", p.file(), "--live", "--dot"); !strings.Contains(out, "br0") || strings.Contains(out, "missing") {
		t.Errorf("graph --live: %s", out)
	}

	// Changed in place, made anew with what hangs on it, new; and then gone.
	changed := strings.NewReplacer("priority: 4096", "priority: 8192", "type: macvlan, parent: eth1,", "type: macvlan, parent: eth1, mtu: 1300,",
		"rate: 4mbit", "rate: 5mbit", "  tap1: {type: tap, mtu: 1400}\n", "  tap1: {type: tap, mtu: 1400, vnet_hdr: true}\n  tap2: {type: tap}\n").Replace(all)
	p.write(changed + services)
	p.has("~ link br0 (bridge) priority 4096 -> 8192", "-/+ link tap1 (tap) vnet_hdr no -> yes, because its vnet_hdr cannot be changed",
		"+ link tap2 (tap)", "~ link "+p.ns+"/mv1 (macvlan) mtu 1500 -> 1300", "-/+ attachment tap1 (to br0), because it needs link tap1",
		"~ qdisc eth1 root (tbf) limit 35240 -> 41490, rate 4mbit -> 5mbit")
	var made plan.Plan
	text, code := p.culvert("plan", p.file(), "--json")
	if err := json.Unmarshal([]byte(text), &made); err != nil || code != 0 || made.Format != plan.Format || len(made.Entries) != 6 || len(made.Steps) < 6 {
		t.Errorf("plan --json ended with %d, %v: %s", code, err, text)
	}
	p.must("apply", p.file())
	p.settled()
	p.write(strings.NewReplacer("  tap1: {type: tap, mtu: 1400, vnet_hdr: true}\n", "", "      tap1: {}\n", "").Replace(changed))
	p.has("- attachment tap1, because it is not declared", "- link tap1", "- process dnsmasq:")
	p.must("apply", p.file())
	p.settled()
	p.reaches("10.0.0.2")

	// By its name, whatever the file says by now.
	if err := os.Remove(p.path(p.file())); err != nil {
		t.Fatal(err)
	}
	if out, code := p.culvert("destroy", p.file()); code != 1 || out != "culvert: there is no file "+p.file()+
		"\n  hint: culvert destroy NAME needs no file; there are: "+p.name+"\n" {
		t.Errorf("destroy of a file that is not there ended with %d: %s", code, out)
	}
	p.must("destroy", p.name)
	p.same(before)
	if out := p.must("destroy", p.name); out != "nothing to do\nculvert: nothing is known of an instance "+p.name+
		": it has been destroyed before, or is spelt otherwise; no network is applied\n" {
		t.Errorf("a second destroy: %s", out)
	}
	p.same(before)
}

// Where the journal is lost, the marks tell what is whose.
func TestDestroyWithoutJournal(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "lost")
	before := p.snapshot()
	p.write("netns: {$NS: {}}\nlinks:\n  br0: {type: bridge, ports: [va]}\n  va: {type: veth, peer: {name: vb, netns: $NS}}\n  t0: {type: tap}\n")
	p.must("apply", p.file())
	if err := os.RemoveAll(p.path("state")); err != nil {
		t.Fatal(err)
	}
	p.must("destroy", p.name)
	p.same(before)
}

// What others made is not touched, whatever the file calls its things.
func TestApplyRefusesForeign(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "foreign")
	p.cable("br0")
	before := p.snapshot()
	p.write("links:\n  t0: {type: tap}\n  br0:\n    type: bridge\n")
	p.refused(1, p.name+".yaml:4:3: conflict: link br0: a device of that name is there, and culvert did not make it", "apply", p.file())
	p.refused(1, "  4 |   br0:\n    |   ^", "apply", p.file())
	p.refused(1, "! conflict link br0", "plan", p.file())
	p.write("links:\n  br0: {type: bridge}\n  gone: {external: true}\n")
	p.refused(1, "it is external, but it is not there", "apply", p.file())
	p.write("links:\n  t0: {type: bridge, ports: [far]}\ntunnels:\n  far: {mode: tap, private_key_file: key}\n")
	if err := os.WriteFile(p.path("key"), []byte(p.must("genkey")), 0o600); err != nil {
		t.Fatal(err)
	}
	p.refused(1, "brings up tunnels and network together", "apply", p.file())
	p.same(before)
}

// An apply that is killed at any moment is repaired by the next, or cleared away by a destroy.
func TestApplyIsKilled(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "dnsmasq")
	p := newPlace(t, "killed")
	p.cable("eth0")
	p.cable("eth1")
	before := p.snapshot()
	p.write(all + services)
	start := time.Now()
	p.must("apply", p.file())
	whole := time.Since(start)
	p.must("destroy", p.name)
	p.same(before)
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	cut := 0
	for round := range rounds {
		cmd := p.command("apply", p.file())
		if err := p.host.Start(cmd); err != nil {
			t.Fatal(err)
		}
		delay := time.Duration(rand.Int64N(int64(whole)))
		time.Sleep(delay)
		cmd.Process.Kill()
		if cmd.Wait() != nil {
			cut++
		}
		if round%2 == 0 {
			p.must("apply", p.file())
			p.settled()
		}
		p.must("destroy", p.name)
		if p.same(before); t.Failed() {
			t.Fatalf("in round %d, killed after %v of %v", round, delay, whole)
		}
	}
	t.Logf("%d of %d were killed before their end", cut, rounds)
	if cut == 0 {
		t.Error("none was killed before its end")
	}
}

// Ctrl-C goes back to what was before.
func TestApplyIsInterrupted(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "stopped")
	p.cable("eth0")
	p.cable("eth1")
	var many strings.Builder
	many.WriteString("links:\n")
	for i := range 300 {
		fmt.Fprintf(&many, "  tap%d: {type: tap}\n", i)
	}
	before := p.snapshot()
	p.write(many.String())
	var out bytes.Buffer
	cmd := p.command("apply", p.file())
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.host.Start(cmd); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, patience, "the first devices", func() bool { return strings.Contains(p.host.Shell("ip", "-br", "link"), "tap9") })
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "everything is as it was before") {
		t.Errorf("it ended with %v:\n%s", err, out.String()[max(0, out.Len()-500):])
	}
	p.same(before)
}

// A change that nobody confirms is undone; one that is confirmed stays.
func TestApplyOnTrial(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "trial")
	before := p.snapshot()
	const first, second = "links:\n  br0: {type: bridge}\n", "links:\n  br0: {type: bridge, mtu: 1400}\n  t0: {type: tap}\n"
	p.write(first)
	p.must("apply", p.file())
	applied := p.snapshot()

	p.write(second)
	if out := p.must("apply", p.file(), "--confirm", "2s"); !strings.Contains(out, "culvert confirm "+p.name) {
		t.Errorf("it says %s", out)
	}
	if out := p.must("plan", p.file()); !strings.HasPrefix(out, "# a change waits to be confirmed, and is undone in ") ||
		!strings.HasSuffix(out, " otherwise: culvert confirm "+p.name+" keeps it, culvert down "+p.name+" undoes it at once\nnothing to do\n") {
		t.Errorf("plan: %s", out)
	}
	p.refused(1, "waits to be confirmed", "apply", p.file())
	p.refused(1, "waits to be confirmed", "destroy", p.name)
	if out := p.must("status"); !strings.Contains(out, "on trial: undone in") {
		t.Errorf("status: %s", out)
	}
	lab.Eventually(t, patience, "the trial's end", func() bool { return len(p.processes()) == 0 })
	if out, err := os.ReadFile(p.path("run/" + p.name + ".log")); err != nil || !strings.Contains(string(out), "not confirmed in time") {
		t.Errorf("the log: %s, %v", out, err)
	}
	os.Remove(p.path("run/" + p.name + ".log"))
	p.has("~ link br0", "+ link t0")
	p.refused(1, "no change of "+p.name+" waits", "confirm", p.name)
	if after := difference(applied, p.snapshot()); strings.Contains(after, "br0") || strings.Contains(after, "t0") {
		t.Errorf("not as before: %s", after)
	}

	p.must("apply", p.file(), "--confirm", "1h")
	p.must("confirm", p.name)
	lab.Eventually(t, patience, "the trial's end", func() bool { return len(p.processes()) == 0 })
	p.settled()

	// At once, by down; and where the one that waits is killed the change stays, and may be confirmed.
	p.write(first)
	p.must("apply", p.file(), "--confirm", "1h")
	p.must("down", p.name)
	p.has("~ link br0", "- link t0")
	abandon := func() {
		p.must("apply", p.file(), "--confirm", "1h")
		in := p.status()
		if len(in) != 1 || in[0].Kind != kindTrial {
			t.Fatalf("%+v", in)
		}
		syscall.Kill(in[0].PID, syscall.SIGKILL)
		lab.Eventually(t, patience, "the killed trial to be seen", func() bool {
			in := p.status()
			return len(in) == 1 && in[0].Kind == kindApplied && in[0].Network.Abandoned
		})
		advice := "culvert confirm " + p.name + " keeps it, culvert down " + p.name + " undoes it\n"
		if out := p.must("status", p.name); !strings.Contains(out, "  unconfirmed: the process that was to undo the last change is gone; "+advice) {
			t.Errorf("status: %s", out)
		}
		if out := p.must("plan", p.file()); out != "# a change that nobody has confirmed is in place, and the process that was to undo it is gone: "+advice+"nothing to do\n" {
			t.Errorf("plan: %s", out)
		}
	}
	abandon()
	p.must("confirm", p.name)
	p.settled()
	p.write(second)
	abandon()
	p.must("down", p.name)
	p.write(first)
	p.settled()
	if in := p.status(); len(in) != 1 || len(in[0].Network.Drift) > 0 || in[0].Network.Abandoned || in[0].Network.Items != 1 {
		t.Errorf("what was applied before the change that was undone: %+v", in)
	}
	p.write(second)
	abandon()
	if out := p.must("apply", p.file()); !strings.Contains(out, "a change that nobody had confirmed, and whose process is gone, is kept") {
		t.Errorf("the next apply: %s", out)
	}
	p.settled()
	os.Remove(p.path("run/" + p.name + ".log"))
	p.must("destroy", p.name)
	os.Remove(p.path("run/" + p.name + ".lock"))
	os.Remove(p.path("run/" + p.name + ".sock"))
	p.same(before)
	p.refused(exitUsage, "1s to 24h", "apply", p.file(), "--confirm", "10ms")
}

// status is what "status --json" says.
func (p *place) status(args ...string) (in []control.Instance) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.must(append([]string{"status", "--json"}, args...)...)), &in); err != nil {
		p.t.Fatal(err)
	}
	return in
}

// After "apply" alone status shows what was applied, also where the file has changed since or is gone, and how the system differs.
func TestStatusAfterApply(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "applied")
	before := p.snapshot()
	if out := p.must("status"); out != "culvert: nothing is running, and no network is applied\n" {
		t.Errorf("status: %s", out)
	}
	p.refused(1, "nothing called "+p.name+" is running", "status", p.name)
	p.write("links:\n  br0: {type: bridge, ports: [t0]}\n  t0: {type: tap, mtu: 1400}\n")
	p.must("apply", p.file())
	head := "network: " + p.name + "\n  state: applied, no process runs; culvert destroy " + p.name + " takes it away\n  things: 3\n"
	for _, args := range [][]string{{"status"}, {"status", p.name}} {
		if out := p.must(args...); out != head {
			t.Errorf("%v: %s", args, out)
		}
	}
	if err := os.Remove(p.path(p.file())); err != nil {
		t.Fatal(err)
	}
	p.host.Shell("ip", "link", "set", "t0", "mtu", "1300", "nomaster")
	if out := p.must("status", p.name); out != head+"  drift: t0: mtu is 1300, not 1400\n  drift: br0 port t0: gone\n" {
		t.Errorf("with drift: %s", out)
	}
	in := p.status(p.name)
	if len(in) != 1 || in[0].Kind != kindApplied || in[0].PID != 0 || in[0].File != p.path(p.file()) || len(in[0].Network.Drift) != 2 ||
		in[0].Network.Checked.IsZero() || !strings.HasSuffix(in[0].Network.Drift[0].Line, p.name+".yaml:4:3") {
		t.Errorf("%+v", in)
	}
	p.refused(1, "culvert destroy "+p.name+" takes its network away", "down", p.name)
	out, code := p.culvert("destroy", "aplied")
	if code != 0 || !strings.Contains(out, "nothing is known of an instance aplied") || !strings.Contains(out, "there are: "+p.name+"\n") {
		t.Errorf("a name that is spelt wrongly ended with %d: %s", code, out)
	}
	p.must("destroy", p.name)
	p.same(before)
	if in := p.status(); len(in) != 0 {
		t.Errorf("destroyed: %+v", in)
	}
}

// Two at once on one instance: one waits for the other to end, or is told so.
func TestApplyTwiceAtOnce(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "twice")
	p.write("links:\n  br0: {type: bridge}\n")
	n, err := (&program{stateDir: p.path("state")}).openNetwork(p.name)
	if err != nil {
		t.Fatal(err)
	}
	p.refused(1, "another culvert is at work on twice", "apply", p.file())
	p.must("plan", p.file()) // which only looks
	if err := n.close(); err != nil {
		t.Fatal(err)
	}
	p.must("apply", p.file())
	p.must("destroy", p.file())
}
