package uapi

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/internal/lab"
	"culvert/tunnel"
)

// wgTool runs wg on one interface that a fake engine stands behind.
type wgTool struct {
	t       testing.TB
	program string
	name    string
	engine  *fakeEngine
}

var wgNames atomic.Int32

// newWG serves an engine where wg looks, under a name no other process uses.
func newWG(t testing.TB) *wgTool {
	lab.NeedRoot(t)
	w := &wgTool{t: t, program: lab.NeedProgram(t, "wg"), engine: newFakeEngine()}
	w.name = fmt.Sprintf("u%x-%d", os.Getpid(), wgNames.Add(1))
	l := mustListen(t, DefaultFolder, w.name)
	serve(t, NewServer(w.engine, Options{Logf: t.Logf}), l)
	return w
}

// run returns what wg prints on either output with those arguments, and whether it succeeded.
func (w *wgTool) run(args ...string) (string, bool) {
	w.t.Helper()
	output, err := exec.CommandContext(w.t.Context(), w.program, args...).CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		w.t.Fatal(err)
	}
	return string(output), err == nil
}

// must runs wg, which has to succeed, and returns what it prints.
func (w *wgTool) must(args ...string) string {
	w.t.Helper()
	output, ok := w.run(args...)
	if !ok {
		w.t.Fatalf("wg %s: %s", strings.Join(args, " "), output)
	}
	return output
}

