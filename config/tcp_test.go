package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// writeCertificate writes a certificate and its key to files of that mode.
func writeCertificate(t *testing.T, folder, name string, mode os.FileMode) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		suffix, kind string
		text         []byte
		mode         os.FileMode
	}{{".pem", "CERTIFICATE", der, 0o644}, {".key", "PRIVATE KEY", secret, mode}} {
		path := filepath.Join(folder, name+f.suffix)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.text}), f.mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTCPCertificates(t *testing.T) {
	folder := t.TempDir()
	writeCertificate(t, folder, "a", 0o600)
	writeCertificate(t, folder, "b", 0o644)
	if err := os.WriteFile(filepath.Join(folder, "tunnel.key"), []byte("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ certificate, key, want string }{
		{"a.pem", "a.key", ""},
		{"a.pem", "b.key", "mode 0644"},
		{"b.pem", "a.key", "private key does not match"},
		{"none.pem", "a.key", "none.pem cannot be opened"},
		{".", "a.key", "not a regular file"},
		{"a.key", "a.key", "cannot be used"},
		{"a.pem", "tunnel.key", "cannot be used"},
	} {
		path := filepath.Join(folder, "x.yaml")
		text := fmt.Sprintf("version: 1\ntunnels: {x: {private_key_file: tunnel.key, tcp: {listen: 443, certificate_file: %q, key_file: %q}}}\n", c.certificate, c.key)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Load(path)
		switch {
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want == "":
			if tcp := f.Tunnels[0].TCP; tcp.Certificate == nil || tcp.Listen.String() != "[::]:443" {
				t.Errorf("%+v", tcp)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s with %s: %v, want %q", c.certificate, c.key, err, c.want)
		case strings.Contains(err.Error(), "yAnz5TF"):
			t.Errorf("a key in %v", err)
		}
	}
}

func TestTCPPlaces(t *testing.T) {
	text, err := os.ReadFile("testdata/good/tcp.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, r := parseYAML("tcp.yaml", text, fakeSecret)
	if errs, _ := r.finish(); len(errs) > 0 {
		t.Fatal(errs)
	}
	places := func(p *Peer) (out []string) {
		for _, e := range p.TCP {
			out = append(out, e.String())
		}
		return out
	}
	if at := f.Tunnels[1].TCP.Listen.String(); at != "[2001:db8::1]:8443" {
		t.Errorf("listens at %s", at)
	}
	peers := f.Tunnels[2].Peers
	if got, want := places(&peers[0]), []string{"a.example:443", "[2001:db8::7]:443"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := places(&peers[1]), []string{"tcp.b.example:8443"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
