package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/cmd/culvert/doctor"
	"culvert/internal/lab"
)

// diagnosed waits until the doctor finds just the codes wanted of errors and warnings.
func (s *site) diagnosed(want string) {
	s.t.Helper()
	var out string
	defer func() {
		if s.t.Failed() {
			s.t.Logf("wanted %q, the doctor said\n%s", want, out)
		}
	}()
	lab.Eventually(s.t, patience, "the doctor finds: "+want, func() bool {
		var code int
		out, code = s.culvert("doctor", "site", "--json")
		var list []doctor.Finding
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			s.t.Fatalf("%v:\n%s", err, out)
		}
		var codes []string
		for _, f := range list {
			if f.Severity != doctor.Note {
				codes = append(codes, f.Code)
			}
			if f.Severity != doctor.Note && f.Do == "" {
				s.t.Errorf("nothing to do about %+v", f)
			}
		}
		if (code != 0) != (len(codes) > 0) || code > 1 {
			s.t.Fatalf("exit code %d of %v", code, codes)
		}
		return strings.Join(codes, " ") == want
	})
}

// What is really broken is found, and nothing else.
func TestDoctor(t *testing.T) {
	for name, scene := range map[string]func(a, b *site){
		"nothing": func(a, b *site) {
			b.must("up", b.file)
			a.reaches("10.20.0.2")
			a.diagnosed("")
			if out := a.must("doctor", "site"); !strings.Contains(out, "nothing wrong is seen") {
				a.t.Error(out)
			}
			if facts := a.must("doctor", "site", "--facts"); strings.Contains(facts, strings.TrimSpace(read(a.t, filepath.Join(a.dir, "key")))) || !strings.Contains(facts, `"routes"`) {
				a.t.Error(facts)
			}
			a.must("down", "site")
			a.refused(1, "nothing called site is running, and there is no file of that name", "doctor", "site")
			if out, code := a.culvert("doctor", a.file); code != 1 || !strings.Contains(out, "[not-running]") {
				a.t.Errorf("of a file: %d\n%s", code, out)
			}
		},
		"firewall": func(a, b *site) {
			b.must("up", b.file)
			a.host.Shell("nft", "add table inet f; add chain inet f in { type filter hook input priority 0; }; add rule inet f in udp dport 1000 counter drop")
			a.host.Shell("ip", "link", "set", "wg0", "down")
			a.host.Shell("ip", "link", "set", "wg0", "up")
			a.diagnosed("firewall")
		},
		"preshared key": func(a, b *site) {
			psk := a.must("genpsk")
			if err := os.WriteFile(filepath.Join(a.dir, "psk"), []byte(psk), 0o600); err != nil {
				a.t.Fatal(err)
			}
			a.write(strings.Replace(read(a.t, a.file)[strings.Index(read(a.t, a.file), "    listen"):], "b: {", "b: {preshared_key_file: psk, ", 1))
			a.must("reload", "site")
			b.must("up", b.file)
			a.diagnosed("preshared-key")
		},
		"key": func(a, b *site) {
			b.write(strings.Replace(read(b.t, b.file)[strings.Index(read(b.t, b.file), "    listen"):], a.pub, testPeer, 1))
			b.must("up", b.file)
			a.diagnosed("silent")
			b.diagnosed("unknown-peer")
		},
		"wire": func(a, b *site) {
			b.write(strings.Replace(read(b.t, b.file)[strings.Index(read(b.t, b.file), "    listen"):], "a: {", "a: {wire: wireguard, ", 1))
			b.must("up", b.file)
			b.diagnosed("wire")
		},
		"route loop": func(a, b *site) {
			a.host.Shell("ip", "route", "add", "192.0.2.2/32", "dev", "wg0")
			a.diagnosed("route-loop")
		},
		"small MTU": func(a, b *site) {
			a.host.Shell("ip", "route", "add", "192.0.2.2/32", "dev", strings.Fields(a.host.Shell("ip", "-o", "route", "get", "192.0.2.2"))[2], "mtu", "1000")
			a.diagnosed("mtu")
		},
		"no name": func(a, b *site) {
			b.must("up", b.file)
			a.write(strings.Replace(bodyA(b, ""), "192.0.2.2:2000", "nosuch.invalid:2000", 1))
			a.must("reload", "site")
			a.diagnosed("dns")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newSites(t)
			a.write(strings.Replace(bodyA(b, ""), "b: {", "b: {keepalive: 1s, ", 1))
			a.must("up", a.file)
			scene(a, b)
		})
	}
}
