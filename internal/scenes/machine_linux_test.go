package scenes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/crypto"
	"culvert/internal/lab"
	"culvert/setup/plan"
)

// patience bounds what is waited for.
const patience = 30 * time.Second

// machine is where culvert is run: a network namespace with its own folders of namespaces, sockets and journals.
type machine struct {
	*testing.T
	host   *lab.Host
	root   string // its root folder as seen from here
	mounts string // its mount namespace
	dir    string // of the configuration
	file   string // path of the configuration
	text   string
	isUp   bool // a daemon runs

	faulty string // the program that has faults, in place of culvert; "" is culvert
	tries  int    // of it

	publicKey string // that takes the place of the example's; "" leaves it

	failing func() string // what else to say of a test that has failed; may be nil
}

// ownFolders are empty at first on each machine.
var ownFolders = []string{"/run/netns", "/run/culvert", "/run/wireguard", "/run/teamd", "/var/lib/culvert"}

func newMachine(t *testing.T) *machine {
	t.Helper()
	lab.NeedTun(t)
	for _, program := range []string{"ip", "tc", "nft"} {
		lab.NeedProgram(t, program)
	}
	m := &machine{T: t, dir: t.TempDir()}
	m.host = lab.NewHost(t, "machine")
	var err error
	if m.root, err = m.host.Namespace.PrivateMounts(ownFolders...); err != nil {
		t.Fatal(err)
	}
	// The machine's processes end before its namespace is deleted, also those in the namespaces that it made. Not after that: the number that
	// tells its mount namespace is soon another machine's.
	t.Cleanup(func() { m.killAll() })
	if m.mounts, err = os.Readlink(filepath.Join(filepath.Dir(m.root), "ns/mnt")); err != nil {
		t.Fatal(err)
	}
	return m
}

// processes are those of the machine, whatever network namespace they are in: number and name.
func (m *machine) processes() map[int]string {
	found := map[int]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		m.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil || ns != m.mounts {
			continue
		}
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		found[pid] = strings.TrimSpace(string(name))
	}
	return found
}

// await waits until a condition holds. Where it does not, the test ends with what the machine looks like.
func (m *machine) await(what string, holds func() bool) {
	m.Helper()
	limit := patience
	if inGuest() {
		limit *= 2 // emulated, beside others
	}
	for end := time.Now().Add(limit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().Before(end) {
			continue
		}
		more := ""
		if m.failing != nil {
			more = m.failing()
		}
		m.Fatalf("%s: not so within %v\n%s%s", what, limit, more, m.log())
	}
}

// kill ends a process as a crash does, and waits for that.
func (m *machine) kill(pid int) {
	m.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		m.Fatal(err)
	}
	m.await("a process has ended", func() bool { return m.processes()[pid] == "" })
}

