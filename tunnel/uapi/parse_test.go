package uapi

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel"
)

// hexKey returns a key of one repeated digit.
func hexKey(digit string) string { return strings.Repeat(digit, 64) }

func publicKey(t testing.TB, digit string) crypto.PublicKey {
	k, err := crypto.ParsePublicKeyHex(hexKey(digit))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testZone(name string) (int, error) {
	if name == "eth0" {
		return 7, nil
	}
	return 0, errors.New("no such interface")
}

func parse(text string) (tunnel.Change, error) {
	return readChange(newLines(strings.NewReader(text)), testZone)
}

func TestReadChange(t *testing.T) {
	a, b := publicKey(t, "a"), publicKey(t, "b")
	private, _ := crypto.ParsePrivateKeyHex(hexKey("c"))
	preshared, _ := crypto.ParsePresharedKeyHex(hexKey("d"))
	pk := func(digit string) string { return "public_key=" + hexKey(digit) + "\n" }
	peer := func(p tunnel.PeerChange) tunnel.Change { return tunnel.Change{Peers: []tunnel.PeerChange{p}} }
	endpoint := func(s string) *transport.Endpoint {
		return &transport.Endpoint{Remote: netip.MustParseAddrPort(s)}
	}
	allow := func(texts ...string) (changes []tunnel.AllowedIPChange) {
		for _, text := range texts {
			text, remove := strings.CutPrefix(text, "-")
			changes = append(changes, tunnel.AllowedIPChange{Prefix: netip.MustParsePrefix(text), Remove: remove})
		}
		return changes
	}
	tests := []struct {
		name, text string
		want       tunnel.Change
	}{
		{"nothing", "", tunnel.Change{}},
		{"private key", "private_key=" + hexKey("c") + "\n", tunnel.Change{PrivateKey: &private}},
		{"no private key", "private_key=" + hexKey("0") + "\n", tunnel.Change{PrivateKey: new(crypto.PrivateKey)}},
		{"port", "listen_port=51820\n", tunnel.Change{ListenPort: new(uint16(51820))}},
		{"free port", "listen_port=0\n", tunnel.Change{ListenPort: new(uint16(0))}},
		{"largest port", "listen_port=65535\n", tunnel.Change{ListenPort: new(uint16(65535))}},
		{"mark", "fwmark=4294967295\n", tunnel.Change{Mark: new(uint32(1<<32 - 1))}},
		{"no mark", "fwmark=0\n", tunnel.Change{Mark: new(uint32(0))}},
		{"replace peers", "replace_peers=true\n", tunnel.Change{ReplacePeers: true}},
		{"the last of a device's lines counts", "listen_port=1\nlisten_port=2\n", tunnel.Change{ListenPort: new(uint16(2))}},
		{"peer", pk("a"), peer(tunnel.PeerChange{PublicKey: a})},
		{"capital digits", pk("A"), peer(tunnel.PeerChange{PublicKey: a})},
		{"protocol version", pk("a") + "protocol_version=1\n", peer(tunnel.PeerChange{PublicKey: a})},
		{"preshared key", pk("a") + "preshared_key=" + hexKey("d") + "\n", peer(tunnel.PeerChange{PublicKey: a, PresharedKey: &preshared})},
		{"no preshared key", pk("a") + "preshared_key=" + hexKey("0") + "\n",
			peer(tunnel.PeerChange{PublicKey: a, PresharedKey: new(crypto.PresharedKey)})},
		{"IPv4 endpoint", pk("a") + "endpoint=192.0.2.1:51820\n", peer(tunnel.PeerChange{PublicKey: a, Endpoint: endpoint("192.0.2.1:51820")})},
		{"IPv6 endpoint", pk("a") + "endpoint=[2001:db8::1]:1\n", peer(tunnel.PeerChange{PublicKey: a, Endpoint: endpoint("[2001:db8::1]:1")})},
		{"mapped endpoint", pk("a") + "endpoint=[::ffff:192.0.2.1]:1\n", peer(tunnel.PeerChange{PublicKey: a, Endpoint: endpoint("192.0.2.1:1")})},
		{"zone by index", pk("a") + "endpoint=[fe80::1%03]:1\n", peer(tunnel.PeerChange{PublicKey: a, Endpoint: endpoint("[fe80::1%3]:1")})},
		{"zone by name", pk("a") + "endpoint=[fe80::1%eth0]:1\n", peer(tunnel.PeerChange{PublicKey: a, Endpoint: endpoint("[fe80::1%7]:1")})},
		{"zone of a global address", pk("a") + "endpoint=[2001:db8::1%gone]:1\n",
			peer(tunnel.PeerChange{PublicKey: a, Endpoint: endpoint("[2001:db8::1]:1")})},
		{"keepalive", pk("a") + "persistent_keepalive_interval=25\n", peer(tunnel.PeerChange{PublicKey: a, Keepalive: new(25 * time.Second)})},
		{"longest keepalive", pk("a") + "persistent_keepalive_interval=65535\n",
			peer(tunnel.PeerChange{PublicKey: a, Keepalive: new(65535 * time.Second)})},
		{"no keepalive", pk("a") + "persistent_keepalive_interval=0\n", peer(tunnel.PeerChange{PublicKey: a, Keepalive: new(time.Duration(0))})},
		{"allowed IPs", pk("a") + "allowed_ip=10.1.2.3/8\nallowed_ip=2001:db8::5/32\nallowed_ip=-192.0.2.1/32\nallowed_ip=0.0.0.0/0\n",
			peer(tunnel.PeerChange{PublicKey: a, AllowedIPs: allow("10.0.0.0/8", "2001:db8::/32", "-192.0.2.1/32", "0.0.0.0/0")})},
		{"allowed IPs replaced", pk("a") + "replace_allowed_ips=true\nallowed_ip=::/0\n",
			peer(tunnel.PeerChange{PublicKey: a, ReplaceAllowedIPs: true, AllowedIPs: allow("::/0")})},
		{"allowed IPs before they are replaced", pk("a") + "allowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\nallowed_ip=::/0\n",
			peer(tunnel.PeerChange{PublicKey: a, ReplaceAllowedIPs: true, AllowedIPs: allow("::/0")})},
		{"update only", pk("a") + "update_only=true\n", peer(tunnel.PeerChange{PublicKey: a, UpdateOnly: true})},
		{"remove", pk("a") + "remove=true\n", peer(tunnel.PeerChange{PublicKey: a, Remove: true})},
		{"remove whatever else is said", pk("a") + "endpoint=192.0.2.1:1\nremove=true\nupdate_only=true\npreshared_key=" + hexKey("d") + "\nallowed_ip=::/0\n",
			peer(tunnel.PeerChange{PublicKey: a, Remove: true, UpdateOnly: true})},
		{"peers, one of them twice", "fwmark=1\n" + pk("a") + "persistent_keepalive_interval=1\n" + pk("b") + pk("a") + "remove=true\n",
			tunnel.Change{Mark: new(uint32(1)), Peers: []tunnel.PeerChange{
				{PublicKey: a, Keepalive: new(time.Second)}, {PublicKey: b}, {PublicKey: a, Remove: true},
			}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := newLines(strings.NewReader(tt.text + "\nget=1\n"))
			got, err := readChange(in, testZone)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if line, err := in.next(); string(line) != "get=1" || err != nil {
				t.Errorf("the next operation reads %q, %v", line, err)
			}
		})
	}
}

func TestReadChangeRefuses(t *testing.T) {
	secret := strings.Repeat("5e", 31)
	pk := "public_key=" + hexKey("a")
	tests := []struct {
		text  string // lines separated by spaces, behind set=1
		line  int
		errno syscall.Errno
	}{
		{"nonsense", 2, syscall.EINVAL},
		{"=", 2, syscall.EINVAL},
		{"unknown=1", 2, syscall.EINVAL},
		{"fwmark=1 unknown=1 listen_port=70000", 3, syscall.EINVAL},
		{"private_key=" + secret, 2, syscall.EINVAL},
		{"private_key=" + secret + "zz", 2, syscall.EINVAL},
		{"private_key=" + secret + "5e5e", 2, syscall.EINVAL},
		{"private_key=", 2, syscall.EINVAL},
		{"listen_port=65536", 2, syscall.EINVAL},
		{"listen_port=-1", 2, syscall.EINVAL},
		{"listen_port=+1", 2, syscall.EINVAL},
		{"listen_port=", 2, syscall.EINVAL},
		{"listen_port=1\r", 2, syscall.EINVAL},
		{"listen_port=0x1", 2, syscall.EINVAL},
		{"fwmark=4294967296", 2, syscall.EINVAL},
		{"fwmark=99999999999999999999", 2, syscall.EINVAL},
		{"fwmark=0x20", 2, syscall.EINVAL},
		{"replace_peers=false", 2, syscall.EINVAL},
		{"replace_peers=1", 2, syscall.EINVAL},
		{"endpoint=192.0.2.1:1", 2, syscall.EINVAL}, // not of a peer
		{"protocol_version=1", 2, syscall.EINVAL},
		{"public_key=" + hexKey("a")[1:], 2, syscall.EINVAL},
		{"public_key=" + hexKey("g"), 2, syscall.EINVAL},
		{pk + " listen_port=1", 3, syscall.EINVAL}, // not of the device
		{pk + " private_key=" + hexKey("a"), 3, syscall.EINVAL},
		{pk + " replace_peers=true", 3, syscall.EINVAL},
		{pk + " remove=false", 3, syscall.EINVAL},
		{pk + " update_only=", 3, syscall.EINVAL},
		{pk + " replace_allowed_ips=yes", 3, syscall.EINVAL},
		{pk + " preshared_key=" + secret, 3, syscall.EINVAL},
		{pk + " preshared_key=" + secret + "zz", 3, syscall.EINVAL},
		{pk + " persistent_keepalive_interval=65536", 3, syscall.EINVAL},
		{pk + " persistent_keepalive_interval=off", 3, syscall.EINVAL},
		{pk + " protocol_version=2", 3, syscall.EINVAL},
		{pk + " endpoint=example.net:51820", 3, syscall.EINVAL},
		{pk + " endpoint=192.0.2.1", 3, syscall.EINVAL},
		{pk + " endpoint=192.0.2.1:0", 3, syscall.EINVAL},
		{pk + " endpoint=192.0.2.1:65536", 3, syscall.EINVAL},
		{pk + " endpoint=2001:db8::1:51820", 3, syscall.EINVAL},
		{pk + " endpoint=[fe80::1%gone]:1", 3, syscall.EINVAL},
		{pk + " endpoint=[fe80::1%0]:1", 3, syscall.EINVAL},
		{pk + " endpoint=[fe80::1%4294967296]:1", 3, syscall.EINVAL},
		{pk + " endpoint=", 3, syscall.EINVAL},
		{pk + " allowed_ip=10.0.0.0", 3, syscall.EINVAL},
		{pk + " allowed_ip=10.0.0.0/33", 3, syscall.EINVAL},
		{pk + " allowed_ip=--10.0.0.0/8", 3, syscall.EINVAL},
		{pk + " allowed_ip=fe80::1%1/64", 3, syscall.EINVAL},
		{pk + " allowed_ip=-", 3, syscall.EINVAL},
		{pk + " allowed_ip=", 3, syscall.EINVAL},
		{pk + " last_handshake_time_sec=1", 3, syscall.EINVAL},
		{"fwmark=1 " + strings.Repeat("x", 300) + " fwmark=1", 3, syscall.EINVAL},
		{strings.Repeat("x", 3*readBuffer) + " fwmark=1", 2, syscall.EINVAL},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.80s", tt.text), func(t *testing.T) {
			in := newLines(strings.NewReader(strings.ReplaceAll(tt.text, " ", "\n") + "\nlisten_port=1\n\nget=1\n"))
			change, err := readChange(in, testZone)
			refusal, ok := errors.AsType[*RequestError](err)
			if !ok {
				t.Fatalf("accepted as %+v, %v", change, err)
			}
			if refusal.Line != tt.line || !errors.Is(err, tt.errno) || errnoOf(err) != tt.errno {
				t.Errorf("line %d, errno %v: %v", refusal.Line, refusal.Errno, err)
			}
			if strings.Contains(err.Error(), "5e5e") {
				t.Errorf("the error quotes a secret: %v", err)
			}
			if !reflect.DeepEqual(change, tunnel.Change{}) {
				t.Errorf("refused with a change %+v", change)
			}
			if line, err := in.next(); string(line) != "get=1" || err != nil {
				t.Errorf("the next operation reads %q, %v", line, err)
			}
		})
	}
}

