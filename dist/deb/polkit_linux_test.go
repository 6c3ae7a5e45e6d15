package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"culvert/internal/lab"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
`

// resolveActions are those of systemd-resolved (252), and whether the service's user may do them.
var resolveActions = map[string]bool{
	"set-dns-servers": true, "set-domains": true, "set-default-route": true, "revert": true,
	"register-service": false, "unregister-service": false, "set-llmnr": false, "set-mdns": false, "set-dns-over-tls": false, "set-dnssec": false,
	"set-dnssec-negative-trust-anchors": false,
}

// A polkitd with the package's rule lets the service's user set the name servers of links, and nothing else, and nobody else.
func TestPolkit(t *testing.T) {
	lab.NeedRoot(t)
	lab.NeedProgram(t, "dbus-daemon")
	const polkitd = "/usr/lib/polkit-1/polkitd"
	if _, err := os.Stat(polkitd); err != nil {
		lab.Skip(t, "needs polkit: "+err.Error())
	}
	dir, err := os.MkdirTemp("", "polkit") // others can read it, unlike t.TempDir, and sockets' paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	rule, err := os.ReadFile("../polkit-1/culvert.rules")
	if err != nil {
		t.Fatal(err)
	}
	var actions strings.Builder
	actions.WriteString(`<?xml version="1.0"?><!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN" "http://www.freedesktop.org/software/polkit/policyconfig-1.dtd"><policyconfig>`)
	for name := range resolveActions {
		fmt.Fprintf(&actions, `<action id="org.freedesktop.resolve1.%s"><description>x</description><message>x</message><defaults>`+
			`<allow_any>auth_admin</allow_any><allow_inactive>auth_admin</allow_inactive><allow_active>auth_admin_keep</allow_active></defaults></action>`, name)
	}
	actions.WriteString("</policyconfig>\n")
	const service, other = 64321, 64322
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	var passwd strings.Builder
	for line := range strings.Lines(string(users)) {
		if !strings.HasPrefix(line, "culvert:") {
			passwd.WriteString(line)
		}
	}
	fmt.Fprintf(&passwd, "culvert:x:%d:%d::/:/usr/sbin/nologin\nsomebody:x:%d:%d::/:/usr/sbin/nologin\n", service, service, other, other)
	for name, text := range map[string]string{
		"bus.conf": fmt.Sprintf(busConfig, dir), "rules/culvert.rules": string(rule), "actions/resolve1.policy": actions.String(), "passwd": passwd.String(),
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(said chan<- string, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+dir+"/bus")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			for lines := bufio.NewScanner(out); lines.Scan(); {
				select {
				case said <- lines.Text():
				default:
				}
			}
		}()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-read; _ = cmd.Wait() })
	}
	await := func(said <-chan string, text string) {
		t.Helper()
		for end := time.After(30 * time.Second); ; {
			select {
			case line := <-said:
				t.Log(line)
				if strings.Contains(line, text) {
					return
				}
			case <-end:
				t.Fatalf("%q was not said", text)
			}
		}
	}
	said := make(chan string, 100)
	run(said, "dbus-daemon", "--config-file=bus.conf", "--nofork", "--nopidfile", "--print-address=1")
	await(said, "unix:path=")
	run(said, "unshare", "--mount", "sh", "-ec", `
		mount --bind rules /usr/share/polkit-1/rules.d
		mount --bind rules /etc/polkit-1/rules.d
		mount --bind actions /usr/share/polkit-1/actions
		mount --bind passwd /etc/passwd
		exec `+polkitd)
	await(said, "Acquired the name")

	conn, err := dbus.Connect("unix:path=" + dir + "/bus")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	authority := conn.Object("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority")
	for uid, who := range map[uint32]string{service: "culvert", other: "somebody else"} {
		asks := exec.Command("sleep", "60")
		asks.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
		if err := asks.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = asks.Process.Kill(); _ = asks.Wait() }()
		type subject struct {
			Kind    string
			Details map[string]dbus.Variant
		}
		as := subject{"unix-process", map[string]dbus.Variant{
			"pid": dbus.MakeVariant(uint32(asks.Process.Pid)), "start-time": dbus.MakeVariant(uint64(0)), "uid": dbus.MakeVariant(int32(uid)),
		}}
		for action, may := range resolveActions {
			var result struct {
				Authorized, Challenge bool
				Details               map[string]string
			}
			err := authority.CallWithContext(t.Context(), "org.freedesktop.PolicyKit1.Authority.CheckAuthorization", 0, as,
				"org.freedesktop.resolve1."+action, map[string]string{}, uint32(0), "").Store(&result)
			if want := may && uid == service; err != nil || result.Authorized != want {
				t.Errorf("%s, %s: %v, %v, want %v", who, action, result.Authorized, err, want)
			}
		}
	}
}
