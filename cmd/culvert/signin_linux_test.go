package main

import (
	"crypto/sha1"
	"encoding/base32"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/server/oidc/oidctest"
	"culvert/server/totp"
)

// authenticator is an app that was given an otpauth link.
type authenticator struct{ secret []byte }

func newAuthenticator(t *testing.T, link string) *authenticator {
	t.Helper()
	u, err := url.Parse(strings.TrimSpace(link))
	if err != nil || u.Scheme != "otpauth" {
		t.Fatalf("%q is no link: %v", link, err)
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return &authenticator{secret}
}

// code is that of a period from now: 1 is the next.
func (a *authenticator) code(ahead int) string {
	return totp.Code(sha1.New, a.secret, totp.Step(time.Now())+uint64(ahead), totp.Digits)
}

func (s *site) signin(code string, args ...string) (out string, code2 int) {
	s.t.Helper()
	cmd := s.command(append([]string{"signin", "vpn0", "--code-file", "-"}, args...)...)
	cmd.Stdin = strings.NewReader(code + "\n")
	return s.finish(cmd)
}

// pings reports whether anything passes each way.
func pings(t *testing.T, from *site, to string) bool {
	t.Helper()
	return from.host.Ping(netip.MustParseAddr(to)) == nil
}

// A client of a group with codes: nothing passes before a right one, nothing is pushed, and a code is good once; a restart of the server
// asks nobody again, and when the time is up it asks.
func TestSignInByCode(t *testing.T) {
	t.Parallel()
	j := newJoined(t)
	group := func(lasts string) {
		j.configure("        field: {sign_in: {totp: true, lasts: " + lasts + "}}\n")
	}
	j.server.host.Sysctl("net/ipv4/ip_forward", "1") // clients reach each other through it
	group("1h")
	j.server.must("up", j.server.file)
	log := filepath.Join(j.server.run, "run/culvert/site.log")

	// Who cannot sign in is refused.
	j.server.refused(1, "cannot sign in", "client", "add", "phone", "--wireguard", "--group", "field")
	j.server.refused(1, "no such client", "client", "totp", "alice")
	link := j.invite("alice", "--group", "field")
	otp := j.server.must("client", "totp", "alice")
	app := newAuthenticator(t, otp)
	if out := j.server.must("client", "totp", "alice", "--qr"); !strings.Contains(out, "█") {
		t.Errorf("no QR code:\n%s", out)
	} else {
		otp, _, _ = strings.Cut(out, "\n")
		app = newAuthenticator(t, otp)
	}
	if out, code := j.bob.join(j.invite("bob")); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	j.bob.eventually("addresses", "10.20.0.2/24", "ip", "-br", "address", "show", "vpn0")
	if out, code := j.alice.join(link); code != 0 {
		t.Fatalf("join: %d\n%s\nserver:\n%s", code, out, read(t, log))
	}
	waits := func() bool {
		return strings.Contains(j.alice.must("status"), "waits for sign-in (culvert signin vpn0)")
	}
	lab.Eventually(t, patience, "the sign-in is asked for", waits)

	// Nothing has been pushed, and nothing passes though the client sets itself up as it would be told to.
	if out := j.alice.host.Shell("ip", "-br", "address", "show", "vpn0"); strings.Contains(out, "10.20.0.3") {
		t.Errorf("addresses before the sign-in: %s", out)
	}
	j.alice.must("down", "vpn0")
	forward := filepath.Join(j.alice.dir, "forward.yaml")
	if err := os.WriteFile(forward, []byte(fmt.Sprintf(`version: 1
tunnels:
  vpn1:
    private_key_file: vpn0.key
    addresses: [10.20.0.3/24]
    peers: {server: {public_key: %q, endpoints: ["192.0.2.1:2000"], allowed_ips: [10.20.0.0/24], keepalive: 1s}}
`, j.server.pub)), 0o600); err != nil {
		t.Fatal(err)
	}
	j.alice.must("up", forward)
	lab.Eventually(t, patience, "it has a session", func() bool { return strings.Contains(j.alice.must("status"), "latest handshake") })
	if pings(t, j.alice, "10.20.0.1") || pings(t, j.alice, "10.20.0.2") || pings(t, j.server, "10.20.0.3") || pings(t, j.bob, "10.20.0.3") {
		t.Error("something passes before the sign-in")
	}
	for _, p := range j.server.tunnel().Peers {
		if a := p.Access; p.Name == "alice" && (a == nil || !a.Held || a.FromPeer.ShutOut == 0 || a.ToPeer.ShutOut == 0) {
			t.Errorf("nothing of what was sent was dropped: the test tests nothing: %+v", a)
		}
	}
	j.alice.must("down", "forward")
	j.alice.must("up", filepath.Join(j.alice.dir, "vpn0.yaml"))
	lab.Eventually(t, patience, "the sign-in is asked for again", waits)
	if out := j.server.must("client", "list"); !strings.Contains(out, "not signed in") {
		t.Error(out)
	}

	if out, code := j.alice.signin("000000"); code != 1 || !strings.Contains(out, "the code is wrong, or was used before") {
		t.Errorf("a wrong code: %d, %s", code, out)
	}
	if pings(t, j.server, "10.20.0.3") {
		t.Error("something passes after a wrong code")
	}
	used := app.code(0)
	if out, code := j.alice.signin(used); code != 0 || !strings.Contains(out, "signed in until") {
		t.Fatalf("a right code: %d, %s", code, out)
	}
	j.alice.eventually("addresses", "10.20.0.3/24", "ip", "-br", "address", "show", "vpn0")
	j.alice.reaches("10.20.0.1")
	j.alice.reaches("10.20.0.2")
	if out, code := j.alice.signin(used); code != 1 || !strings.Contains(out, "used before") {
		t.Errorf("the same code again: %d, %s", code, out)
	}

	// A restart of the server.
	j.server.must("down", "site")
	j.server.must("up", j.server.file)
	j.alice.reaches("10.20.0.1")

	// A reload that shortens the time holds it, and asks again; the time passes meanwhile, for a minute is the least.
	group("1m")
	j.server.must("reload", "site")
	lab.Eventually(t, 2*time.Minute, "the time is up", waits)
	if pings(t, j.alice, "10.20.0.1") || pings(t, j.server, "10.20.0.3") {
		t.Error("something passes when the time is up")
	}
	if out, code := j.alice.signin(app.code(1)); code != 0 {
		t.Fatalf("signing in again: %d, %s", code, out)
	}
	j.alice.reaches("10.20.0.1")

	// A new secret ends what was by the one before.
	j.server.must("client", "totp", "alice")
	lab.Eventually(t, patience, "the sign-in is asked for", waits)
	if pings(t, j.server, "10.20.0.3") {
		t.Error("something passes with a new secret")
	}

	// A WireGuard client in a group that demands a sign-in from now on.
	j.server.must("client", "add", "phone", "--wireguard", "--group", "staff")
	j.server.write(strings.Replace(readFile(t, j.server.file), "staff: {", "staff: {sign_in: {totp: true}, ", 1))
	j.server.refused(1, "client phone: an app that speaks WireGuard cannot sign in, which the group staff demands", "reload", "site")

	state := j.server.state()
	audit := read(t, filepath.Join(state, ".server/site.audit.jsonl"))
	for _, want := range []string{`"event":"factor-enrolled"`, `"event":"signed-in","tunnel":"wg0","client":"alice"`, `"why":"sign-in: the code is wrong`, `"event":"sign-in-expired"`} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit log lacks %s:\n%s", want, audit)
		}
	}
	for _, path := range []string{log, filepath.Join(state, ".server/site.audit.jsonl"), filepath.Join(j.alice.run, "run/culvert/vpn0.log")} {
		for _, secret := range []string{used, otp[strings.Index(otp, "secret=")+7:][:32]} {
			if strings.Contains(read(t, path), secret) {
				t.Errorf("%s holds a code or its secret", path)
			}
		}
	}
	if st, err := os.Stat(filepath.Join(state, ".server/site.db")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the store: %v, %v", st, err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text := read(t, path)
	_, body, _ := strings.Cut(text, "private_key_file: key\n")
	return body
}

