package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/setup/spec"
)

// parseGood reads a text that has nothing wrong or odd.
func parseGood(t *testing.T, name string, text []byte) *File {
	t.Helper()
	f, r := parseYAML(name, text, fakeSecret)
	if errs, warnings := r.finish(); len(errs)+len(warnings) > 0 {
		t.Fatalf("errors:\n%v\nwarnings:\n%v", errs, Errors(warnings))
	}
	return f
}

func readGood(t *testing.T, path string) *File {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parseGood(t, filepath.Base(path), text)
}

// The full file sets every field that package spec has, in one of its parts at least.
func TestSetupComplete(t *testing.T) {
	f := readGood(t, "testdata/good/setup.yaml")
	set, all := map[string]bool{}, map[string]bool{}
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Struct:
			if v.Type().PkgPath() != reflect.TypeFor[spec.Spec]().PkgPath() || v.Type() == placeType {
				return
			}
			for i := range v.NumField() {
				name := v.Type().Name() + "." + v.Type().Field(i).Name
				all[name] = true
				set[name] = set[name] || !v.Field(i).IsZero()
				walk(v.Field(i))
			}
		}
	}
	walk(reflect.ValueOf(f.Setup))
	for name := range all {
		if !set[name] {
			t.Errorf("%s is never set", name)
		}
	}
	if len(all) < 170 {
		t.Errorf("only %d fields were seen", len(all))
	}
	if !f.DeclaresSetup() {
		t.Error("DeclaresSetup is false")
	}
}

func linkNamed(t *testing.T, f *File, key string) *spec.Link {
	t.Helper()
	for i := range f.Setup.Links {
		if f.Setup.Links[i].Key == key {
			return &f.Setup.Links[i]
		}
	}
	t.Fatalf("there is no link %s", key)
	return nil
}