// file writes a configuration file.
func (w *wgTool) file(text string) string {
	path := filepath.Join(w.t.TempDir(), "wg.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

type wgKeys struct {
	private   crypto.PrivateKey
	a, b      crypto.PublicKey
	preshared crypto.PresharedKey
}

func newWGKeys(t testing.TB) (k wgKeys) {
	generate := func() crypto.PrivateKey {
		p, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	k.private, k.a, k.b = generate(), generate().Public(), generate().Public()
	var err error
	if k.preshared, err = crypto.GeneratePresharedKey(); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWGConfigurationRoundTrip(t *testing.T) {
	w, k := newWG(t), newWGKeys(t)
	conf := fmt.Sprintf(`[Interface]
ListenPort = 51999
FwMark = 0x20
PrivateKey = %s

[Peer]
PublicKey = %s
PresharedKey = %s
AllowedIPs = 10.0.0.0/8, fd00::/8
Endpoint = 192.0.2.1:51820
PersistentKeepalive = 25

[Peer]
PublicKey = %s
AllowedIPs = 192.168.7.0/24
Endpoint = [2001:db8::1]:51821
`, k.private.Base64(), k.a, k.preshared.Base64(), k.b)
	w.must("setconf", w.name, w.file(conf))
	shown := w.must("showconf", w.name)
	for line := range strings.Lines(conf) {
		if line = strings.TrimSpace(line); !strings.Contains(shown, line) {
			t.Errorf("showconf lacks %q:\n%s", line, shown)
		}
	}
	// What wg shows sets the same tunnel up again.
	before := format(w.engine.Status())
	w.must("setconf", w.name, w.file(shown))
	if after := format(w.engine.Status()); after != before {
		t.Errorf("setconf of showconf's output changed\n%s\nto\n%s", before, after)
	}
	if names := strings.Fields(w.must("show", "interfaces")); !strings.Contains(" "+strings.Join(names, " ")+" ", " "+w.name+" ") {
		t.Errorf("show interfaces: %v, without %s", names, w.name)
	}
}

func TestWGShow(t *testing.T) {
	w, k := newWG(t), newWGKeys(t)
	w.must("set", w.name, "listen-port", "5", "fwmark", "0x10", "private-key", w.file(k.private.Base64()),
		"peer", k.a.Base64(), "preshared-key", w.file(k.preshared.Base64()), "endpoint", "[fe80::1%lo]:9",
		"persistent-keepalive", "3", "allowed-ips", "10.0.0.0/8,::/0",
		"peer", k.b.Base64())
	w.engine.mu.Lock()
	p := w.engine.peers[k.a]
	p.SentBytes, p.ReceivedBytes, p.LastHandshake = 1500, 1<<33, time.Unix(1700000000, 5)
	w.engine.mu.Unlock()
	if zone := p.Endpoint.Remote.Addr().Zone(); zone != "1" {
		t.Errorf("the loopback interface as a zone came out as %q", zone)
	}
	want := map[string]string{
		w.name: strings.Join([]string{k.private.Base64(), k.private.Public().Base64(), "5", "0x10"}, "\t"),
		k.a.Base64(): strings.Join([]string{k.a.Base64(), k.preshared.Base64(), "[fe80::1%lo]:9", "10.0.0.0/8,::/0", "1700000000",
			"8589934592", "1500", "3"}, "\t"),
		k.b.Base64(): strings.Join([]string{k.b.Base64(), "(none)", "(none)", "(none)", "0", "0", "0", "off"}, "\t"),
	}
	lines := strings.Split(strings.TrimSpace(w.must("show", w.name, "dump")), "\n")
	if len(lines) != len(want) {
		t.Fatalf("dump has %d lines, want %d: %q", len(lines), len(want), lines)
	}
	for i, line := range lines {
		name := w.name
		if i > 0 {
			name, _, _ = strings.Cut(line, "\t")
		}
		if line != want[name] {
			t.Errorf("dump: %q\nwant  %q", line, want[name])
		}
	}
	pretty := w.must("show", w.name)
	for _, part := range []string{"interface: " + w.name, "public key: " + k.private.Public().Base64(), "listening port: 5", "fwmark: 0x10",
		"8.00 GiB received, 1.46 KiB sent", "latest handshake: ", "preshared key: (hidden)", "persistent keepalive: every 3 seconds"} {
		if !strings.Contains(pretty, part) {
			t.Errorf("show lacks %q:\n%s", part, pretty)
		}
	}
}

func TestWGSet(t *testing.T) {
	w, k := newWG(t), newWGKeys(t)
	allowed := func(key crypto.PublicKey) string {
		p, ok := w.engine.peer(key)
		if !ok {
			return "no peer"
		}
		return fmt.Sprint(p.AllowedIPs)
	}
	w.must("set", w.name, "peer", k.a.Base64(), "allowed-ips", "10.0.0.0/8,10.1.0.0/16", "peer", k.b.Base64(), "allowed-ips", "10.2.0.0/16")
	w.must("set", w.name, "peer", k.b.Base64(), "allowed-ips", "10.1.0.0/16")
	if a, b := allowed(k.a), allowed(k.b); a != "[10.0.0.0/8]" || b != "[10.1.0.0/16]" {
		t.Errorf("an allowed IP moved: %s and %s", a, b)
	}
	w.must("set", w.name, "peer", k.a.Base64(), "preshared-key", w.file(k.preshared.Base64()), "persistent-keepalive", "7")
	if p, _ := w.engine.peer(k.a); !p.PresharedKey.Equal(k.preshared) || p.Keepalive != 7*time.Second || len(p.AllowedIPs) != 1 {
		t.Errorf("peer %+v", p)
	}
	w.must("set", w.name, "peer", k.a.Base64(), "preshared-key", "/dev/null", "persistent-keepalive", "off")
	if p, _ := w.engine.peer(k.a); !p.PresharedKey.IsZero() || p.Keepalive != 0 {
		t.Errorf("peer %+v", p)
	}
	w.must("set", w.name, "peer", k.a.Base64(), "remove")
	if got := allowed(k.a); got != "no peer" {
		t.Errorf("after remove: %s", got)
	}
	w.must("set", w.name, "fwmark", "0x20", "private-key", w.file(k.private.Base64()))
	w.must("set", w.name, "fwmark", "off", "private-key", "/dev/null")
	if s := w.engine.Status(); s.Mark != 0 || !s.PrivateKey.IsZero() {
		t.Errorf("mark %d, private key there: %v", s.Mark, !s.PrivateKey.IsZero())
	}
}

func TestWGSyncconf(t *testing.T) {
	w, k := newWG(t), newWGKeys(t)
	w.must("set", w.name, "peer", k.a.Base64(), "allowed-ips", "10.0.0.0/8", "peer", k.b.Base64(), "allowed-ips", "10.2.0.0/16")
	var changes []tunnel.Change
	w.engine.mu.Lock()
	w.engine.configure = func(c tunnel.Change) error {
		changes = append(changes, c)
		return nil
	}
	w.engine.mu.Unlock()
	conf := fmt.Sprintf("[Interface]\nListenPort = 7\n[Peer]\nPublicKey = %s\nAllowedIPs = 10.0.0.0/8\n", k.a)
	w.must("syncconf", w.name, w.file(conf))
	if len(changes) != 1 || changes[0].ReplacePeers {
		t.Fatalf("syncconf made %d changes %+v", len(changes), changes)
	}
	removed := false
	for _, p := range changes[0].Peers {
		if p.Remove {
			removed = true
			if p.PublicKey != k.b {
				t.Errorf("removes %v", p.PublicKey)
			}
		}
	}
	if !removed {
		t.Errorf("the peer that has gone is not removed: %+v", changes[0])
	}
	w.engine.mu.Lock()
	w.engine.configure = nil
	w.engine.mu.Unlock()
	w.must("syncconf", w.name, w.file(conf))
	if s := w.engine.Status(); len(s.Peers) != 1 || s.Peers[0].PublicKey != k.a || s.ListenPort != 7 {
		t.Errorf("after syncconf: %+v", s)
	}
}

// TestWGErrors: what wg prints of an error is the error.
func TestWGErrors(t *testing.T) {
	w := newWG(t)
	for errno, text := range map[error]string{
		syscall.EADDRINUSE: "Address already in use",
		syscall.EINVAL:     "Invalid argument",
		fmt.Errorf("%w: own key", tunnel.ErrInvalidChange): "Invalid argument",
		os.ErrDeadlineExceeded:                             "Input/output error",
	} {
		w.engine.mu.Lock()
		w.engine.configure = func(tunnel.Change) error { return fmt.Errorf("configuring: %w", errno) }
		w.engine.mu.Unlock()
		if output, ok := w.run("set", w.name, "listen-port", "1"); ok || !strings.Contains(output, text) {
			t.Errorf("%v: ok %v, %q, want %q", errno, ok, output, text)
		}
	}
}

// TestWGCleansUp: wg removes a socket nobody listens on, and leaves one alone that is being listened on.
func TestWGCleansUp(t *testing.T) {
	w := newWG(t)
	l := mustListen(t, DefaultFolder, w.name+"x")
	if err := os.Remove(l.Path()); err != nil {
		t.Fatal(err)
	}
	awaitRemoved(t, l)
	stale(t, l.Path())
	if output, ok := w.run("show", w.name+"x"); ok {
		t.Errorf("show of a stale socket: %s", output)
	}
	if exists(l.Path()) {
		t.Error("wg left a stale socket")
		os.Remove(l.Path())
	}
	w.must("show", w.name)
}

func TestWGManyPeers(t *testing.T) {
	const peers = 5000
	w := newWG(t)
	var conf strings.Builder
	conf.WriteString("[Interface]\nListenPort = 9\n")
	for i := range peers {
		k := crypto.PublicKey{31: 1, 0: byte(i), 1: byte(i >> 8)}
		fmt.Fprintf(&conf, "[Peer]\nPublicKey = %s\nAllowedIPs = 10.%d.%d.0/32,fd00::%x/128\nEndpoint = 192.0.2.1:%d\n", k, i>>8, i&255, i, i+1)
	}
	path := w.file(conf.String())
	w.must("setconf", w.name, path)
	if lines := strings.Count(w.must("show", w.name, "dump"), "\n"); lines != peers+1 {
		t.Errorf("dump has %d lines, want %d", lines, peers+1)
	}
	w.must("syncconf", w.name, path)
	if n := len(w.engine.Status().Peers); n != peers {
		t.Errorf("%d peers after syncconf", n)
	}
}
