package reloadplan

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"culvert/config"
)

const (
	key1  = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
	key2  = "kL9cKGkXjCKMNg4CXQ0sp1sFvzXnUVRM1dKDfRKoD0A="
	peer1 = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
	peer2 = "xgH7zx6EeUAFg4tAhVbbYHGbXyJRYFDKXNqm2Zlwp3U="
)

func load(t *testing.T, text string) *config.File {
	t.Helper()
	dir := t.TempDir()
	for name, body := range map[string]string{"key": key1, "key2": key2, "psk": key1, "psk2": key2, "site.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := config.Load(filepath.Join(dir, "site.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const base = `version: 1
tunnels:
  wg0:
    private_key_file: key
    listen: 51820
    addresses: [10.20.0.1/24]
    server: {push: {routes: [10.30.0.0/16]}, groups: {staff: {routes: [10.31.0.0/16], access: {default: deny}}}}
    peers:
      a: {public_key: "` + peer1 + `", allowed_ips: [10.20.0.2/32], preshared_key_file: psk, access: {rules: [{allow: {to: 10.0.0.1}}]}}
`

func TestOf(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{"version: 1\n", "version: 1\n# moved\n\n", ""},
		{"listen: 51820", "listen: 51821", "~ tunnel wg0: listen 51820 -> 51821 (datagrams under way to the old port are lost)"},
		{"    listen: 51820\n", "", "~ tunnel wg0: listen 51820 -> not set (datagrams under way to the old port are lost)"},
		{"file: key\n", "file: key2\n", "~ tunnel wg0: private_key is another (all its sessions end and are made anew)"},
		{"[10.20.0.1/24]", "[10.20.0.1/24, \"fd20::1/64\"]", "~ tunnel wg0: addresses [10.20.0.1/24] -> [10.20.0.1/24, fd20::1/64]"},
		{"    peers:\n", "    mtu: 1300\n    peers:\n", "~ tunnel wg0: mtu not set -> 1300"},
		{"push: {routes: [10.30.0.0/16]}", "push: {routes: []}", "~ tunnel wg0: server.push.routes [10.30.0.0/16] -> []"},
		{"push: {routes: [10.30.0.0/16]}", "push: {routes: [10.30.0.0/16], mtu: 1300}", "~ tunnel wg0: server.push.mtu not set -> 1300"},
		{"default: deny", "default: allow", "~ tunnel wg0: server.groups.staff.access.default deny -> allow"},
		{"file: psk", "file: psk2", "~ tunnel wg0, peer a: preshared_key is another (counts from the next handshake on)"},
		{", preshared_key_file: psk", "", "~ tunnel wg0, peer a: preshared_key (a key) -> not set (counts from the next handshake on)"},
		{"10.20.0.2/32", "10.20.0.0/28", "~ tunnel wg0, peer a: allowed_ips [10.20.0.2/32] -> [10.20.0.0/28]"},
		{"to: 10.0.0.1", "to: 10.0.0.9", "~ tunnel wg0, peer a: access.rules.1.allow.to [10.0.0.1/32] -> [10.0.0.9/32] (what is not allowed any more ends)"},
		{"preshared", "wire: wireguard, preshared", "~ tunnel wg0, peer a: wire culvert -> wireguard (its session ends and is made anew)"},
		{"      a:", "      renamed:", "~ tunnel wg0, peer renamed: name a -> renamed"},
		{peer1, peer2, "- tunnel wg0, peer a (its session ends)\n+ tunnel wg0, peer a"},
		{"version: 1\n", "version: 1\nmonitor: {page: \"127.0.0.1:9587\", peers: false}\n", "~ monitor.page not set -> 127.0.0.1:9587\n~ monitor.peers not set -> false"},
		{"version: 1\n", "version: 1\non: [{events: [peer-lost], run: [/bin/true, x]}]\n", "~ on.1\n~ on.1.events not set -> [peer-lost]\n~ on.1.run not set -> [/bin/true, x]"},
		{"wg0:", "wg1:", "- tunnel wg0 (all its sessions end)\n+ tunnel wg1"},
	} {
		var lines []string
		for _, x := range Of(load(t, base), load(t, strings.Replace(base, c.old, c.new, 1))) {
			lines = append(lines, Line(&x))
		}
		got := strings.Join(lines, "\n")
		if got != c.want {
			t.Errorf("%q -> %q:\n%s\nwant\n%s", c.old, c.new, got, c.want)
		}
		if strings.Contains(got, key1) || strings.Contains(got, key2) {
			t.Errorf("a key is shown: %s", got)
		}
	}
}

// A configuration has no field of a kind that is not compared.
func TestAllKindsAreCompared(t *testing.T) {
	seen := make(map[reflect.Type]bool)
	var walk func(path string, of reflect.Type)
	walk = func(path string, of reflect.Type) {
		if seen[of] || secret[path[strings.LastIndex(path, ".")+1:]] {
			return
		}
		seen[of] = true
		if _, ok := plain(reflect.New(of).Elem()); ok {
			return
		}
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array:
			walk(path, of.Elem())
		case reflect.Struct:
			for i := range of.NumField() {
				f := of.Field(i)
				if f.IsExported() && !left[f.Name] && !strings.HasSuffix(f.Name, "Pos") {
					walk(path+"."+f.Name, f.Type)
				}
			}
		default:
			t.Errorf("%s is a %v", path, of)
		}
	}
	walk("Tunnel", reflect.TypeFor[config.Tunnel]())
}

// What is served elsewhere, or no more, ends the connections there.
func TestMonitorMoves(t *testing.T) {
	from := load(t, strings.Replace(base, "version: 1\n", "version: 1\nmonitor: {metrics: \"127.0.0.1:9586\", page: \"127.0.0.1:9587\", peers: false}\n", 1))
	to := load(t, strings.Replace(base, "version: 1\n", "version: 1\nmonitor: {metrics: \"127.0.0.1:9000\", peers: true}\n", 1))
	var lines []string
	for _, x := range Of(from, to) {
		lines = append(lines, Line(&x))
	}
	want := "~ monitor.metrics 127.0.0.1:9586 -> 127.0.0.1:9000 (connections to the old place end)\n" +
		"~ monitor.page 127.0.0.1:9587 -> not set (connections to the old place end)\n~ monitor.peers false -> true"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
