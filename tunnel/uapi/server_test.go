package uapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel"
)

// script is a connection to a client that has said all it will say and takes every answer.
type script struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (s *script) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s *script) Close() error                { return nil }

// talk returns the answers to a conversation.
func talk(s *Server, text string) string {
	c := &script{in: strings.NewReader(text)}
	s.converse(c)
	return c.out.String()
}

func TestGet(t *testing.T) {
	f := newFakeEngine()
	s := NewServer(f, Options{})
	if got, want := talk(s, "get=1\n\n"), "errno=0\n\n"; got != want {
		t.Fatalf("an empty tunnel reads %q, want %q", got, want)
	}
	f.status.PrivateKey, _ = crypto.ParsePrivateKeyHex(hexKey("c"))
	f.status.ListenPort, f.status.Mark = 51820, 0x20
	preshared, _ := crypto.ParsePresharedKeyHex(hexKey("d"))
	a, b := publicKey(t, "a"), publicKey(t, "b")
	f.peers[a] = &tunnel.PeerStatus{
		PublicKey: a, PresharedKey: preshared,
		Endpoint:      transport.Endpoint{Remote: netip.MustParseAddrPort("[fe80::1%3]:51821"), Source: netip.MustParseAddr("fe80::2"), Interface: 3},
		AllowedIPs:    []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")},
		Keepalive:     25 * time.Second,
		LastHandshake: time.Unix(1700000000, 123456789), SentBytes: 1 << 40, ReceivedBytes: 12,
	}
	f.peers[b] = &tunnel.PeerStatus{PublicKey: b}
	want := "private_key=" + hexKey("c") + `
listen_port=51820
fwmark=32
public_key=` + hexKey("a") + `
preshared_key=` + hexKey("d") + `
protocol_version=1
endpoint=[fe80::1%3]:51821
last_handshake_time_sec=1700000000
last_handshake_time_nsec=123456789
tx_bytes=1099511627776
rx_bytes=12
persistent_keepalive_interval=25
allowed_ip=10.0.0.0/8
allowed_ip=::/0
public_key=` + hexKey("b") + `
preshared_key=` + hexKey("0") + `
protocol_version=1
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
errno=0

`
	if got := talk(s, "get=1\n\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestConversation(t *testing.T) {
	pk := "public_key=" + hexKey("a") + "\n"
	tests := []struct{ name, text, want string }{
		{"a probe", "", ""},
		{"several operations", "set=1\nlisten_port=5\n\nget=1\n\nset=1\nfwmark=1\n\n", "errno=0\n\nlisten_port=5\nerrno=0\n\nerrno=0\n\n"},
		{"a refused one changes nothing and does not end it", "set=1\nlisten_port=5\n" + pk + "nonsense=1\n\nget=1\n\n", "errno=-22\n\nerrno=0\n\n"},
		{"cut off", "set=1\nlisten_port=5\n", ""},
		{"get cut off", "get=1\n", ""},
		{"get with lines", "get=1\nlisten_port=5\n\nget=1\n\n", "errno=22\n\nerrno=0\n\n"},
		{"get with a long line", "get=1\n" + hexKey("listen") + "\n\nget=1\n\n", "errno=22\n\nerrno=0\n\n"},
		{"get with lines, cut off", "get=1\nlisten_port=5\n", ""},
		{"another version", "get=2\n\nget=1\n\n", "errno=-71\n\n"},
		{"no operation", "\nget=1\n\n", "errno=-71\n\n"},
		{"something else", hexKey("GET / HTTP/1.1\n"), ""},
		{"an endless operation", hexKey("name"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := talk(NewServer(newFakeEngine(), Options{}), tt.text); got != tt.want {
				t.Errorf("answers %q, want %q", got, tt.want)
			}
		})
	}
}

// TestEngineErrors: the engine's errno reaches the client, in the sign that wg turns into words.
func TestEngineErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, "errno=0\n\n"},
		{fmt.Errorf("listen: %w", syscall.EADDRINUSE), "errno=-98\n\n"},
		{errors.New("other"), "errno=-5\n\n"},
	} {
		var logged strings.Builder
		f := newFakeEngine()
		f.configure = func(tunnel.Change) error { return tt.err }
		s := NewServer(f, Options{Logf: func(format string, args ...any) { fmt.Fprintf(&logged, format, args...) }})
		if got := talk(s, "set=1\nlisten_port=1\n\n"); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
		if tt.err != nil && !strings.Contains(logged.String(), tt.err.Error()) {
			t.Errorf("%v: logged %q", tt.err, logged.String())
		}
	}
}