// identityProvider is one on the server's host, with a certificate of its own.
func identityProvider(t *testing.T, s *site) *oidctest.Provider {
	t.Helper()
	p, err := oidctest.New("", "culvert", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(p)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.host.Must(func() error {
		server.Listener.Close()
		var err error
		server.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	server.StartTLS()
	t.Cleanup(server.Close)
	p.Issuer, p.Interval, p.ClientSecret = server.URL, 1, "provider-secret"
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, text := range map[string][]byte{"ca.pem": authority, "secret": []byte(p.ClientSecret + "\n")} {
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// A client of a group with a provider: its status says where to go; who may not sign in does not get in.
func TestSignInByProvider(t *testing.T) {
	t.Parallel()
	j := newJoined(t)
	provider := identityProvider(t, j.server)
	j.configure(fmt.Sprintf(`        field:
          sign_in:
            lasts: 1h
            oidc: {issuer: %q, client_id: culvert, client_secret_file: secret, ca_file: ca.pem, emails: ["*@example.net"], same_name: true}
`, provider.Issuer))
	j.server.must("up", j.server.file)
	if out, code := j.alice.join(j.invite("alice@example.net", "--group", "field")); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	told := regexp.MustCompile(`waits for sign-in \(open ` + regexp.QuoteMeta(provider.Issuer) + `/device and enter ([A-Z2-7]{4}-[A-Z2-7]{4}), or open `)
	userCode := func() (code string) {
		t.Helper()
		lab.Eventually(t, patience, "the status says where to go", func() bool {
			m := told.FindStringSubmatch(j.alice.must("status"))
			if m != nil {
				code = m[1]
			}
			return m != nil
		})
		return code
	}
	code := userCode()
	if pings(t, j.server, "10.20.0.2") {
		t.Error("something passes before the sign-in")
	}

	// Somebody else's sign-in, of the same domain, is not this client's.
	if !provider.Approve(code, map[string]any{"sub": "2", "email": "bob@example.net", "email_verified": true}) {
		t.Fatal("the provider does not know the code")
	}
	lab.Eventually(t, patience, "somebody else is refused", func() bool {
		return strings.Contains(j.alice.must("status"), "this user may not sign in here: the client is another user's")
	})
	if pings(t, j.server, "10.20.0.2") {
		t.Error("something passes after somebody else's sign-in")
	}

	// The command begins again, says where to go, and waits.
	time.Sleep(visitEvery)
	cmd := j.alice.command("signin", "vpn0")
	done := make(chan string, 1)
	go func() {
		out, code := j.alice.finish(cmd)
		done <- fmt.Sprint(code, " ", out)
	}()
	if again := userCode(); again == code || !provider.Approve(again, map[string]any{"sub": "1", "email": "alice@example.net", "email_verified": true}) {
		t.Errorf("code %s again", again)
	}
	select {
	case out := <-done:
		if !strings.HasPrefix(out, "0 ") || !strings.Contains(out, "to sign in, open "+provider.Issuer+"/device and enter ") || !strings.Contains(out, "signed in until") {
			t.Errorf("signin: %s", out)
		}
	case <-time.After(patience):
		t.Fatal("signin does not end")
	}
	j.alice.eventually("addresses", "10.20.0.2/24", "ip", "-br", "address", "show", "vpn0")
	j.alice.reaches("10.20.0.1")
	if out := j.server.must("client", "show", "alice@example.net"); !strings.Contains(out, "by oidc "+provider.Issuer+" alice@example.net") {
		t.Error(out)
	}

	// A restart of the server asks nobody again.
	j.server.must("down", "site")
	j.server.must("up", j.server.file)
	j.alice.reaches("10.20.0.1")
	audit := read(t, filepath.Join(j.server.state(), ".server/site.audit.jsonl"))
	for _, want := range []string{`"why":"sign-in: this user may not sign in here: the client is another user's bob@example.net"`, `"event":"signed-in"`} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit log lacks %s:\n%s", want, audit)
		}
	}
	if log := read(t, filepath.Join(j.server.run, "run/culvert/site.log")); strings.Contains(log+audit, provider.ClientSecret) {
		t.Error("a log has the client's secret")
	}
}
