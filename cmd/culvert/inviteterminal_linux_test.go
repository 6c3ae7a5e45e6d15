package main

import (
	"regexp"
	"strings"
	"testing"

	"rsc.io/qr"
)

// At a terminal that is wide enough an invitation, a client for an app and an authenticator's secret come with a QR code of just what is
// printed; elsewhere only where one is asked for.
func TestCodesAtATerminal(t *testing.T) {
	t.Parallel()
	j := newJoined(t)
	j.configure("        field: {sign_in: {totp: true}}\n")
	j.server.must("up", j.server.file)
	const block = "\u2588"
	all := func(y *typist) string {
		t.Helper()
		if code, _ := y.ends(); code != 0 {
			t.Errorf("it ended with %d", code)
		}
		<-y.done
		return strings.ReplaceAll(y.text(), "\r\n", "\n")
	}
	drawn := func(out, text string) {
		t.Helper()
		code, err := qr.Encode(text, qr.L)
		if err != nil {
			t.Fatal(err)
		}
		if text == "" || !strings.HasSuffix(out, blocksOf(code)) {
			t.Errorf("no code of %q is at the end of\n%s", text, out)
		}
	}
	link := regexp.MustCompile(`(?m)^culvert://192\.0\.2\.1:2000/#\S+$`)
	for _, columns := range []uint16{0, 80} {
		out := all(j.server.atTerminalOf(columns, "invite", "alice", "--group", "field"))
		drawn(out, link.FindString(out))
	}
	out := all(j.server.atTerminal("client", "totp", "alice"))
	drawn(out, regexp.MustCompile(`(?m)^otpauth://\S+$`).FindString(out))
	out = all(j.server.atTerminalOf(200, "client", "add", "phone", "--wireguard"))
	conf, _, _ := strings.Cut(out[strings.Index(out, "[Interface]"):], "\x1b")
	drawn(out, conf)

	for what, y := range map[string]*typist{
		"--qr=false":          j.server.atTerminal("invite", "bob", "--qr=false"),
		"40 columns":          j.server.atTerminalOf(40, "invite", "carol"),
		"--png at a terminal": j.server.atTerminal("invite", "dave", "--png", j.server.dir+"/dave.png"),
	} {
		if out := all(y); !link.MatchString(out) || strings.Contains(out, block) {
			t.Errorf("%s: it printed\n%s", what, out)
		}
	}
	if out := j.server.must("invite", "erin"); strings.Contains(out, block) {
		t.Errorf("to no terminal it printed\n%s", out)
	}
	if out := j.server.must("invite", "erin", "--qr"); !strings.Contains(out, block) {
		t.Errorf("--qr to no terminal: it printed\n%s", out)
	}
}
