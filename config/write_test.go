package config

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/setup/spec"
)

// anyFile makes a random file that keeps every rule, with all that YAML can hold.
func anyFile(t *testing.T, r *rand.Rand) *File {
	t.Helper()
	some := func(n int) int { return r.IntN(n + 1) }
	pick := func(ss ...string) string { return ss[r.IntN(len(ss))] }
	f := &File{Path: "x.yaml", Format: FormatYAML, Instance: pick("site", "1", "_", "null", "0x10", "a.b-c", "true", "1e3")}
	if r.IntN(2) == 0 {
		listen := func() (l Listen) {
			l.Socket = pick("", "/run/a b.sock", "/x", "/run/#")
			if l.Socket == "" {
				l.Address = netip.MustParseAddrPort(pick("127.0.0.1:1", "[::1]:65535", "127.9.9.9:9586"))
			}
			return l
		}
		f.Monitor = Monitor{Metrics: listen(), Page: listen()}
		if r.IntN(2) == 0 {
			f.Monitor.Peers = new(r.IntN(2) == 0)
		}
		if f.Monitor.Page.Socket != "" {
			f.Monitor.Group = new(uint32(r.IntN(1000)))
		}
	}
	names := []string{"wg0", "null", "1", "0x1f", "true", "a=b+c.d-e", "1e3", "yes", "+1", ".x", "=", "1_0"}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	net := 0
	prefix := func() netip.Prefix {
		net++
		if r.IntN(2) == 0 {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(net >> 8), byte(net), 0}), 24+r.IntN(9)).Masked()
		}
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: byte(net >> 8), 7: byte(net)}), 64+r.IntN(65)).Masked()
	}
	command := func() string {
		return pick("echo", "a: b", "- x", "'", `"`, `\n`, `'"\`, "{a}", "[a]", "a # b", "#", "*x", "&x", "!x", "|", ">", "%i", "@", "`ls`",
			"a\tb", "é → 𝒳", "null", "0x1", "a:", ":a", "? a", "---", "...", "<<", "=", "~", "a, b", "it''s", `\\`, "x  y")
	}
	hooks := func() (hs []Hook) {
		for range some(3) {
			hs = append(hs, Hook{Command: command()})
		}
		return hs
	}
	key := func(name string) []byte {
		text, _, _ := fakeSecret(name)
		return bytes.TrimSpace(text)
	}
	for i := range 1 + some(3) {
		file := pick("own.key", "a b.key", "it's", `"`, "ключ", "/abs/k", "-", "~", "null", "a: b", "#k", `a\b`) + fmt.Sprint(i)
		k, err := crypto.ParsePrivateKey(string(key(file)))
		if err != nil {
			t.Fatal(err)
		}
		tunnel := Tunnel{Name: names[i], Mode: ModeTun, Wire: WireWireGuard, PrivateKey: k, PrivateKeyFile: file}
		if r.IntN(3) == 0 {
			tunnel.Wire, tunnel.PostQuantum = WireCulvert, r.IntN(2) == 0
		}
		if r.IntN(2) == 0 {
			tunnel.Listen = uint16(1000*(i+1) + r.IntN(1000))
		}
		for range some(3) {
			p := prefix()
			tunnel.Addresses = append(tunnel.Addresses, Prefix{Prefix: netip.PrefixFrom(p.Addr().Next(), p.Bits())})
		}
		tunnel.MTU = []int{0, 1280, 1420, 65535}[r.IntN(4)]
		tunnel.FwMark = []FwMark{{}, {Set: true}, {Set: true, Value: 1}, {Set: true, Value: 1<<32 - 1}}[r.IntN(4)]
		tunnel.Table = []Table{{}, {Off: true}, {Number: 1}, {Number: 254}, {Number: 1<<32 - 1}}[r.IntN(5)]
		for range some(2) {
			tunnel.DNS.Servers = append(tunnel.DNS.Servers, prefix().Addr())
		}
		for range some(2) {
			tunnel.DNS.Search = append(tunnel.DNS.Search, pick("example.net", "null", "a.", "_x", "1.a", "0x1", "1e3"))
		}
		if len(tunnel.DNS.Servers) > 0 {
			for range some(2) {
				tunnel.DNS.Domains = append(tunnel.DNS.Domains, pick("~.", "~corp.example", "lab.example"))
			}
			tunnel.DNS.Resolver = pick("", "auto", "resolved", "file", "off")
		}
		if tunnel.FwMark != (FwMark{Set: true}) && r.IntN(3) == 0 {
			tunnel.KillSwitch = true
			tunnel.Except = append(tunnel.Except, Prefix{Prefix: prefix()})
		}
		tunnel.Hooks = Hooks{hooks(), hooks(), hooks(), hooks()}
		tunnel.Queues = []int{0, 1, 16}[r.IntN(3)]
		if r.IntN(3) == 0 {
			anyTap(&tunnel, r)
		}
		peers := []string{"branch", "null", "1", "läptop@home", "-", "1.5", "@", "+", ".", "true", "~a"[1:], "0o7"}
		r.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
		for j := range some(5) {
			pub, err := crypto.ParsePublicKey(string(key(fmt.Sprint("peer", i, j))))
			if err != nil {
				t.Fatal(err)
			}
			p := Peer{Name: peers[j], PublicKey: pub, Keepalive: time.Duration([]int{0, 1, 25, 65535}[r.IntN(4)]) * time.Second}
			p.Wire, p.PostQuantum = tunnel.Wire, tunnel.PostQuantum
			if r.IntN(4) == 0 && !tunnel.PostQuantum {
				p.Wire = []Wire{WireCulvert, WireWireGuard}[r.IntN(2)]
				p.PostQuantum = p.Wire == WireCulvert && r.IntN(2) == 0
			}
			if r.IntN(2) == 0 {
				p.PresharedKeyFile = fmt.Sprint("psk", i, j)
				if p.PresharedKey, err = crypto.ParsePresharedKey(string(key(p.PresharedKeyFile))); err != nil {
					t.Fatal(err)
				}
			}
			for k := range some(3) {
				p.Endpoints = append(p.Endpoints, Endpoint{Host: pick("a.example", "10.0.0.1", "fd00::1", "fe80::1%eth0", "x"), Port: uint16(k + 1)})
			}
			if tunnel.Mode == ModeTap {
				p.Wire, p.PostQuantum = tunnel.Wire, tunnel.PostQuantum
				anyPort(&p, byte(j), r)
			} else {
				for range some(4) {
					p.AllowedIPs = append(p.AllowedIPs, Prefix{Prefix: prefix()})
				}
			}
			if r.IntN(3) == 0 {
				p.Access = anyAccess(r)
			}
			tunnel.Peers = append(tunnel.Peers, p)
		}
		f.Tunnels = append(f.Tunnels, tunnel)
	}
	return f
}