func (m *machine) killAll() {
	if m.mounts == "" {
		return
	}
	for range 100 {
		all := m.processes()
		for pid := range all {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(all) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// example makes a file of examples/ the machine's, after replacing texts: old, new, old, new.
func (m *machine) example(name string, replace ...string) {
	m.Helper()
	text, err := os.ReadFile(filepath.Join(examplesFolder(), name))
	if err != nil {
		m.Fatal(err)
	}
	m.declare(name, string(text))
	if m.publicKey != "" {
		m.edit(exampleKey, m.publicKey)
	}
	m.edit(replace...)
}

func examplesFolder() string {
	if dir := os.Getenv(examplesEnv); dir != "" {
		return dir
	}
	return "../../examples"
}

// declare writes the machine's configuration.
func (m *machine) declare(name, text string) {
	m.Helper()
	m.file, m.text = filepath.Join(m.dir, name), text
	if err := os.WriteFile(m.file, []byte(text), 0o600); err != nil {
		m.Fatal(err)
	}
}

// edit replaces texts of the configuration, each of which must be there: old, new, old, new.
func (m *machine) edit(replace ...string) {
	m.Helper()
	text := m.text
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			m.Fatalf("%s does not say %q:\n%s", filepath.Base(m.file), replace[i], text)
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	m.declare(filepath.Base(m.file), text)
}

// key writes a key file beside the configuration and returns the public key.
func (m *machine) key(name string) string {
	m.Helper()
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(key.Base64()+"\n"), 0o600); err != nil {
		m.Fatal(err)
	}
	return key.Public().Base64()
}

// command is a command carried out by this test binary; fault is what is to become of one of its steps.
func (m *machine) command(name, fault string) *exec.Cmd {
	m.Helper()
	self, err := os.Executable()
	if err != nil {
		m.Fatal(err)
	}
	cmd := m.host.Command(m.Context(), self, m.file)
	cmd.Env = append(os.Environ(), commandEnv+"="+name, faultEnv+"="+fault, programEnv+"="+culvertProgram(m.T))
	return cmd
}

// try carries a command out. It reports whether the process was killed.
func (m *machine) try(name, fault string) (r report, killed bool) {
	m.Helper()
	cmd := m.command(name, fault)
	var stdout bytes.Buffer
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		m.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = &stdout, log
	if err := m.host.Start(cmd); err != nil {
		m.Fatal(err)
	}
	err = cmd.Wait()
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() == unix.SIGKILL {
		return r, true
	}
	if err == nil {
		err = json.Unmarshal(stdout.Bytes(), &r)
	}
	if err != nil {
		m.Fatalf("%s: %v\n%s\n%s", name, err, stdout.Bytes(), m.log())
	}
	return r, false
}

// log is what daemons and supervisors have written that still run.
func (m *machine) log() string {
	var b strings.Builder
	paths, _ := filepath.Glob(filepath.Join(m.root, "run/culvert/*.log"))
	for _, path := range append(paths, filepath.Join(m.dir, "log")) {
		text, _ := os.ReadFile(path)
		if len(text) > 0 {
			fmt.Fprintf(&b, "%s:\n%s", filepath.Base(path), text[max(0, len(text)-8000):])
		}
	}
	return b.String()
}

// culvert runs the program, and returns what it wrote and its exit code.
func (m *machine) culvert(args ...string) (stdout, stderr string, code int) {
	m.Helper()
	program := m.faulty
	if program == "" {
		program = culvertProgram(m.T)
	}
	cmd := m.host.Command(m.Context(), program, args...)
	if m.faulty != "" {
		cmd.Env = append(os.Environ(), faultsEnv+"="+m.faultFolder())
	}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := m.host.Start(cmd); err != nil {
		m.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			m.Fatal(err)
		}
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

// culvertProgram is the path of the program under test.
func culvertProgram(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(programEnv); path != "" {
		return path
	}
	return lab.Build(t, "culvert/cmd/culvert")
}

// instance is the name of what the machine's configuration describes.
func (m *machine) instance() string {
	name, _, _ := strings.Cut(filepath.Base(m.file), ".")
	return name
}

// must runs a command of the program that works, and returns the plan it prints where it prints one.
func (m *machine) must(args ...string) (p plan.Plan) {
	m.Helper()
	stdout, stderr, code := m.culvert(args...)
	if code != 0 {
		m.Fatalf("culvert %s ended with %d:\n%s%s%s", strings.Join(args, " "), code, stdout, stderr, m.log())
	}
	if strings.Contains(strings.Join(args, " "), "--json") {
		if err := json.Unmarshal([]byte(stdout), &p); err != nil {
			m.Fatalf("culvert %s: %v:\n%s", strings.Join(args, " "), err, stdout)
		}
	}
	return p
}

// hasTunnels tells which commands a configuration is for.
func (m *machine) hasTunnels() bool { return strings.Contains(m.text, "\ntunnels:") }

// plan is what is to do.
func (m *machine) plan() plan.Plan { m.Helper(); return m.must("plan", m.file, "--json") }

// apply makes the machine what its configuration says, and returns the plan of that.
func (m *machine) apply() plan.Plan {
	m.Helper()
	if !m.hasTunnels() {
		return m.must("apply", m.file, "--json")
	}
	p := m.plan()
	if m.isUp {
		m.must("reload", m.instance())
	} else {
		m.must("up", m.file)
	}
	m.isUp = true
	return p
}

// destroy takes it all away.
func (m *machine) destroy() {
	m.Helper()
	if m.isUp {
		m.must("down", m.instance())
		m.isUp = false
		return
	}
	m.must("destroy", m.file)
}

// settled demands that nothing is left to do.
func (m *machine) settled() {
	m.Helper()
	if p := m.plan(); !p.IsEmpty() || len(p.Steps) > 0 {
		m.Fatalf("after apply there is still to do:\n%s", &p)
	}
	before := m.identities()
	if p := m.apply(); !p.IsEmpty() || len(p.Steps) > 0 {
		m.Fatalf("the second apply does something:\n%s", &p)
	}
	// The plan of a file with tunnels is what was planned before its daemon was told to reload: what that has done shows here.
	if diff := before.diff(m.identities()); len(diff) > 0 {
		m.Fatalf("the second apply has made something anew:\n%s", strings.Join(diff, "\n"))
	}
}

// identities are the numbers of all devices, queueing disciplines and processes of the machine, none of which is given twice soon.
func (m *machine) identities() (s snapshot) {
	m.Helper()
	const look = `ip -o link; tc qdisc; for name in $(ls /run/netns); do echo $name; ip -n $name -o link; tc -n $name qdisc; done`
	text, err := m.run("", "sh", "-ec", look)
	for range 3 {
		if err == nil {
			break
		}
		text, err = m.run("", "sh", "-ec", look) // who is in a namespace that goes just then is killed with it
	}
	if err != nil {
		m.Fatal(err)
	}
	for line := range strings.Lines(text) {
		number, rest, _ := strings.Cut(line, ": ")
		name, _, _ := strings.Cut(rest, ":")
		s = append(s, number+" "+name)
	}
	for pid, name := range m.processes() {
		s = append(s, fmt.Sprint("process ", pid, " ", name))
	}
	return s
}

// run runs a program on the machine, or in one of its namespaces, and returns what it wrote.
func (m *machine) run(netns, program string, args ...string) (string, error) {
	m.Helper()
	if netns != "" {
		args = append([]string{"netns", "exec", netns, program}, args...)
		program = "ip"
	}
	out, err := m.host.Output(m.host.Command(m.Context(), program, args...))
	return string(out), err
}

func (m *machine) shell(netns, program string, args ...string) string {
	m.Helper()
	out, err := m.run(netns, program, args...)
	if err != nil {
		m.Fatal(err)
	}
	return out
}

// pings reports whether an address answers a ping from the machine, or one of its namespaces.
func (m *machine) pings(netns, to string) bool {
	m.Helper()
	_, err := m.run(netns, "ping", "-n", "-c", "1", "-W", "1", to)
	return err == nil
}

// reaches waits until an address answers.
func (m *machine) reaches(netns, to string) {
	m.Helper()
	m.await(fmt.Sprintf("%s answers", to), func() bool { return m.pings(netns, to) })
}

// outside makes a host at the other end of a cable from one of the machine's ports.
func (m *machine) outside(device, ours, theirs string, options ...lab.LinkOption) *lab.Host {
	m.Helper()
	h := lab.NewHost(m.T, "outside")
	m.cable(h, device, "eth0", ours, theirs, options...)
	return h
}

// cable lays a cable from a port of the machine to one of another host, with addresses at both ends.
func (m *machine) cable(h *lab.Host, device, far, ours, theirs string, options ...lab.LinkOption) {
	m.Helper()
	lab.Link(m.T, m.host, h, append(options, lab.Names(device, far), lab.Addresses(ours, theirs))...)
}