// Values arrive with their units, shorthands as what they stand for, and tunnels as links.
func TestSetupValues(t *testing.T) {
	f := readGood(t, "testdata/good/setup.yaml")
	s := &f.Setup
	br, tap, team := linkNamed(t, f, "br0"), linkNamed(t, f, "vnet1"), linkNamed(t, f, "team0")
	office := linkNamed(t, f, "office")
	for what, c := range map[string]struct{ got, want any }{
		"instance":      {s.Instance, "all"},
		"tunnel first":  {s.Links[0].Key, "office"},
		"tunnel":        {[]any{office.Type, office.Tun.Mode, office.Tun.Queues, office.MTU, office.Netns, *office.Up, len(office.Routes)}, []any{spec.TypeTunnel, spec.TypeTap, 2, 1400, "lab0", false, 2}},
		"forward delay": {*br.Bridge.ForwardDelay, 4 * time.Second},
		"max age":       {*br.Bridge.MaxAge, 6500 * time.Millisecond},
		"own VLANs":     {br.Bridge.VLAN.Self, []spec.PortVLAN{{VID: 10}, {VID: 100, To: 110}, {VID: 20, Untagged: true}}},
		"port VLANs":    {br.Ports[1].VLANs, []spec.PortVLAN{{VID: 10, PVID: true, Untagged: true}, {VID: 30, To: 40}}},
		"no VLANs":      {br.Ports[2].VLANs, []spec.PortVLAN{}},
		"VLANs unsaid":  {br.Ports[0].VLANs == nil, true},
		"port order":    {[]string{br.Ports[0].Link, br.Ports[1].Link, br.Ports[2].Link}, []string{"eth0", "vnet1", "veth-a"}},
		"socket mode":   {*tap.Handover.Mode, uint32(0o660)},
		"socket alone":  {linkNamed(t, f, "tap3").Handover.Socket, "/run/culvert/vm3.sock"},
		"mac":           {br.MAC.String(), "02:00:00:00:00:10"},
		"peer by name":  {linkNamed(t, f, "veth-c").Veth.Peer.Key, "veth-d"},
		"runner alone":  {linkNamed(t, f, "team1").Team.Runner.Name, "activebackup"},
		"watch alone":   {linkNamed(t, f, "team1").Team.LinkWatch[0].Name, "ethtool"},
		"watches":       {len(team.Team.LinkWatch), 3},
		"target":        {team.Team.LinkWatch[0].TargetHost, netip.MustParseAddr("fe80::1")},
		"rate":          {s.Shaping[1].Qdisc.HTB.Rate, spec.BitRate(8_000_000)},
		"burst":         {*s.Shaping[1].Qdisc.HTB.Burst, spec.Size(10240)},
		"leaf":          {s.Shaping[1].Qdisc.HTB.Leaf.Kind(), "fq_codel"},
		"overhead":      {*s.Shaping[3].Qdisc.Cake.Overhead, -4},
		"default":       {office.Routes[1].Prefix, netip.MustParsePrefix("0.0.0.0/0")},
		"table":         {linkNamed(t, f, "macvlan1").Routes[0].Table, uint32(254)},
		"mark":          {[]uint32{s.Rules[0].Mark, s.Rules[0].Mask}, []uint32{1, 255}},
		"suppress":      {*s.Rules[1].SuppressPrefixLen, uint32(0)},
		"family":        {s.NAT[1].Family, 6},
		"range alone":   {s.Services[0].Dnsmasq.Ranges, []string{"10.0.0.10,10.0.0.50,255.255.255.0"}},
		"device name":   {linkNamed(t, f, "vlan10").DeviceName(), "uplink"},
		"empty bridge":  {linkNamed(t, f, "virbr0").Bridge == nil, true},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
}

// Every part knows where it is said, and where each of its fields is.
func TestSetupPlaces(t *testing.T) {
	text := "version: 1\nlinks:\n  br0:\n    type: bridge\n    stp: {enabled: true}\n    ports:\n      tap0: {cost: 3}\n    addresses: [10.0.0.1/24, {address: 10.0.1.1/24}]\n" +
		"  tap0: {type: tap}\nshaping:\n  - source: tap0\n    egress:\n      tbf: {rate: 8mbit, burst: 10k}\n"
	f := parseGood(t, "x.yaml", []byte(text))
	br, sh := f.Setup.Links[0], f.Setup.Shaping[0]
	for _, c := range []struct {
		place     spec.Place
		field     string
		path      string
		line, col int
	}{
		{br.Place, "", "links.br0", 3, 3}, {br.Place, "type", "links.br0.type", 4, 11}, {br.Place, "stp.enabled", "links.br0.stp.enabled", 5, 20},
		{br.Place, "stp", "links.br0.stp", 5, 5}, {br.Place, "addresses[1]", "links.br0.addresses[1]", 8, 30},
		{br.Ports[0].Place, "cost", "links.br0.ports.tap0.cost", 7, 20}, {br.Ports[0].Place, "", "links.br0.ports.tap0", 7, 7},
		{br.Addresses[0].Place, "", "links.br0.addresses[0]", 8, 17}, {br.Addresses[1].Place, "address", "links.br0.addresses[1].address", 8, 40},
		{sh.Place, "source", "shaping[0].source", 11, 13}, {sh.Egress.Place, "tbf.rate", "shaping[0].egress.tbf.rate", 13, 19},
		{sh.Egress.Place, "tbf.mtu", "shaping[0].egress.tbf.mtu", 12, 5}, // not said: the part's own place
	} {
		if got := c.place.Key(c.field); got != c.path {
			t.Errorf("path %s, want %s", got, c.path)
		}
		if got := c.place.At(c.field); got != (spec.Origin{File: "x.yaml", Line: c.line, Column: c.col}) {
			t.Errorf("%s is at %v, want %d:%d", c.path, got, c.line, c.col)
		}
	}
}

// A file needs tunnels or something to set up.
func TestTunnelsOrSetup(t *testing.T) {
	f := parseGood(t, "x.yaml", []byte("version: 1\nlinks: {tap0: {type: tap}}\n"))
	if len(f.Tunnels) != 0 || len(f.Setup.Links) != 1 || !f.DeclaresSetup() {
		t.Errorf("%d tunnels, %d links", len(f.Tunnels), len(f.Setup.Links))
	}
	f = parseGood(t, "x.yaml", []byte("version: 1\ntunnels: {a: {private_key_file: k}}\n"))
	if f.DeclaresSetup() || len(f.Setup.Links) != 1 || f.Setup.Links[0].Tun.Mode != spec.TypeTun {
		t.Errorf("declares %v, %+v", f.DeclaresSetup(), f.Setup.Links)
	}
	path := filepath.Join(t.TempDir(), "wg0.conf")
	writeFile(t, path, "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nMTU = 1400\n", 0o600)
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if l := f.Setup.Links; f.DeclaresSetup() || len(l) != 1 || l[0].Key != "wg0" || l[0].Type != spec.TypeTunnel || l[0].MTU != 1400 || f.Setup.Instance != "wg0" {
		t.Errorf("a wg-quick file: %+v", f.Setup)
	}
	f = parseGood(t, "x.yaml", []byte("version: 1\ntunnels: {a: {private_key_file: k, up: true}}\n"))
	if !f.DeclaresSetup() {
		t.Error("a tunnel's setup keys declare nothing")
	}
}

// What runs as root by the word of the file must not be anybody's to change.
func TestSetupExposed(t *testing.T) {
	for text, parts := range map[string]string{
		"links: {a: {type: tap, handover: /run/a}}": "services and sockets", "links: {a: {type: tap}}\nservices: [{dnsmasq: {interface: a, dns: true}}]": "services and sockets",
		"links: {a: {type: tap}}": "",
	} {
		path := filepath.Join(t.TempDir(), "x.yaml")
		writeFile(t, path, "version: 1\n"+text+"\n", 0o666)
		if parts != "" {
			refused(t, path, "mode 0666", parts, "chmod go-w")
		} else if _, err := Load(path); err != nil {
			t.Error(err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Every example of the examples folder is right, says what it is for, and stands in docs/setup.md.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(paths) < 15 {
		t.Fatalf("%d examples, %v", len(paths), err)
	}
	reference, err := os.ReadFile("../docs/setup.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f := parseGood(t, path, text)
			if !f.DeclaresSetup() || !strings.HasPrefix(string(text), "# ") {
				t.Error("it sets nothing up, or does not say what it is for")
			}
			if !strings.Contains(string(reference), "examples/"+filepath.Base(path)) {
				t.Error("docs/setup.md does not name it")
			}
			for i, line := range strings.Split(string(text), "\n") {
				if len(line) > 140 {
					t.Errorf("line %d is %d bytes long", i+1, len(line))
				}
			}
		})
	}
}
