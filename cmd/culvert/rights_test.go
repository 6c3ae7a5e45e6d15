package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"culvert/control"
)

// What a file needs besides what the unit gives is told, with where it is said and what to do.
func TestDemands(t *testing.T) {
	key := "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
	for text, want := range map[string][]string{
		"[Interface]\nPrivateKey = " + key + "\nListenPort = 51820\n":              nil,
		"[Interface]\nPrivateKey = " + key + "\nListenPort = 443\n":                {"low-ports.conf, for UDP port 443 (wg0.conf:3:14)", "install -Dm644 /usr/share/culvert/systemd/low-ports.conf"},
		"[Interface]\nPrivateKey = " + key + "\nListenPort = 443\nPostUp = true\n": {"for UDP port 443", "wide.conf, for a command of wg0 (wg0.conf:4:", "install -Dm644 /usr/share/culvert/systemd/wide.conf"},
	} {
		file := load(t, "wg0.conf", text)
		var b bytes.Buffer
		writeDemands(&b, file)
		if want == nil && b.Len() > 0 {
			t.Errorf("%s\n%s", text, b.String())
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s\ngot\n%s\nwant %q", text, b.String(), w)
			}
		}
		if strings.Count(b.String(), "install") > 1 {
			t.Errorf("more than one drop-in is advised:\n%s", b.String())
		}
	}
}

// A command finds an instance where services have theirs, if it is not where one's own are.
func TestServicesAreFound(t *testing.T) {
	p := &program{runDir: t.TempDir(), stateDir: t.TempDir(), service: &folders{runDir: t.TempDir(), stateDir: t.TempDir()}}
	own, services := *p, *p.service
	listen(t, services.runDir, "office")
	listen(t, services.runDir, "both")
	listen(t, p.runDir, "both")
	for name, dir := range map[string]string{"office": services.runDir, "both": own.runDir, "none": own.runDir, "../x": own.runDir} {
		q := own
		if q.locate(name); q.runDir != dir {
			t.Errorf("%s is looked for in %s", name, q.runDir)
		}
		if named := (q.stateDir == services.stateDir); named != (dir == services.runDir) {
			t.Errorf("%s has its journal in %s", name, q.stateDir)
		}
	}
	if got := strings.Join(p.known(), " "); got != "both office" {
		t.Errorf("known are %s", got)
	}
}

// listen takes an instance's name in a folder.
func listen(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}
