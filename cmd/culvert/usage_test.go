package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/tunnel"
	"culvert/tunnel/access"
)

func TestUsageIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", ".usage", "site.json")
	var said []string
	open := func() *usageStore {
		return openUsage(path, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	}
	status := func(key byte, bytes uint64) tunnel.Status {
		a := &access.Status{Quota: 1000, Used: access.Usage{Bytes: bytes, Since: goldenNow}}
		return tunnel.Status{Peers: []tunnel.PeerStatus{{PublicKey: crypto.PublicKey{key}, Access: a}, {PublicKey: crypto.PublicKey{99}}}}
	}
	quota, err := access.Compile(access.Spec{Default: access.Allow, Quota: access.Quota{Bytes: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	restored := func(s *usageStore, key byte, before bool) *access.Usage {
		c := tunnel.Change{Peers: []tunnel.PeerChange{{PublicKey: crypto.PublicKey{key}, Access: quota}, {PublicKey: crypto.PublicKey{key}, Access: access.Unrestricted}}}
		s.restore(&c, "wg0", map[crypto.PublicKey]bool{{key}: before})
		if c.Peers[1].Usage != nil {
			t.Error("usage for a peer without a quota")
		}
		return c.Peers[0].Usage
	}
	s := open()
	if u := restored(s, 1, false); u != nil || said != nil {
		t.Fatalf("without a file: %v, %q", u, said)
	}
	s.note("wg0", status(1, 500))
	s.note("wg1", status(2, 7))
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700 | fs.ModeDir} {
		if st, err := os.Stat(p); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", p, st.Mode(), err)
		}
	}
	again := open()
	if u := restored(again, 1, false); u == nil || u.Bytes != 500 || !u.Since.Equal(goldenNow) {
		t.Errorf("%+v", u)
	}
	if u := restored(again, 1, true); u != nil {
		t.Errorf("usage for a peer that has counted all along: %+v", u)
	}
	if u := restored(again, 2, false); u != nil {
		t.Errorf("another tunnel's usage: %+v", u)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	// Whatever the file is, a store comes of it, and the next save makes a good one.
	for name, damage := range map[string]func() error{
		"cut off":    func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
		"empty":      func() error { return os.WriteFile(path, nil, 0o600) },
		"no JSON":    func() error { return os.WriteFile(path, []byte("\x00\xff"), 0o600) },
		"a version":  func() error { return os.WriteFile(path, []byte(`{"version":2}`), 0o600) },
		"a number":   func() error { return os.WriteFile(path, bytes.Replace(good, []byte("500"), []byte("-500"), 1), 0o600) },
		"a key":      func() error { return os.WriteFile(path, bytes.Replace(good, []byte("AQ"), []byte("??"), 1), 0o600) },
		"a symlink":  func() error { return os.Symlink("/etc/passwd", path) },
		"no mapping": func() error { return os.WriteFile(path, []byte(`[]`), 0o600) },
	} {
		os.Remove(path)
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		said = nil
		s := open()
		if len(said) != 1 || !strings.Contains(said[0], path) {
			t.Errorf("%s: said %q", name, said)
		}
		if u := restored(s, 1, false); u != nil {
			t.Errorf("%s: %+v", name, u)
		}
		s.note("wg0", status(1, 1))
		if err := s.save(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if u := restored(open(), 1, false); u == nil || u.Bytes != 1 {
			t.Errorf("%s: afterwards %+v", name, u)
		}
	}
	if b, err := os.ReadFile("/etc/passwd"); err != nil || bytes.Contains(b, []byte("tunnels")) {
		t.Error("a symlink was written through")
	}

	// Nothing to keep, no file.
	s = open()
	s.keep(map[string]bool{})
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("something is left: %v", err)
	}
	var none *usageStore
	none.note("x", status(1, 1))
	none.keep(nil)
	none.restore(&tunnel.Change{}, "x", nil)
	if err := none.save(); err != nil {
		t.Error(err)
	}
}

// TestPolicyOf: what a file says comes out as the engine's rules.
func TestPolicyOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.yaml")
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "k"), []byte(key.Base64()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := `version: 1
tunnels:
  wg0:
    private_key_file: k
    peers:
      a:
        public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
        allowed_ips: [10.20.0.2]
        access:
          default: deny
          rules:
            - allow: {to: [10.0.0.0/8], protocol: tcp, ports: [443, 8000-8100]}
            - deny: {from: any, protocol: [58, icmp, 50]}
            - allow: {protocol: udp}
          limit: {from_peer: 20mbit, to_peer: 1gbit}
          quota: {bytes: 50GB, every: week, zone: Europe/Berlin}
          expires: 2027-01-01T00:00:00Z
          schedule: [{days: [mon, sun], from: "08:00", to: "18:30", zone: Europe/Berlin}, {from: "22:00"}]
      b: {public_key: "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=", allowed_ips: [10.20.0.3]}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	peers := file.Tunnels[0].Peers
	got, err := policyOf(&peers[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	want, err := access.Compile(access.Spec{
		Rules: []access.Rule{
			{Action: access.Allow, Protocols: []uint8{access.TCP}, Ports: []access.Ports{{First: 443, Last: 443}, {First: 8000, Last: 8100}}},
			{Direction: access.ToPeer, Protocols: []uint8{access.ICMP, 50}},
			{Action: access.Allow, Protocols: []uint8{access.UDP}},
			{Action: access.Allow, Direction: access.ToPeer, Protocols: []uint8{access.UDP}},
		},
		FromPeer: 20e6, ToPeer: 1e9, Quota: access.Quota{Bytes: 50e9, Every: access.Week, Zone: berlin},
		Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Schedule: []access.Window{
			{Days: [7]bool{true, true}, From: 8 * time.Hour, To: 18*time.Hour + 30*time.Minute, Zone: berlin},
			{Days: [7]bool{true, true, true, true, true, true, true}, From: 22 * time.Hour, To: 24 * time.Hour},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Equal(want) {
		t.Error("a policy without its networks is equal")
	}
	spec := want.Spec()
	spec.Rules = append([]access.Rule(nil), spec.Rules...)
	spec.Rules[0].Addresses = peers[0].Access.Rules[0].Allow.To
	if want, err = access.Compile(spec); err != nil || !got.Equal(want) {
		t.Errorf("%+v\nwant\n%+v, %v", got.Spec(), spec, err)
	}
	if p, err := policyOf(&peers[1], nil); err != nil || p != access.Unrestricted {
		t.Errorf("without access: %v, %v", p, err)
	}
	changed := wholeTunnel{Tunnel: file.Tunnels[0]}
	changed.Peers = append([]config.Peer(nil), peers...)
	changed.Peers[0].Access, changed.Peers[1].Access = nil, nil
	if got := accessChanges(&wholeTunnel{Tunnel: file.Tunnels[0]}, &changed); !reflect.DeepEqual(got, []string{"wg0: peer a: what it may do has changed"}) {
		t.Errorf("%q", got)
	}
	var out bytes.Buffer
	summarizeAccess(func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }, peers[0].Access)
	for _, line := range []string{"allowed: tcp port 443, 8000-8100 to 10.0.0.0/8", "denied: 58, icmp, 50 from any", "allowed: udp", "everything else is denied",
		"at most 20mbit from it", "at most 46.57 GiB a week", "until 2027-01-01T00:00:00Z", "mon, sun from 08:00 to 18:30, Europe/Berlin", "every day from 22:00 to 24:00, UTC"} {
		if !strings.Contains(out.String(), "  "+line+"\n") {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
}

func TestAccessText(t *testing.T) {
	var out bytes.Buffer
	writeAccess(func(name, format string, args ...any) { fmt.Fprintf(&out, name+": "+format+"\n", args...) }, &control.Access{
		Default: "deny", Rules: 3, Flows: 7, Closed: "outside its schedule", Scheduled: true, Expires: goldenNow, FromPeerRate: 20e6, ToPeerRate: 1e9,
		Quota:    &control.Quota{Bytes: 1 << 30, Used: 1536, Every: "day", Since: goldenNow},
		FromPeer: control.AccessDrops{Denied: 1, OverRate: 2}, ToPeer: control.AccessDrops{OverQuota: 3, ShutOut: 4},
	})
	want := `access: outside its schedule, default deny, 3 rules, 7 flows, at most 20mbit from it, at most 1gbit to it, until 2026-05-04T12:00:00Z
quota: 1.50 KiB of 1.00 GiB used since 2026-05-04T12:00:00Z
refused from it: denied by rule 1, over rate 2
refused to it: over quota 3, shut out 4
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}
