package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/control"
	"culvert/server"
)

func TestClientText(t *testing.T) {
	var b bytes.Buffer
	c := &control.ServerClient{Tunnel: "office", Name: "alice", Wire: "culvert", Joined: goldenNow, Seen: goldenNow, ReceivedBytes: 5053}
	if err := writeClient(&b, c, goldenNow); err != nil || !strings.Contains(b.String(), "last seen: about ") || !strings.Contains(b.String(), "4.93 KiB received") {
		t.Errorf("%v:\n%s", err, &b)
	}
	b.Reset()
	c.LatestHandshake = goldenNow.Add(-time.Minute)
	if err := writeClient(&b, c, goldenNow); err != nil || strings.Contains(b.String(), "last seen") || !strings.Contains(b.String(), "latest handshake: 1m0s ago") {
		t.Errorf("one that is there was last seen at another time: %v:\n%s", err, &b)
	}
	b.Reset()
	if err := writeInvited(&b, &control.Invited{Tunnel: "office", Name: "bob", Group: "staff", Expires: goldenNow}); err != nil ||
		b.String() != "client bob of office\n  group: staff\n  invited: until "+goldenNow.Local().Format(time.DateTime)+", and has not joined\n" {
		t.Errorf("%v:\n%s", err, &b)
	}
}

// TestClientOfAServerStatus: what a client cannot see by itself is said, and only there.
func TestClientOfAServerStatus(t *testing.T) {
	const waits, hinted = "server: none has answered yet", "4 (the server is not reached, or does not know this client's key any more)"
	for _, c := range []struct {
		pulls, pulled bool
		waits, hinted bool
	}{{true, false, true, true}, {true, true, false, true}, {false, false, false, false}} {
		var b bytes.Buffer
		in := control.Instance{Name: "vpn", Tunnels: []control.Tunnel{{Interface: "vpn", Up: true, Pulls: c.pulls, Pulled: c.pulled, Peers: []control.Peer{{HandshakeAttempts: 4}}}}}
		if err := writeStatus(&b, []control.Instance{in}, goldenNow); err != nil || strings.Contains(b.String(), waits) != c.waits || strings.Contains(b.String(), hinted) != c.hinted {
			t.Errorf("%+v: %v\n%s", c, err, &b)
		}
	}
}

func TestEventAttributes(t *testing.T) {
	if a := eventAttributes(&server.Event{Event: "invited", Client: "bob"}); len(a) != 4 {
		t.Error(a)
	}
	if a := eventAttributes(&server.Event{Event: "refused", Client: "bob", From: "x", Why: "y"}); len(a) != 8 {
		t.Error(a)
	}
}

// TestJoinAsksForTheLink: without an argument, and with "-", the link is read from the input.
func TestJoinAsksForTheLink(t *testing.T) {
	for _, args := range [][]string{{"culvert", "join"}, {"culvert", "join", "-"}} {
		var out bytes.Buffer
		if code := newProgram(strings.NewReader("nonsense\n"), io.Discard, &out).run(args); code != exitFailure || !strings.Contains(out.String(), "this is no invitation") {
			t.Errorf("%q: %d, %s", args, code, &out)
		}
	}
}

// TestJoinWhereOneHasJoined leaves the files that are there, and says how to begin anew.
func TestJoinWhereOneHasJoined(t *testing.T) {
	i, dir := newInviter(t), t.TempDir()
	for _, name := range []string{"vpn.yaml", "vpn.key"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := joiner(t).joinAs(t.Context(), i.link, dir, "vpn")
		if want := "culvert down vpn; rm " + dir + "/vpn.yaml " + dir + "/vpn.key"; err == nil || !strings.Contains(err.Error(), want) || filesIn(t, dir) != name || len(i.asked) > 0 {
			t.Errorf("%s: %v; there are %s", name, err, filesIn(t, dir))
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func TestSayAfter(t *testing.T) {
	out := &lockedBuffer{}
	p := newProgram(nil, nil, out)
	if p.sayAfter(time.Hour, "late")(); out.b.Len() != 0 {
		t.Errorf("it was stopped, and said %s", &out.b)
	}
	stop := p.sayAfter(0, "no answer yet")
	for said := false; !said; time.Sleep(time.Millisecond) {
		out.mu.Lock()
		said = out.b.Len() > 0
		out.mu.Unlock()
	}
	if stop(); out.b.String() != "culvert: no answer yet\n" {
		t.Errorf("it said %q", &out.b)
	}
}

// TestNoAuthenticator: no code is asked for where none can be right.
func TestNoAuthenticator(t *testing.T) {
	s := signingIn{p: newProgram(nil, io.Discard, io.Discard), instance: "vpn", again: true, codes: func() (string, error) {
		t.Error("a code is asked for")
		return "", io.EOF
	}}
	err := s.run(&control.SignIn{State: control.SignInCode, Note: server.NoAuthenticator})
	if err == nil || !strings.Contains(err.Error(), "no authenticator is enrolled") || !strings.Contains(err.Error(), "culvert client totp NAME") {
		t.Error(err)
	}
}