// anyTap makes a random tunnel of Ethernet frames of one of IP packets.
func anyTap(t *Tunnel, r *rand.Rand) {
	t.Mode, t.Wire, t.Table = ModeTap, WireCulvert, Table{}
	t.MTU = []int{0, 1500, 65513}[r.IntN(3)]
	if r.IntN(2) == 0 {
		t.MAC = MAC{0x52, 0x54, 0, 0, 0, byte(r.IntN(256))}
	}
	t.Switch = Switch{
		Ageing:    time.Duration([]int{0, 1, 300, 86400}[r.IntN(4)]) * time.Second,
		LinkLocal: r.IntN(2) == 0, Proxy: r.IntN(2) == 0, KeepLoops: r.IntN(2) == 0,
	}
	t.KeepCarrier = r.IntN(2) == 0
}

// anyAccess makes random access of a peer.
func anyAccess(r *rand.Rand) *Access {
	a := &Access{Default: []string{"", "allow", "deny"}[r.IntN(3)], Limit: AccessLimit{[]spec.BitRate{0, 8, 1500000, 1e13}[r.IntN(4)], []spec.BitRate{0, 1e9}[r.IntN(2)]}}
	for range r.IntN(4) {
		m := &AccessMatch{}
		nets := [][]netip.Prefix{nil, {{}}, {netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::1/128")}}[r.IntN(3)]
		if r.IntN(2) == 0 {
			m.To = nets
		} else {
			m.From = nets
		}
		m.Protocols = [][]uint8{nil, {6}, {17, 6}, {1}, {0, 58, 255}}[r.IntN(5)]
		if len(m.Protocols) > 0 && (m.Protocols[0] == 6 || m.Protocols[0] == 17) && r.IntN(2) == 0 {
			m.Ports = []PortRange{{0, 0}, {22, 1024}, {65535, 65535}}
		}
		if r.IntN(2) == 0 {
			a.Rules = append(a.Rules, AccessRule{Allow: m})
		} else {
			a.Rules = append(a.Rules, AccessRule{Deny: m})
		}
	}
	if r.IntN(2) == 0 {
		a.Quota = &AccessQuota{Bytes: []uint64{1, 5e10, 1 << 60}[r.IntN(3)], Every: []string{"", "day", "total"}[r.IntN(3)], Zone: []string{"", "UTC"}[r.IntN(2)]}
	}
	if r.IntN(2) == 0 {
		a.Expires = time.Unix(int64(r.IntN(1<<32)), int64(r.IntN(1e9))).UTC()
	}
	for range r.IntN(3) {
		w := AccessWindow{Days: [][]string{nil, {"mon"}, {"sun", "sat"}}[r.IntN(3)], From: time.Duration(r.IntN(1440)) * time.Minute}
		if r.IntN(2) == 0 {
			w.To = new(time.Duration(r.IntN(1441)) * time.Minute)
		}
		a.Schedule = append(a.Schedule, w)
	}
	return a
}

// anyPort makes a peer one of such a tunnel. MAC addresses are made of a number of the peer's own.
func anyPort(p *Peer, number byte, r *rand.Rand) {
	p.Spoke = r.IntN(2) == 0
	p.MaxMACs = []int{0, 1, MaxLearned}[r.IntN(3)]
	for i := range r.IntN(3) {
		p.MACs = append(p.MACs, Station{MAC: MAC{0x02, 0, 0, number, byte(i), byte(r.IntN(256))}})
	}
	p.VLANs.PVID = []uint16{0, 1, 4094}[r.IntN(3)]
	for id := uint16(1 + r.IntN(3)); id <= maxVLAN && r.IntN(5) > 0; id += uint16(1 + r.IntN(2)) {
		p.VLANs.Tagged = append(p.VLANs.Tagged, id)
	}
	some := func() int { return []int{0, NoLimit, 1, maxRate}[r.IntN(4)] }
	p.Limits = Limits{some(), some(), some()}
}

// What is written and read again is the same, in both formats.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		f := anyFile(t, rand.New(rand.NewPCG(seed, 1)))
		rewriteYAML(t, f)
		for i := range f.Tunnels {
			one := *f
			one.Tunnels = f.Tunnels[i : i+1]
			rewriteWGQuick(t, &one)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	key := newKey(t)
	for name, c := range map[string]struct {
		change func(*Tunnel)
		yaml   string
		wg     string
	}{
		"nothing wrong":        {func(*Tunnel) {}, "", ""},
		"key without a file":   {func(x *Tunnel) { x.PrivateKeyFile = "" }, "its private key has no file", ""},
		"psk without a file":   {func(x *Tunnel) { x.Peers[0].PresharedKey = crypto.PresharedKey{1} }, "preshared key has no file", ""},
		"no key":               {func(x *Tunnel) { x.PrivateKey = crypto.PrivateKey{} }, "", "no private key"},
		"tap":                  {func(x *Tunnel) { x.Mode = ModeTap }, "", "only IP tunnels"},
		"another wire":         {func(x *Tunnel) { x.Wire = WireCulvert }, "", "peer a is on the culvert wire"},
		"another peer's wire":  {func(x *Tunnel) { x.Peers[0].Wire = WireCulvert }, "", "peer a is on the culvert wire"},
		"every peer's wire":    {func(x *Tunnel) { x.Wire, x.Peers[0].Wire = WireCulvert, WireWireGuard }, "", ""},
		"another, no peers":    {func(x *Tunnel) { x.Wire, x.Peers = WireCulvert, nil }, "", "only the wireguard wire"},
		"a # within a command": {func(x *Tunnel) { x.Hooks.PreDown = []Hook{{"a#b", Position{"f", 1, 2}}} }, "", "f:1:2: wg-quick takes what follows a #"},
	} {
		t.Run(name, func(t *testing.T) {
			tunnel := Tunnel{Name: "wg0", Mode: ModeTun, Wire: WireWireGuard, PrivateKey: key, PrivateKeyFile: "k",
				Peers: []Peer{{Name: "a", PublicKey: key.Public()}}}
			c.change(&tunnel)
			check := func(what string, err error, want string, written int) {
				switch {
				case want == "" && (err != nil || written == 0):
					t.Errorf("%s: %v, %d bytes", what, err, written)
				case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
					t.Errorf("%s: %v, want %q", what, err, want)
				case want != "" && written > 0:
					t.Errorf("%s: refused but %d bytes written", what, written)
				}
			}
			var out bytes.Buffer
			err := WriteYAML(&out, &File{Instance: "x", Tunnels: []Tunnel{tunnel}})
			check("WriteYAML", err, c.yaml, out.Len())
			if bytes.Contains(out.Bytes(), []byte(key.Base64())) {
				t.Error("YAML holds the private key")
			}
			out.Reset()
			_, err = WriteWGQuick(&out, &tunnel)
			check("WriteWGQuick", err, c.wg, out.Len())
		})
	}
}

func TestWriteWGQuickWarns(t *testing.T) {
	key := newKey(t)
	tunnel := Tunnel{Name: "wg0", Mode: ModeTun, Wire: WireWireGuard, PrivateKey: key, Queues: 4, Peers: []Peer{{Name: "a", PublicKey: key.Public(),
		Endpoints: []Endpoint{{Host: "a", Port: 1}, {Host: "b", Port: 2}, {Host: "c", Port: 3}}}}}
	var out bytes.Buffer
	warnings, err := WriteWGQuick(&out, &tunnel)
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "4 are left out") || !strings.Contains(warnings[1], "2 more are left out") {
		t.Errorf("%q, %v", warnings, err)
	}
	if text := out.String(); strings.Contains(text, "ueue") || !strings.Contains(text, "Endpoint = a:1\n") || strings.Contains(text, "b:2") {
		t.Errorf("wrote\n%s", text)
	}
}

func TestImport(t *testing.T) {
	const private, psk = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", "8vZ4m1ZcWcLlAZ3Ewjhf3lMqWmv2h9lYQOo2d7oFDkQ="
	text := `[Interface]
PrivateKey = ` + private + `
SaveConfig = true # old
PostUp = echo %i
[Peer] # first
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
[Peer]
PublicKey = TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=
PresharedKey = ` + psk + "\n"
	f, r, _ := parseWGQuick("/etc/wireguard/wg0.conf", []byte(text))
	if errs, _ := r.finish(); len(errs) > 0 {
		t.Fatal(errs)
	}
	before := bare(f)
	for dir, want := range map[string][]SecretFile{
		"":             {{"wg0.key", []byte(private + "\n")}, {"wg0-peer2.psk", []byte(psk + "\n")}},
		"/etc/culvert": {{"/etc/culvert/wg0.key", []byte(private + "\n")}, {"/etc/culvert/wg0-peer2.psk", []byte(psk + "\n")}},
	} {
		in := ImportWGQuick(f, dir)
		if !reflect.DeepEqual(in.Secrets, want) {
			t.Errorf("in %q: %+v", dir, in.Secrets)
		}
		var out bytes.Buffer
		if err := WriteYAML(&out, in.File); err != nil {
			t.Fatal(err)
		}
		if s := out.String(); strings.Contains(s, private) || strings.Contains(s, psk) || !strings.Contains(s, "private_key_file: "+yamlText(want[0].Path)) {
			t.Errorf("wrote\n%s", s)
		} else if !strings.Contains(s, "\n    wire: wireguard\n") || strings.Count(s, "wire:") != 1 {
			t.Errorf("not on the wireguard wire:\n%s", s)
		}
		if len(in.Warnings) != 2 || in.Warnings[0].Pos.Line != 3 || !strings.Contains(in.Warnings[0].Message, "SaveConfig") ||
			!strings.Contains(in.Warnings[1].Message, "2 comments are not carried over") {
			t.Errorf("warnings: %v", Errors(in.Warnings))
		}
	}
	if !reflect.DeepEqual(before, bare(f)) {
		t.Error("importing changed the file it was given")
	}
}
