package main

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/server"
)

// What a server has said is told apart from what the file says itself.
func TestGiven(t *testing.T) {
	prefix := func(s string) config.Prefix { return config.Prefix{Prefix: netip.MustParsePrefix(s)} }
	conf := config.Tunnel{Addresses: []config.Prefix{prefix("10.99.0.1/32")}, Peers: []config.Peer{
		{PublicKey: crypto.PublicKey{1}, Pull: true, AllowedIPs: []config.Prefix{prefix("10.98.0.0/16")}},
		{PublicKey: crypto.PublicKey{2}, AllowedIPs: []config.Prefix{prefix("10.97.0.0/16")}}}}
	if g := givenOf(&conf, &conf); g != nil {
		t.Errorf("nothing is given: %+v", g)
	}
	whole := conf
	whole.Addresses = append([]config.Prefix{prefix("10.20.0.2/24")}, conf.Addresses...)
	whole.Peers = append([]config.Peer{}, conf.Peers...)
	whole.Peers[0].AllowedIPs = append([]config.Prefix{prefix("10.20.0.0/24"), prefix("10.30.0.0/16")}, conf.Peers[0].AllowedIPs...)
	whole.DNS.Servers, whole.DNS.Search = []netip.Addr{netip.MustParseAddr("10.30.0.53")}, []string{"example.net"}
	whole.FullTunnel = config.Families{IPv4: true, IPv6: true}
	want := &control.Given{Addresses: []netip.Prefix{netip.MustParsePrefix("10.20.0.2/24")}, Routes: []netip.Prefix{netip.MustParsePrefix("10.30.0.0/16")},
		DNS: whole.DNS.Servers, Search: whole.DNS.Search, FullTunnel: true}
	g := givenOf(&conf, &whole)
	if !reflect.DeepEqual(g, want) {
		t.Errorf("given %+v, want %+v", g, want)
	}
	conf.DNS.Servers, conf.FullTunnel = []netip.Addr{netip.MustParseAddr("192.0.2.53")}, whole.FullTunnel
	if g := givenOf(&conf, &whole); g.DNS != nil || g.FullTunnel {
		t.Errorf("what the file says is taken for the server's: %+v", g)
	}
	var b bytes.Buffer
	if err := writeStatus(&b, []control.Instance{{Name: "vpn", Tunnels: []control.Tunnel{{Interface: "vpn", Up: true, Pulls: true, Pulled: true, Given: g}}}}, goldenNow); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"addresses from the server: 10.20.0.2/24", "routes from the server: 10.30.0.0/16", "name servers from the server: 10.30.0.53",
		"search domains from the server: example.net", "full tunnel from the server: "} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("the status lacks %q:\n%s", line, &b)
		}
	}
}

// Short names are completed, in a wg-quick file, by the domains that are asked for as well, as in what culvert's own clients set up.
func TestWGQuickSearchDomains(t *testing.T) {
	list := completing(&server.Document{Domains: []string{"corp.example", "~9.10.in-addr.arpa", "example.net"}, Search: []string{"example.net", "lab.example"}})
	text := wgQuickOf(&crypto.PrivateKey{1}, &control.ClientSetup{DNS: []netip.Addr{netip.MustParseAddr("10.30.0.53")}, Search: list})
	if want := "DNS = 10.30.0.53, corp.example, example.net, lab.example\n"; !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}

// What a client may do is what is said for it, else for its group, else for all.
func TestMayLines(t *testing.T) {
	no := false
	s := &config.Server{Access: &config.Access{Default: "deny"}, Groups: []config.ClientGroup{{Name: "staff", Access: &config.Access{}, Mix: &no}},
		Clients: []config.ServerClient{{Name: "bob", Access: &config.Access{Default: "deny"}}}}
	for _, c := range []struct{ name, group, want string }{
		{"alice", "staff", "everything is allowed\nkept from other clients"}, {"carol", "staff", "everything is allowed\nkept from other clients"},
	} {
		if got := strings.Join(may(s, c.name, c.group), "\n"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, who := range [][2]string{{"bob", "staff"}, {"dave", ""}} {
		if got := strings.Join(may(s, who[0], who[1]), "\n"); !strings.Contains(got, "denied") {
			t.Errorf("%s: %q", who[0], got)
		}
	}
	if got := may(&config.Server{}, "x", ""); len(got) != 1 || got[0] != "everything is allowed" {
		t.Errorf("%q", got)
	}
}
