package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"culvert/config"
	"culvert/crypto"
	"culvert/server"
	"culvert/tunnel/access"
)

// packetOf is a packet of an experiment's protocol (RFC 3692), of either family.
func packetOf(from, to netip.Addr) []byte {
	if from.Is4() {
		return packet(from, to)
	}
	b := []byte{0x60, 0, 0, 0, 0, 8, 253, 64}
	return append(append(append(b, from.AsSlice()...), to.AsSlice()...), make([]byte, 8)...)
}

// Clients that are kept from others reach neither them nor what is behind them, and are reached by none; the server, its other peers and the
// world behind it they do reach. What is said for a client goes before its group, and that before the server's, and access lifts none of it.
func TestClientsApart(t *testing.T) {
	for _, mode := range []string{"tun", "tap"} {
		dir := t.TempDir()
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		static, behind := `, allowed_ips: [10.20.0.200]`, `networks: [192.168.7.0/24], `
		if mode == "tap" {
			static, behind = "", ""
		}
		path := filepath.Join(dir, "office.yaml")
		if err := os.WriteFile(filepath.Join(dir, "key"), []byte(key.Base64()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(`version: 1
tunnels:
  office:
    mode: `+mode+`
    listen: 51820
    private_key_file: key
    addresses: [10.20.0.1/24, "fd20::1/64"]
    peers:
      site: {public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="`+static+`}
    server:
      client_to_client: false
      pool: [10.20.0.0/25, "fd20::/64"]
      groups:
        staff: {client_to_client: true}
        open: {access: {rules: [{allow: {to: 10.20.0.0/24}}]}}
      clients:
        branch: {`+behind+`group: staff, addresses: [10.20.0.130]}
        lone: {group: staff, client_to_client: false}
        all: {client_to_client: true}
`), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := config.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		conf := &file.Tunnels[0]
		sv, err := server.Open(&server.Memory{}, serverConfig(conf), now, func(server.Event) {})
		if err != nil {
			t.Fatal(err)
		}
		for name, group := range map[string]string{"any": "", "member": "staff", "branch": "", "lone": "", "all": "", "opened": "open"} {
			private, err := crypto.GeneratePrivateKey()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sv.Add(name, group, private.Public(), false, now); err != nil {
				t.Fatal(err)
			}
		}
		apart := map[string]bool{"any": true, "lone": true, "opened": true}
		whole := (&served{server: sv}).with(*conf, now)
		peers := whole.Peers
		if len(peers) != 7 {
			t.Fatalf("%d peers", len(peers))
		}
		for i := range peers {
			p := &peers[i]
			if p.Spoke != (mode == "tap" && p.Name != "site" && !apart[p.Name]) {
				t.Errorf("%s: %s: frames from it are sent on: %v", mode, p.Name, p.Spoke)
			}
			policy, err := policyOf(p, whole.apart)
			if err != nil {
				t.Fatal(err)
			}
			if !apart[p.Name] && policy != access.Unrestricted {
				t.Errorf("%s: %s is restricted", mode, p.Name)
			}
			s := access.NewState(policy, now)
			me4, me6 := netip.MustParseAddr("10.20.0.99"), netip.MustParseAddr("fd20::99")
			for to, client := range map[string]bool{"10.20.0.3": true, "10.20.0.127": true, "10.20.0.130": true, "192.168.7.9": mode == "tun", "fd20::3": true,
				"10.20.0.1": false, "fd20::1": false, "10.20.0.200": false, "203.0.113.80": false, "10.20.1.1": false, "2001:db8::1": false} {
				a, me := netip.MustParseAddr(to), me4
				if a.Is6() {
					me = me6
				}
				passes := !(client && apart[p.Name])
				if v := s.Check(access.FromPeer, packetOf(me, a), time.Second); (v == access.Pass) != passes {
					t.Errorf("%s: %s to %s: %v", mode, p.Name, to, v)
				}
				other := access.NewState(policy, now) // in which nothing answers the packet before
				if v := other.Check(access.ToPeer, packetOf(a, me), time.Second); (v == access.Pass) != passes {
					t.Errorf("%s: %s to %s: %v", mode, to, p.Name, v)
				}
			}
		}
	}
}

// What clients are kept from is there once for all of them, however many networks it has, and stays the same until the file changes it.
func TestClientsApartShareWhatTheyAreKeptFrom(t *testing.T) {
	const behind = 20_000
	no := false
	conf := &config.Tunnel{Name: "office", Addresses: []config.Prefix{{Prefix: netip.MustParsePrefix("10.20.0.1/16")}}, Server: &config.Server{Mix: &no}}
	for i := range behind / 2 {
		conf.Server.Clients = append(conf.Server.Clients, config.ServerClient{Name: fmt.Sprint("branch", i), Networks: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16 + byte(i>>12), byte(i >> 4), byte(i << 4)}), 28),
			netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32),
		}})
	}
	now := time.Now()
	sv, err := server.Open(&server.Memory{}, serverConfig(conf), now, func(server.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sv.Add(fmt.Sprint("client", i), "", key.Public(), false, now); err != nil {
			t.Fatal(err)
		}
	}
	s := &served{server: sv}
	var region *access.Region
	for range 2 {
		whole := s.with(*conf, now)
		for _, p := range whole.Peers {
			policy, err := policyOf(&p, whole.apart)
			if err != nil {
				t.Fatal(err)
			}
			apart := policy.Spec().Apart
			if region == nil {
				region = apart
			}
			if apart == nil || apart != region {
				t.Fatal("it has one of its own")
			}
			state := access.NewState(policy, now)
			if v := state.Check(access.FromPeer, packetOf(netip.MustParseAddr("10.20.0.99"), netip.MustParseAddr("11.0.39.15")), time.Second); v == access.Pass {
				t.Fatal("it reaches the last network")
			}
		}
	}
	conf.Server.Clients = conf.Server.Clients[1:]
	if whole := s.with(*conf, now); !whole.Peers[0].Apart || len(whole.apart.networks) == 0 {
		t.Error("nothing is kept apart any more")
	} else if policy, err := policyOf(&whole.Peers[0], whole.apart); err != nil || policy.Spec().Apart.Equal(region) {
		t.Errorf("what has changed is the same: %v", err)
	}
}
