package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// With CAP_NET_ADMIN and a user of its own, which is what the unit gives, a file has its bridge, its clients forwarded and masqueraded, and
// its kill switch: nothing of it wants to enter a namespace.
func TestUpWithNetAdminAlone(t *testing.T) {
	t.Parallel()
	lab.NeedRoot(t)
	lab.NeedProgram(t, "setpriv")
	lab.NeedProgram(t, "unshare")
	p := newPlace(t, "admin")
	const user = 65534
	private := p.must("genkey")
	if err := os.WriteFile(p.path("key"), []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	p.write(`
tunnels:
  gate:
    listen: 51999
    private_key_file: key
    addresses: [10.77.0.1/24]
    server: {pool: [10.77.0.0/24], forward: true, nat: true}
  away:
    private_key_file: key
    addresses: [10.78.0.2/24]
    kill_switch: true
    peers:
      hub: {public_key: "KBZChJc3g0tmbN1BO9qGiM+X4QXLaz2z7TwI3HOprS8=", endpoints: ["192.0.2.1:51820"], allowed_ips: [0.0.0.0/0, "::/0"]}
links:
  sbr0: {type: bridge, addresses: [10.79.0.1/24]}
`)
	program, err := exec.LookPath("culvert")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	lab.WriteProgram(t, p.path("culvert"), content, 0o755)
	for _, name := range []string{"run", "state", "wg"} {
		if err := os.MkdirAll(p.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(p.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, user, user)
	})
	if err == nil {
		err = os.Chmod(filepath.Dir(p.dir), 0o711) // the test's own
	}
	if err != nil {
		t.Fatal(err)
	}
	// With a /dev/net/tun that everybody may open, as udev makes it.
	const enter = `mount -t tmpfs none /dev/net && mknod -m 0666 /dev/net/tun c 10 200 && exec setpriv --reuid 65534 --regid 65534 --clear-groups ` +
		`--inh-caps -all,+net_admin --ambient-caps -all,+net_admin --bounding-set -all,+net_admin --no-new-privs "$@"`
	as := func(args ...string) string {
		t.Helper()
		cmd := p.command(args...)
		cmd.Path, _ = exec.LookPath("unshare")
		cmd.Args = append([]string{"unshare", "-m", "sh", "-c", enter, "sh", p.path("culvert")}, args...)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := p.host.Output(cmd)
		if err != nil {
			t.Fatalf("culvert %s: %v\n%s", strings.Join(args, " "), err, said.String())
		}
		return string(out)
	}
	file := p.path(p.name + ".yaml")
	as("up", file)
	if out := as("plan", file); strings.TrimSpace(out) != "nothing to do" {
		t.Errorf("plan of what is up:\n%s", out)
	}
	tables, err := p.host.Output(exec.Command("nft", "list", "tables"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"table inet culvert/" + p.name, "table ip culvert-l3-away"} {
		if !strings.Contains(string(tables), want) {
			t.Errorf("no %s:\n%s", want, tables)
		}
	}
	as("reload", p.name)
	for range 2 {
		as("upgrade", p.name)
		if out := as("plan", file); strings.TrimSpace(out) != "nothing to do" {
			t.Errorf("plan after an upgrade:\n%s", out)
		}
		if out := as("status"); !strings.Contains(out, "confinement: files ") || !strings.Contains(out, "system calls confined") {
			t.Errorf("status after an upgrade:\n%s", out)
		}
	}
	as("down", p.name)
	links, err := p.host.Output(exec.Command("ip", "-o", "link"))
	if err != nil || strings.Count(string(links), "\n") != 1 {
		t.Errorf("%v, left:\n%s", err, links)
	}
}
