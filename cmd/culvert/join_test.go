package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/crypto/enrolment"
	"culvert/server"
	"culvert/transport"
	"culvert/tunnel"
)

// inviter is a server on the loopback with one invitation, which answers what it is told to; nil is no answer.
type inviter struct {
	link  *server.Link
	asked chan crypto.PublicKey // the keys it was asked to take
	reply chan *server.EnrolAnswer
}

func newInviter(t *testing.T) *inviter {
	t.Helper()
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := enrolment.GenerateSecret()
	if err != nil {
		t.Fatal(err)
	}
	end, psk, err := enrolment.Derive(secret, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	i := &inviter{asked: make(chan crypto.PublicKey, 8), reply: make(chan *server.EnrolAnswer, 8)}
	var engine *tunnel.Tunnel
	var answering sync.WaitGroup
	ready := make(chan struct{})
	engine, err = tunnel.New(newNoDevice(), transport.UDP{}, tunnel.Options{Pushed: func(from crypto.PublicKey, subject string, document []byte) {
		<-ready
		request, err := server.DecodeEnrolRequest(document)
		if err != nil || subject != server.SubjectEnrol {
			t.Errorf("%s: %v", subject, err)
			return
		}
		i.asked <- request.Key
		answering.Go(func() { // a document is not to be pushed from in here
			if answer := <-i.reply; answer != nil {
				b, err := answer.Encode()
				if err == nil {
					err = engine.Push(from, server.SubjectEnrolled, b)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	t.Cleanup(func() { close(i.reply); answering.Wait(); engine.Close() })
	// A port that was free a moment ago: the engine does not tell which one it picks by itself.
	free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := free.LocalAddr().(*net.UDPAddr).AddrPort()
	free.Close()
	wire, port := tunnel.Culvert, at.Port()
	if err := engine.Configure(tunnel.Change{PrivateKey: &key, ListenPort: &port, Peers: []tunnel.PeerChange{{
		PublicKey: end.Public(), Wire: &wire, PresharedKey: &psk,
	}}}); err != nil {
		t.Fatal(err)
	}
	i.link = &server.Link{Endpoints: []string{at.String()}, ServerKey: key.Public(), Secret: secret}
	return i
}

// unanswered is an address where nobody answers; from the first datagram on, came is closed.
func unanswered(t *testing.T) (endpoint string, came chan struct{}) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	came = make(chan struct{})
	go func() {
		if _, _, err := c.ReadFromUDP(make([]byte, 2048)); err == nil {
			close(came)
		}
	}()
	return c.LocalAddr().String(), came
}

func joiner(t *testing.T) *program {
	return newProgram(strings.NewReader(""), io.Discard, io.Discard)
}

func filesIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

// lose joins, and has the answer lost.
func (i *inviter) lose(t *testing.T, dir string) (key crypto.PublicKey, err error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	i.reply <- nil
	go func() { key = <-i.asked; cancel(errAskedToStop) }()
	_, err = joiner(t).joinAs(ctx, i.link, dir, "vpn")
	if !errors.Is(err, errAskedToStop) {
		t.Fatalf("join: %v", err)
	}
	return key, err
}

// TestJoinWithoutAnAnswer: the server may have taken the key, which is therefore the one that it is asked to take the next time.
func TestJoinWithoutAnAnswer(t *testing.T) {
	i, dir := newInviter(t), t.TempDir()
	key, err := i.lose(t, dir)
	if path := filepath.Join(dir, "vpn.key"); !strings.Contains(err.Error(), path+" is kept") || filesIn(t, dir) != "vpn.joining vpn.key" {
		t.Fatalf("%v; there are %s", err, filesIn(t, dir))
	}
	if st, err := os.Stat(filepath.Join(dir, "vpn.joining")); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if again, _ := i.lose(t, dir); again != key {
		t.Error("another key the second time")
	}
	// What is not heard of now may have happened before.
	endpoint, came := unanswered(t)
	away := *i.link
	away.Endpoints = []string{endpoint}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-came; cancel(errAskedToStop) }()
	if _, err := joiner(t).joinAs(ctx, &away, dir, "vpn"); !errors.Is(err, errAskedToStop) || filesIn(t, dir) != "vpn.joining vpn.key" {
		t.Errorf("%v; there are %s", err, filesIn(t, dir))
	}
	// Another invitation has nothing to do with it.
	if _, err := joiner(t).joinAs(t.Context(), newInviter(t).link, dir, "vpn"); err == nil || !strings.Contains(err.Error(), "another invitation") {
		t.Errorf("by another invitation: %v", err)
	}
	i.reply <- &server.EnrolAnswer{Accepted: true}
	path, err := joiner(t).joinAs(t.Context(), i.link, dir, "vpn")
	if err != nil || path != filepath.Join(dir, "vpn.yaml") || filesIn(t, dir) != "vpn.key vpn.yaml" {
		t.Fatalf("%s, %v; there are %s", path, err, filesIn(t, dir))
	}
	text, err := os.ReadFile(filepath.Join(dir, "vpn.key"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := crypto.ParsePrivateKey(strings.TrimSpace(string(text)))
	if last := <-i.asked; err != nil || last != key || kept.Public() != key {
		t.Errorf("the key is another: %v", err)
	}
}

func TestJoinIsRefused(t *testing.T) {
	i, dir := newInviter(t), t.TempDir()
	for range 2 { // the second with a key that was kept
		i.reply <- &server.EnrolAnswer{Reason: "the invitation is used up"}
		if _, err := joiner(t).joinAs(t.Context(), i.link, dir, "vpn"); err == nil || !strings.Contains(err.Error(), "used up") || filesIn(t, dir) != "" {
			t.Errorf("%v; there are %s", err, filesIn(t, dir))
		}
		<-i.asked
		if _, err := i.lose(t, dir); filesIn(t, dir) != "vpn.joining vpn.key" {
			t.Errorf("%v; there are %s", err, filesIn(t, dir))
		}
	}
}

// TestJoinOfAKeyThatIsThere: what no join has left is nobody's to use.
func TestJoinOfAKeyThatIsThere(t *testing.T) {
	var dir, path string
	other, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func() error{
		"another key":          func() error { return os.WriteFile(path, []byte(other.Base64()+"\n"), 0o600) },
		"no key":               func() error { return os.WriteFile(path, []byte("nonsense\n"), 0o600) },
		"a key others can see": func() error { return os.Chmod(path, 0o644) },
		"no note":              func() error { return os.Remove(filepath.Join(dir, "vpn.joining")) },
	} {
		i := newInviter(t)
		dir = t.TempDir()
		path = filepath.Join(dir, "vpn.key")
		i.lose(t, dir)
		if err := change(); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = joiner(t).joinAs(t.Context(), i.link, dir, "vpn")
		after, reading := os.ReadFile(path)
		if err == nil || !strings.Contains(err.Error(), path) || reading != nil || string(after) != string(before) || len(i.asked) > 0 {
			t.Errorf("%s: %v, %v", what, err, reading)
		}
	}
}

// TestJoinIsInterrupted: nothing was sent that a server could have taken, and nothing is left behind.
func TestJoinIsInterrupted(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		i, dir := newInviter(t), t.TempDir()
		endpoint, came := unanswered(t)
		i.link.Endpoints = []string{endpoint}
		text, err := i.link.Encode()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe, "join", "-", "--name", "vpn", "--dir", dir, "--no-up")
		cmd.Args[0] = "culvert"
		cmd.Stdin = strings.NewReader(text + "\n")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-came:
		case <-time.After(time.Minute):
			t.Error("it does not ask")
		}
		if got := filesIn(t, dir); got != "vpn.joining vpn.key" {
			t.Errorf("before the signal there are %s", got)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Error(err)
		}
		err = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitFailure || filesIn(t, dir) != "" || !strings.Contains(out.String(), errAskedToStop.Error()) {
			t.Errorf("%v: %v, there are %s\n%s", signal, err, filesIn(t, dir), out.String())
		}
	}
}