// TestCutOff: a transaction without its empty line is none.
func TestCutOff(t *testing.T) {
	for _, text := range []string{"", "listen_port=1", "listen_port=1\n", "unknown=1\n", strings.Repeat("x", 1000)} {
		change, err := parse(text)
		if _, ok := errors.AsType[*RequestError](err); err == nil || ok {
			t.Errorf("%.20q: %+v, %v", text, change, err)
		}
	}
}

func TestTransactionTooLarge(t *testing.T) {
	const limit = 64 << 10
	limited := func(r io.Reader) *lines {
		in := newLines(r)
		in.limit = limit
		return in
	}
	const pk, line = "public_key=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", "allowed_ip=::/0\n"
	fitting := (limit - len(pk)) / len(line)
	text := func(lines int) io.Reader {
		return io.MultiReader(strings.NewReader(pk), io.LimitReader(repeat(line), int64(lines*len(line))), strings.NewReader("\nget=1\n"))
	}
	if c, err := readChange(limited(text(fitting)), testZone); err != nil || len(c.Peers[0].AllowedIPs) != fitting {
		t.Errorf("just fitting: %v", err)
	}
	in := limited(text(fitting + 1))
	if _, err := readChange(in, testZone); errnoOf(err) != syscall.E2BIG {
		t.Errorf("just too large: %v", err)
	}
	if line, err := in.next(); string(line) != "get=1" || err != nil {
		t.Errorf("the next operation reads %q, %v", line, err)
	}
	// Without an end there is no answer.
	_, err := readChange(limited(repeat(line)), testZone)
	if _, ok := errors.AsType[*RequestError](err); err == nil || ok {
		t.Errorf("endless transaction: %v", err)
	}
	if _, err = readChange(limited(repeat("x")), testZone); !errors.Is(err, errEndlessLine) {
		t.Errorf("endless line: %v", err)
	}
	if err := skipOperation(limited(repeat(line)), false); err == nil {
		t.Error("skipped an endless operation")
	}
}

