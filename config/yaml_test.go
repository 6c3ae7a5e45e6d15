package config

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Every value knows where it stands, in characters, whatever stands around it.
func TestYAMLPositions(t *testing.T) {
	text, err := os.ReadFile("testdata/good/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"LF":       string(text),
		"CRLF":     strings.ReplaceAll(string(text), "\n", "\r\n"),
		"BOM":      "\uFEFF" + string(text),
		"document": "---\n" + strings.TrimPrefix(string(text), "# Everything the format knows.\n") + "...\n",
	} {
		f, r := parseYAML("x", []byte(text), fakeSecret)
		if errs, _ := r.finish(); len(errs) > 0 {
			t.Fatalf("%s: %v", name, errs)
		}
		o := f.Tunnels[0]
		for what, c := range map[string]struct {
			got  Position
			l, c int
		}{
			"tunnel": {o.Pos, 5, 3}, "second": {f.Tunnels[1].Pos, 34, 3}, "listen": {o.ListenPos, 7, 13}, "key": {o.PrivateKeyPos, 8, 23},
			"address": {o.Addresses[0].Pos, 9, 17}, "address 2": {o.Addresses[1].Pos, 9, 31}, "mtu": {o.MTUPos, 10, 10},
			"fwmark": {o.FwMarkPos, 12, 13}, "table": {o.TablePos, 13, 12}, "dns": {o.DNS.Pos, 14, 5},
			"pre_up": {o.Hooks.PreUp[0].Pos, 18, 16}, "post_up": {o.Hooks.PostUp[0].Pos, 20, 11}, "post_up 2": {o.Hooks.PostUp[1].Pos, 21, 11},
			"pre_down": {o.Hooks.PreDown[0].Pos, 23, 18}, "post_down": {o.Hooks.PostDown[0].Pos, 24, 19},
			"peer": {o.Peers[0].Pos, 26, 7}, "public key": {o.Peers[0].PublicKeyPos, 27, 21}, "psk": {o.Peers[0].PresharedKeyPos, 28, 29},
			"endpoint": {o.Peers[0].Endpoints[0].Pos, 29, 21}, "endpoint 3": {o.Peers[0].Endpoints[2].Pos, 29, 72},
			"allowed": {o.Peers[0].AllowedIPs[2].Pos, 30, 50}, "keepalive": {o.Peers[0].KeepalivePos, 31, 20},
			"peer 2": {o.Peers[1].Pos, 32, 7}, "public key 2": {o.Peers[1].PublicKeyPos, 33, 21},
		} {
			if c.got != (Position{"x", c.l, c.c}) {
				t.Errorf("%s: %s is at %v, want %d:%d", name, what, c.got, c.l, c.c)
			}
		}
	}
}

// Two tunnels may share an address on purpose; otherwise it is odd.
func TestSharedAddresses(t *testing.T) {
	_, r := parseYAML("x.yaml", []byte(`version: 1
tunnels:
  a: {private_key_file: k, addresses: [10.0.0.1/24, 10.0.1.1/32, "fe80::1/64"]}
  b: {private_key_file: l, addresses: [10.0.0.1/24, 10.0.1.1/32, "fe80::1/64"]}
`), fakeSecret)
	errs, warnings := r.finish()
	if len(errs) > 0 || len(warnings) != 1 || warnings[0].Pos != (Position{"x.yaml", 4, 40}) {
		t.Errorf("errors %v, warnings %v", errs, Errors(warnings))
	}
}

func TestErrorsType(t *testing.T) {
	cause := errors.New("cause")
	var err error = Errors{{Message: "first"}, {Pos: Position{File: "f"}, Message: "second", Hint: "do", Err: cause}}
	if got, want := err.Error(), "first\nf: second\n  = do"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.Message != "first" {
		t.Errorf("AsType gives %v, %v", e, ok)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is not found")
	}
}