// TestSecretsAreErased: the keys of a change are gone when Configure has returned, those of a refused one never arrive, and the
// read buffer keeps none of them.
func TestSecretsAreErased(t *testing.T) {
	var seen tunnel.Change
	f := newFakeEngine()
	f.configure = func(c tunnel.Change) error {
		seen = c
		if c.PrivateKey.IsZero() || c.Peers[0].PresharedKey.IsZero() {
			t.Error("erased too early")
		}
		return nil
	}
	text := "private_key=" + hexKey("c") + "\npublic_key=" + hexKey("a") + "\npreshared_key=" + hexKey("d") + "\n\n"
	if got := talk(NewServer(f, Options{}), "set=1\n"+text); got != "errno=0\n\n" {
		t.Fatal(got)
	}
	if !seen.PrivateKey.IsZero() || !seen.Peers[0].PresharedKey.IsZero() {
		t.Error("keys are left in the change")
	}
	in := newLines(strings.NewReader(text + "get=1\n\n"))
	if _, err := readChange(in, testZone); err != nil {
		t.Fatal(err)
	}
	in.erase()
	if bytes.Contains(in.buf, []byte("cccccccc")) || bytes.Contains(in.buf, []byte("dddddddd")) {
		t.Error("keys are left in the read buffer")
	}
	if line, err := in.next(); string(line) != "get=1" || err != nil {
		t.Errorf("erasing lost what was not read: %q, %v", line, err)
	}
	var status tunnel.Status
	status.PrivateKey, _ = crypto.ParsePrivateKeyHex(hexKey("c"))
	out := newOutput(io.Discard)
	out.status(&status)
	if err := out.end(0); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out.buf[:cap(out.buf)], []byte("cccccccc")) {
		t.Error("the key is left in the write buffer")
	}
}

// pipe is a listener in memory.
type pipe struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipe() *pipe { return &pipe{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipe) dial(t testing.TB) net.Conn {
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	select {
	case p.conns <- there:
	case <-p.done:
		t.Fatal("closed")
	}
	return here
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipe) Addr() net.Addr { return nil }

// serve runs s on l and checks, at the end, that it stops when closed.
func serve(t testing.TB, s *Server, l net.Listener) {
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

func ask(t testing.TB, c net.Conn, operation string) string {
	t.Helper()
	if _, err := io.WriteString(c, operation); err != nil {
		t.Fatal(err)
	}
	return answer(t, c)
}

func answer(t testing.TB, c net.Conn) string {
	t.Helper()
	var text []byte
	buf := make([]byte, 64<<10)
	for !bytes.HasSuffix(text, []byte("\n\n")) {
		n, err := c.Read(buf)
		if text = append(text, buf[:n]...); err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
	}
	return string(text)
}

func TestServerServesManyAtOnce(t *testing.T) {
	l := newPipe()
	f := newFakeEngine()
	serve(t, NewServer(f, Options{}), l)
	var idle []net.Conn
	for range MaxConnections - 1 {
		idle = append(idle, l.dial(t))
	}
	last := l.dial(t)
	if got := ask(t, last, "set=1\nlisten_port=1\n\n"); got != "errno=0\n\n" {
		t.Fatal(got)
	}
	// All slots are taken: one more is not accepted until one is given back.
	here, there := net.Pipe()
	defer here.Close()
	select {
	case l.conns <- there:
		t.Fatal("accepted more than MaxConnections")
	default:
	}
	idle[0].Close()
	l.conns <- there
	if got := ask(t, here, "get=1\n\n"); got != "listen_port=1\nerrno=0\n\n" {
		t.Fatal(got)
	}
}

// TestCloseUnblocks: closing ends clients that say nothing, that stop within a transaction, and that don't take their answer,
// and waits for an operation on the engine.
func TestCloseUnblocks(t *testing.T) {
	l := newPipe()
	f := newFakeEngine()
	entered, leave := make(chan struct{}), make(chan struct{})
	ended := false
	f.configure = func(tunnel.Change) error {
		close(entered)
		<-leave
		ended = true
		return nil
	}
	s := NewServer(f, Options{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	l.dial(t)
	halfway := l.dial(t)
	if _, err := io.WriteString(halfway, "set=1\nlisten_port=1\n"); err != nil {
		t.Fatal(err)
	}
	deaf := l.dial(t)
	if _, err := io.WriteString(deaf, "get=1\n\n"); err != nil {
		t.Fatal(err)
	}
	busy := l.dial(t)
	if _, err := io.WriteString(busy, "set=1\n\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	select {
	case <-closed:
		t.Error("Close did not wait for the engine")
	default:
	}
	close(leave)
	if err := <-closed; err != nil || !ended {
		t.Errorf("Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := s.Serve(newPipe()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Close: %v", err)
	}
	if n, err := halfway.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes in answer to a transaction cut off", n)
	}
}
