package service_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/service"
	"culvert/setup/spec"
)

// inGuest says that this process runs inside the guest of TestTeams.
const inGuest = "CULVERT_SERVICE_GUEST"

// TestTeams runs the tests below in a guest: few kernels of hosts have teams.
func TestTeams(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a guest")
	}
	if os.Getenv(inGuest) != "" {
		t.Skip("this is the guest")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const tests = "^Test(TeamActiveBackup|TeamLACP|TeamNSNAPing|TeamsOfOneName)$"
	g := lab.NewGuest(t, lab.GuestOptions{
		Modules: []string{"veth", "bridge", "team", "team_mode_activebackup", "team_mode_loadbalance", "team_mode_roundrobin", "team_mode_broadcast",
			"team_mode_random"},
		Programs: []string{"ip", "teamd", "teamdctl", "nsenter"},
		Files:    map[string]string{"/opt/service.test": self},
		Script:   "export " + inGuest + "=1 CULVERT_NO_SKIP=1 HOME=/tmp\nexec /opt/service.test -test.v -test.run '" + tests + "'\n",
	})
	out, code := g.Run(t.Context())
	if ran, want := strings.Count(out, "\n--- PASS: "), strings.Count(tests, "|")+1; code != 0 || ran != want {
		t.Errorf("the tests in the guest ended with %d, %d passed, want %d:\n%s", code, ran, want, out)
	}
}

// teamed is a host with a team of two cables to a switch, behind which another host is:
//
//	host team0 (p1, p2) == (q1, q2) bridge switch (far) == eth0 far
type teamed struct {
	*keeper
	host, middle *lab.Host
	id           model.ID
	fields       model.Fields
}

func newTeamed(t *testing.T, team spec.Team, ports ...spec.Port) *teamed {
	t.Helper()
	if os.Getenv(inGuest) == "" {
		t.Skip("runs in the guest of TestTeams")
	}
	x := &teamed{keeper: newKeeper(t), host: lab.NewHost(t, "host"), middle: lab.NewHost(t, "switch")}
	far := lab.NewHost(t, "far")
	for _, n := range []string{"1", "2"} {
		lab.Link(t, x.host, x.middle, lab.Names("p"+n, "q"+n), lab.Addresses("", ""))
		x.host.Down("p" + n)
	}
	lab.Link(t, x.middle, far, lab.Names("far", "eth0"), lab.Addresses("", "10.6.0.2/24 fe80::6/64"))
	x.id, x.fields = teamItem(t, x.host, team, ports)
	x.addTeam(x.host)
	return x
}

// bridge makes the switch an ordinary one.
func (x *teamed) bridge() {
	x.t.Helper()
	x.middle.Shell("ip", "link", "add", "br0", "type", "bridge")
	for _, port := range []string{"q1", "q2", "far"} {
		x.middle.Shell("ip", "link", "set", port, "master", "br0", "up")
	}
	x.middle.Shell("ip", "link", "set", "br0", "up")
}

// teamItem returns the process that the declaration of a team leads to.
func teamItem(t *testing.T, h *lab.Host, team spec.Team, ports []spec.Port) (model.ID, model.Fields) {
	t.Helper()
	ns := h.Namespace.Name()
	if ports == nil {
		ports = []spec.Port{{Link: "p1"}, {Link: "p2"}}
	}
	for _, i := range expanded(t, &spec.Spec{
		Instance: "test",
		Netns:    []spec.Netns{{Name: ns, External: true}},
		Links: []spec.Link{{Key: "p1", Netns: ns, External: true}, {Key: "p2", Netns: ns, External: true},
			{Key: "team0", Netns: ns, Type: spec.TypeTeam, Team: &team, Ports: ports}},
	}) {
		if i.ID.Kind() == model.KindProcess {
			return i.ID, i.Fields
		}
	}
	t.Fatal("no process is declared")
	return "", nil
}

// addTeam does what the plan does in front of the process: the device.
func (x *teamed) addTeam(h *lab.Host) {
	x.t.Helper()
	h.Shell("ip", "link", "add", "team0", "type", "team")
}

// attach does what it does after it.
func attach(h *lab.Host, address string) {
	for _, port := range []string{"p1", "p2"} {
		h.Shell("ip", "link", "set", port, "master", "team0")
	}
	h.Shell("ip", "link", "set", "team0", "up")
	if address != "" {
		h.Shell("ip", "addr", "add", address, "dev", "team0")
	}
}

