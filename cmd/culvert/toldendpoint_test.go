package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"culvert/config"
	"culvert/crypto"
	"culvert/crypto/enrolment"
	"culvert/server"
)

// What a server's file may say of where servers are is what clients can be told, and what they are told can stand in the file that joining
// writes.
func TestToldEndpoints(t *testing.T) {
	dir := t.TempDir()
	var keys [3]crypto.PublicKey
	for i := range keys {
		private, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = private.Public()
		if err := os.WriteFile(filepath.Join(dir, "office.key"), []byte(private.Base64()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(text string) (*config.File, error) {
		path := filepath.Join(dir, "office.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return config.Load(path)
	}
	label := strings.Repeat("x", 63) + "."
	long := func(n int) string { return strings.Repeat(label, 4)[:n] } // a name of n bytes
	for _, c := range []struct {
		endpoint string
		ok       bool
	}{
		{"vpn.example.net:51820", true}, {"vpn.example.net.:1", true}, {"a_b:65535", true}, {"1.example:1", true}, {"x1:1", true},
		{"192.0.2.1:1", true}, {"127.0.0.1:1", true}, {"[2001:db8::1]:1", true}, {"[::1]:1", true},
		{"vpn.example.net", false}, {"vpn.example.net:0", false}, {"vpn.example.net:65536", false}, {":1", false}, {".:1", false}, {"-a:1", false}, {"a..b:1", false},
		{"[::ffff:1.2.3.4]:1", false}, {"1.2.3.4.5:1", false}, {"1.2.3:1", false}, {"a.1:1", false}, {"a.1.:1", false}, {"7:1", false}, {"999.0.2.1:1", false},
		{"0.0.0.0:1", false}, {"[::]:1", false}, {"224.0.0.1:1", false}, {"[ff02::1]:1", false}, {"255.255.255.255:1", false}, {"[fe80::1%eth0]:1", false},
		{long(253) + ":1", true}, {long(252) + ".:1", true}, {long(251) + ".:65", true}, {long(254) + ":1", false}, // a name's limit
		{long(249) + ":51820", true}, {long(250) + ":51820", false}, {long(248) + ".:51820", true}, {long(253) + ".:1", false}, // an endpoint's
	} {
		others := []server.OtherServer{{Key: keys[1], Endpoints: []string{c.endpoint}}}
		answer := server.EnrolAnswer{Accepted: true, Others: others}
		_, err := answer.Encode()
		if (err == nil) != c.ok {
			t.Errorf("%s: an answer: %v", c.endpoint, err)
		}
		link := server.Link{Endpoints: []string{"vpn.example.net:1", c.endpoint}, ServerKey: keys[0], Secret: enrolment.Secret{1}}
		text, err := link.Encode()
		if (err == nil) != c.ok {
			t.Errorf("%s: a link: %v", c.endpoint, err)
		}
		if err == nil {
			if _, err := server.ParseLink(text); err != nil {
				t.Errorf("%s: a link that was made: %v", c.endpoint, err)
			}
		}
		conf := server.Config{Addresses: []netip.Prefix{netip.MustParsePrefix("10.20.0.1/24")}, PublicKey: keys[2], Others: others}
		if err := conf.Check(); (err == nil) != c.ok {
			t.Errorf("%s: a server's configuration: %v", c.endpoint, err)
		}
		if c.ok {
			if _, err := load(clientFileText(&link, "office", &answer)); err != nil {
				t.Errorf("%s: a client's file: %v", c.endpoint, err)
			}
		}
		for _, part := range []string{
			"endpoints: [" + strconv.Quote(c.endpoint) + "]",
			"others: {b: {public_key: " + strconv.Quote(keys[1].Base64()) + ", endpoints: [" + strconv.Quote(c.endpoint) + "]}}",
		} {
			file, err := load("version: 1\ntunnels: {office: {private_key_file: office.key, listen: 1, addresses: [10.20.0.1/24], server: {" + part + "}}}\n")
			if (err == nil) != c.ok {
				t.Errorf("%s: a server's file: %v", c.endpoint, err)
			}
			if err == nil {
				conf := serverConfig(&file.Tunnels[0])
				if err := conf.Check(); err != nil {
					t.Errorf("%s: of a server's file: %v", c.endpoint, err)
				}
			}
		}
	}
}
