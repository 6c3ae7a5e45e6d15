package service

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"culvert/internal/golden"
	"culvert/setup/model"
	"culvert/setup/spec"
)

// TestCommands renders what a declaration leads to: the command line and the configuration file.
func TestCommands(t *testing.T) {
	yes := true
	number := func(n uint16) *uint16 { return &n }
	prio := int32(100)
	port := func(key, name string) spec.Link {
		return spec.Link{Key: key, Name: name, Netns: "lab0", External: true}
	}
	s := &spec.Spec{
		Instance: "golden",
		Netns:    []spec.Netns{{Name: "lab0", External: true}},
		Links: []spec.Link{
			port("p1", ""), port("p2", "port2"), port("p3", ""), port("p4", ""), port("veth-b", ""), port("br1", ""),
			{Key: "team0", Netns: "lab0", Type: spec.TypeTeam, Ports: []spec.Port{{Link: "p1", Prio: &prio, Sticky: &yes}, {Link: "p2"}}, Team: &spec.Team{
				Runner: spec.Runner{Name: "activebackup", HWAddrPolicy: "by_active"},
				LinkWatch: []spec.LinkWatch{{Name: "nsna_ping", TargetHost: netip.MustParseAddr("fe80::1"), Interval: 200 * time.Millisecond, MissedMax: 3},
					{Name: "ethtool", DelayUp: time.Second}},
			}},
			{Key: "team1", Netns: "lab0", Type: spec.TypeTeam, Ports: []spec.Port{{Link: "p3", Key: number(7)}, {Link: "p4"}}, Team: &spec.Team{
				Runner: spec.Runner{Name: "lacp", FastRate: &yes, Active: &yes, SysPrio: number(9), TxHash: []string{"eth", "ipv4", "ipv6"}, TxBalancer: "basic"},
			}},
		},
		Services: []spec.Service{
			{Dnsmasq: &spec.Dnsmasq{Netns: "lab0", Interface: "veth-b", Ranges: []string{"10.0.0.10,10.0.0.50,255.255.255.0"},
				Hosts: []string{"02:00:00:00:00:01,10.0.0.9"}, Options: []string{"3,10.0.0.2"}, Domain: "lab"}},
			{Dnsmasq: &spec.Dnsmasq{Netns: "lab0", Interface: "br1", DNS: true, Servers: []netip.Addr{netip.MustParseAddr("9.9.9.9")}}},
		},
	}
	if errs := s.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	var out strings.Builder
	for _, i := range model.Expand(s) {
		if i.ID.Kind() != model.KindProcess {
			continue
		}
		args, err := command(i.Fields, filesIn("/state"), "nobody")
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("# " + string(i.ID) + " in " + string(i.Fields["netns"]) + "\n" + string(i.Fields["program"]) + "\n")
		for _, a := range args {
			out.WriteString("\t" + a + "\n")
		}
		if c := i.Fields["config"]; c != "" {
			out.WriteString("config: " + string(c) + "\n")
		}
	}
	golden.Check(t, "testdata/commands.golden", out.String())
}

func TestCommandRefuses(t *testing.T) {
	for name, f := range map[string]model.Fields{
		"an unknown program": {"program": "sh", "args": `["-c","true"]`},
		"no arguments":       {"program": "dnsmasq"},
		"a zero byte":        {"program": "dnsmasq", "args": `["a\u0000b"]`},
		"no texts":           {"program": "dnsmasq", "args": `[1]`},
	} {
		if args, err := command(f, files{}, "nobody"); err == nil {
			t.Errorf("%s: %q", name, args)
		}
	}
}

func TestFindProgram(t *testing.T) {
	if _, err := findProgram("sh"); err == nil || errors.Is(err, exec.ErrNotFound) {
		t.Errorf("sh: %v", err)
	}
	programs["no-such-program"] = program{pkg: "its-package"}
	defer delete(programs, "no-such-program")
	_, err := findProgram("no-such-program")
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "apt-get install its-package") {
		t.Errorf("%v, want the package named", err)
	}
}