// teamState is a part of what teamdctl says.
type teamState struct {
	Setup struct {
		RunnerName string `json:"runner_name"`
		PID        int    `json:"pid"`
	} `json:"setup"`
	Runner struct {
		ActivePort string `json:"active_port"`
		Active     bool   `json:"active"`
		FastRate   bool   `json:"fast_rate"`
	} `json:"runner"`
	Ports map[string]struct {
		LinkWatches struct {
			Up bool `json:"up"`
		} `json:"link_watches"`
		Runner struct {
			State      string `json:"state"`
			Aggregator struct {
				ID       int  `json:"id"`
				Selected bool `json:"selected"`
			} `json:"aggregator"`
		} `json:"runner"`
	} `json:"ports"`
}

// stateOf asks the teamd with that number, in its own mount namespace.
func stateOf(t *testing.T, pid int) (s teamState) {
	t.Helper()
	cmd := lab.NeedProgram(t, "nsenter")
	out, err := output(cmd, "-t", fmt.Sprint(pid), "-m", "-n", "teamdctl", "team0", "state", "dump")
	if err != nil {
		t.Fatalf("teamdctl: %v", err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return s
}

func (x *teamed) state() teamState { x.t.Helper(); return stateOf(x.t, x.status(x.id).PID) }

// reaches pings the far host.
func (x *teamed) reaches() bool {
	return x.host.Run(x.host.Command(x.t.Context(), "ping", "-c", "1", "-W", "1", "10.6.0.2")) == nil
}

func (x *teamed) goesOn(what string) {
	x.t.Helper()
	lab.Eventually(x.t, 30*time.Second, what, x.reaches)
}

// leave stops teamd and checks that the device stays, which belongs to the plan.
func (x *teamed) leave() {
	x.t.Helper()
	pid := x.status(x.id).PID
	x.delete(x.id)
	x.gone(pid)
	if !x.host.HasLink("team0") {
		x.t.Error("the device went with teamd")
	}
	entries, err := os.ReadDir("/run/teamd")
	if err != nil || len(entries) != 0 {
		x.t.Errorf("%v in /run/teamd, %v", entries, err)
	}
}

func TestTeamActiveBackup(t *testing.T) {
	prio := int32(100)
	yes := true
	x := newTeamed(t, spec.Team{Runner: spec.Runner{Name: "activebackup"}, LinkWatch: []spec.LinkWatch{{Name: "ethtool"}}},
		spec.Port{Link: "p1", Prio: &prio, Sticky: &yes}, spec.Port{Link: "p2"})
	x.bridge()
	first := x.create(x.id, x.fields)
	if o := x.read()[x.id]; o == nil || !maps.Equal(o.Fields, x.fields) {
		t.Errorf("read back %+v, want %v", o, x.fields)
	}
	attach(x.host, "10.6.0.1/24")
	x.goesOn("the far host answers")
	active := func(port string) func() bool { return func() bool { return x.state().Runner.ActivePort == port } }
	lab.Eventually(t, 20*time.Second, "the port preferred is active", active("p1"))
	if s := x.state(); s.Setup.RunnerName != "activebackup" || s.Setup.PID != first.PID || len(s.Ports) != 2 {
		t.Errorf("%+v", s)
	}
	x.middle.Down("q1")
	lab.Eventually(t, 20*time.Second, "the other port is active", active("p2"))
	x.goesOn("traffic goes on after a port failed")
	x.middle.Up("q1")

	// It dies: the device and its ports stay, and so does the traffic; another teamd takes them over, with the address that the team has now.
	const address = "02:00:00:00:06:01"
	x.host.Shell("ip", "link", "set", "team0", "address", address)
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 30*time.Second, "another teamd runs", func() bool {
		s := x.status(x.id)
		return s.Phase == service.Running && s.PID != first.PID
	})
	lab.Eventually(t, 20*time.Second, "it has both ports", func() bool { return len(x.state().Ports) == 2 && x.state().Runner.ActivePort != "" })
	x.goesOn("traffic goes on with another teamd")
	if !strings.Contains(x.host.Shell("ip", "link", "show", "team0"), address) {
		t.Errorf("another teamd gave the team another address: %s", x.host.Shell("ip", "link", "show"))
	}

	// The supervisor dies: teamd goes on and is taken over.
	pid := x.status(x.id).PID
	x.killSupervisor()
	x.goesOn("traffic goes on without a supervisor")
	if err := x.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := x.status(x.id); s.PID != pid || s.Phase != service.Running {
		t.Errorf("%+v, want process %d taken over", s, pid)
	}
	x.leave()
}

func TestTeamLACP(t *testing.T) {
	yes := true
	team := spec.Team{Runner: spec.Runner{Name: "lacp", FastRate: &yes, Active: &yes, TxHash: []string{"eth", "ipv4", "ipv6"}}}
	x := newTeamed(t, team)
	x.create(x.id, x.fields)
	attach(x.host, "10.6.0.1/24")

	// The switch's side is a team, too.
	for _, n := range []string{"1", "2"} {
		x.middle.Shell("ip", "link", "set", "q"+n, "down")
		x.middle.Shell("ip", "link", "set", "q"+n, "name", "p"+n)
	}
	id, fields := teamItem(t, x.middle, team, nil)
	x.addTeam(x.middle)
	x.create(id, fields)
	attach(x.middle, "")
	x.middle.Shell("ip", "link", "add", "br0", "type", "bridge")
	for _, port := range []string{"team0", "far"} {
		x.middle.Shell("ip", "link", "set", port, "master", "br0", "up")
	}
	x.middle.Shell("ip", "link", "set", "br0", "up")

	lab.Eventually(t, 60*time.Second, "both ports are in one aggregator", func() bool {
		s := x.state()
		p1, p2 := s.Ports["p1"].Runner, s.Ports["p2"].Runner
		return p1.State == "current" && p2.State == "current" && p1.Aggregator.Selected && p2.Aggregator.Selected && p1.Aggregator.ID == p2.Aggregator.ID
	})
	if s := x.state(); !s.Runner.Active || !s.Runner.FastRate {
		t.Errorf("%+v", s.Runner)
	}
	x.goesOn("the far host answers")
	for _, failing := range []string{"p1", "p2"} {
		x.middle.Down(failing)
		lab.Eventually(t, 20*time.Second, failing+" is not selected any more", func() bool { return !x.state().Ports[failing].Runner.Aggregator.Selected })
		x.goesOn("traffic goes on without " + failing)
		x.middle.Up(failing)
		lab.Eventually(t, 60*time.Second, failing+" is back", func() bool { return x.state().Ports[failing].Runner.Aggregator.Selected })
	}
	x.delete(id)
	x.leave()
}

// TestTeamNSNAPing: the cable is fine, but behind it nobody answers.
func TestTeamNSNAPing(t *testing.T) {
	x := newTeamed(t, spec.Team{Runner: spec.Runner{Name: "activebackup"}, LinkWatch: []spec.LinkWatch{{Name: "nsna_ping",
		TargetHost: netip.MustParseAddr("fe80::6"), Interval: 200 * time.Millisecond, MissedMax: 3}}})
	x.bridge()
	x.create(x.id, x.fields)
	attach(x.host, "10.6.0.1/24")
	x.goesOn("the far host answers")
	// All ports have one address, so the switch sends answers to one of them: the other one's coming up waits for that.
	var active string
	lab.Eventually(t, 30*time.Second, "a port gets answers", func() bool {
		s := x.state()
		active = s.Runner.ActivePort
		return active != "" && s.Ports[active].LinkWatches.Up
	})
	other := map[string]string{"p1": "p2", "p2": "p1"}[active]
	x.middle.Shell("ip", "link", "set", "q"+active[1:], "nomaster")
	lab.Eventually(t, 30*time.Second, "the other port is active", func() bool {
		s := x.state()
		return s.Runner.ActivePort == other && !s.Ports[active].LinkWatches.Up
	})
	x.goesOn("traffic goes on")
	if !strings.Contains(x.host.Shell("ip", "link", "show", active), "LOWER_UP") {
		t.Error("the failing port lost its carrier: this was no test of neighbour solicitations")
	}
	x.leave()
}

// TestTeamsOfOneName: in two namespaces, whose control sockets would have one path.
func TestTeamsOfOneName(t *testing.T) {
	x := newTeamed(t, spec.Team{Runner: spec.Runner{Name: "roundrobin"}})
	h := lab.NewHost(t, "other")
	x.addTeam(h)
	id, fields := teamItem(t, h, spec.Team{Runner: spec.Runner{Name: "broadcast"}}, nil)
	a, b := x.create(x.id, x.fields), x.create(id, fields)
	for pid, runner := range map[int]string{a.PID: "roundrobin", b.PID: "broadcast"} {
		if s := stateOf(t, pid); s.Setup.RunnerName != runner || s.Setup.PID != pid {
			t.Errorf("process %d: %+v, want %s", pid, s.Setup, runner)
		}
	}
	x.delete(id)
	x.leave()
	if isRunning(b.PID) {
		t.Error("the other teamd runs on")
	}
}