// repeat is an endless reader of one line.
func repeat(line string) io.Reader { return &repeater{text: strings.Repeat(line, 1000)} }

type repeater struct {
	text string
	off  int
}

func (r *repeater) Read(b []byte) (n int, err error) {
	n = copy(b, r.text[r.off:])
	r.off = (r.off + n) % len(r.text)
	return n, nil
}

// TestLines: the same lines come out however the text arrives.
func TestLines(t *testing.T) {
	longest := strings.Repeat("y", maxLine)
	text := "a\n\n" + longest + "\n" + longest + "y\n" + strings.Repeat("z", 5*readBuffer) + "\n" + strings.Repeat("line\n", readBuffer) + "end\nrest"
	want := append([]string{"a", "", longest, "(too long)", "(too long)"}, strings.Split(strings.Repeat("line ", readBuffer)+"end", " ")...)
	for name, r := range map[string]io.Reader{
		"at once":           strings.NewReader(text),
		"byte by byte":      iotest.OneByteReader(strings.NewReader(text)),
		"half":              iotest.HalfReader(strings.NewReader(text)),
		"error with data":   iotest.DataErrReader(strings.NewReader(text)),
		"newline at border": io.MultiReader(strings.NewReader(text[:3+maxLine]), strings.NewReader(text[3+maxLine:])),
	} {
		t.Run(name, func(t *testing.T) {
			in := newLines(r)
			for i, want := range want {
				line, err := in.next()
				if err == errLineTooLong {
					line, err = []byte("(too long)"), nil
				}
				if err != nil || string(line) != want {
					t.Fatalf("line %d: %.20q, %v, want %.20q", i, line, err, want)
				}
				if i%100 == 0 {
					in.erase()
				}
			}
			if line, err := in.next(); err != io.ErrUnexpectedEOF {
				t.Errorf("at the end: %q, %v", line, err)
			}
		})
	}
	if _, err := newLines(strings.NewReader("")).next(); err != io.EOF {
		t.Errorf("empty: %v", err)
	}
}

func TestErrno(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{syscall.EADDRINUSE, syscall.EADDRINUSE},
		{fmt.Errorf("port: %w", &osError{syscall.EACCES}), syscall.EACCES},
		{errors.New("other"), syscall.EIO},
		{syscall.Errno(0), syscall.EIO},
		{fmt.Errorf("%w: no", tunnel.ErrInvalidChange), syscall.EINVAL},
		{&RequestError{Errno: syscall.E2BIG}, syscall.E2BIG},
	} {
		if got := errnoOf(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

type osError struct{ err error }

func (e *osError) Error() string { return "call: " + e.err.Error() }
func (e *osError) Unwrap() error { return e.err }
