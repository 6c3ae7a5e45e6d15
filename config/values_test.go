package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Each value parser's answers: what is accepted in its canonical form, what is refused with a part of the message.
func TestValues(t *testing.T) {
	show := func(v any, p *problem) string {
		if p != nil {
			return "! " + p.message
		}
		return fmt.Sprint(v)
	}
	parsers := map[string]func(string) string{
		"port":     func(s string) string { v, p := parsePort(s); return show(v, p) },
		"fwmark":   func(s string) string { v, p := parseFwMark(s); return show(v, p) },
		"table":    func(s string) string { v, p := parseTable(s); return show(v, p) },
		"mtu":      func(s string) string { v, p := parseMTU(s); return show(v, p) },
		"seconds":  func(s string) string { v, p := parseSeconds(s); return show(v, p) },
		"duration": func(s string) string { v, p := parseDuration(s); return show(v, p) },
		"address":  func(s string) string { v, p := parseAddress(s, false); return show(v, p) },
		"bare":     func(s string) string { v, p := parseAddress(s, true); return show(v, p) },
		"allowed":  func(s string) string { v, p := parsePrefix(s, true); return show(v, p) },
		"server":   func(s string) string { v, p := parseServer(s); return show(v, p) },
		"host":     func(s string) string { return show(s, hostName(s)) },
		"endpoint": func(s string) string { v, p := parseEndpoint(s); return show(v, p) },
		"tunnel":   func(s string) string { return show(s, tunnelName(s)) },
		"instance": func(s string) string { return show(s, instanceName(s)) },
		"nice": func(s string) string {
			v, p := parseNice(s)
			if p != nil {
				return show(0, p)
			}
			return show(*v, nil)
		},
		"peer":    func(s string) string { return show(s, peerName(s)) },
		"command": func(s string) string { return show(s, command(s)) },
		"public":  func(s string) string { v, p := parsePublicKey(s); return show(v, p) },
	}
	for _, c := range []struct{ parser, in, want string }{
		{"nice", "-20", "-20"}, {"nice", "0", "0"}, {"nice", "19", "19"}, {"nice", "20", "!"}, {"nice", "-21", "!"}, {"nice", "1.5", "!"}, {"nice", "", "!"},
		{"port", "0", "0"}, {"port", "65535", "65535"}, {"port", "65536", "!"}, {"port", "-1", "!"}, {"port", "+1", "!"},
		{"port", "", "!"}, {"port", "01", "!"}, {"port", "0x10", "!"}, {"port", "1_0", "!"}, {"port", "99999999999999999999", "!"},
		{"port", "٣", "!"}, {"port", " 1", "!"},
		{"fwmark", "auto", "auto"}, {"fwmark", "off", "off"}, {"fwmark", "0", "off"}, {"fwmark", "0x0", "off"},
		{"fwmark", "51820", "0xca6c"}, {"fwmark", "0XCA6C", "0xca6c"}, {"fwmark", "0xffffffff", "0xffffffff"},
		{"fwmark", "4294967296", "!"}, {"fwmark", "0x", "!"}, {"fwmark", "0x1ffffffff", "!"}, {"fwmark", "0x_1", "!"}, {"fwmark", "-1", "!"},
		{"table", "auto", "auto"}, {"table", "off", "off"}, {"table", "main", "254"}, {"table", "default", "253"},
		{"table", "0", "!"}, {"table", "4294967295", "4294967295"}, {"table", "4294967296", "!"}, {"table", "local", "!"},
		{"mtu", "auto", "0"}, {"mtu", "575", "!"}, {"mtu", "576", "576"}, {"mtu", "65535", "65535"}, {"mtu", "65536", "!"}, {"mtu", "0", "!"},
		{"seconds", "off", "0s"}, {"seconds", "0", "0s"}, {"seconds", "65535", "18h12m15s"}, {"seconds", "65536", "!"}, {"seconds", "25s", "!"},
		{"duration", "off", "0s"}, {"duration", "0", "0s"}, {"duration", "25s", "25s"}, {"duration", "1m5s", "1m5s"},
		{"duration", "65535s", "18h12m15s"}, {"duration", "65536s", "!"}, {"duration", "25", "! \"25\" has no unit"},
		{"duration", "1500ms", "!"}, {"duration", "-1s", "!"}, {"duration", "9999999999h", "!"}, {"duration", "s", "!"}, {"duration", "", "!"},
		{"address", "10.0.0.1/24", "10.0.0.1/24"}, {"address", "FD00::1/64", "fd00::1/64"}, {"address", "10.0.0.1", "! \"10.0.0.1\" has no prefix"},
		{"address", "10.0.0.1/33", "!"}, {"address", "fd00::1/129", "!"}, {"address", "10.0.0.1/024", "!"}, {"address", "10.0.0.1/", "!"},
		{"address", "10.0.0.1/-1", "!"}, {"address", "010.0.0.1/8", "!"}, {"address", "10.0.0/8", "!"}, {"address", "fe80::1%lo/64", "! \"fe80::1%lo/64\" has a zone"},
		{"address", "::ffff:10.0.0.1/128", "!"}, {"address", "0.0.0.0/0", "!"}, {"address", "::/0", "!"}, {"address", "ff02::1/64", "!"},
		{"address", "127.0.0.1/8", "!"}, {"address", "::1/128", "!"}, {"address", "", "!"}, {"address", "/24", "!"}, {"address", "10.0.0.1/24/8", "!"},
		{"bare", "10.0.0.1", "10.0.0.1/32"}, {"bare", "fd00::1", "fd00::1/128"},
		{"allowed", "0.0.0.0/0", "0.0.0.0/0"}, {"allowed", "::/0", "::/0"}, {"allowed", "224.0.0.0/4", "224.0.0.0/4"}, {"allowed", "10.0.0.1", "10.0.0.1/32"},
		{"server", "1.1.1.1", "1.1.1.1"}, {"server", "fe80::1%eth0", "fe80::1%eth0"}, {"server", "1.1.1.1:53", "!"}, {"server", "0.0.0.0", "!"}, {"server", "x", "!"},
		{"host", "a.example.net", "a.example.net"}, {"host", "a.example.net.", "a.example.net."}, {"host", "_x.net", "_x.net"}, {"host", "localhost", "localhost"},
		{"host", "", "!"}, {"host", ".", "!"}, {"host", "a..b", "!"}, {"host", "-a.b", "!"}, {"host", "a-.b", "!"}, {"host", "a b", "!"},
		{"host", "1.2.3", "! \"1.2.3\" is not an IPv4"}, {"host", strings.Repeat("a", 64), "!"}, {"host", strings.Repeat("a.", 127), strings.Repeat("a.", 127)},
		{"host", strings.Repeat("a.", 128), "!"}, {"host", "ü.de", "!"}, {"host", "a/b", "!"}, {"host", "$(x)", "!"},
		{"endpoint", "a.example:51820", "a.example:51820"}, {"endpoint", "1.2.3.4:1", "1.2.3.4:1"}, {"endpoint", "[2001:DB8:0::1]:65535", "[2001:db8::1]:65535"},
		{"endpoint", "[fe80::1%eth0]:1", "[fe80::1%eth0]:1"}, {"endpoint", "a", "! the endpoint \"a\" has no port"}, {"endpoint", "a:", "!"}, {"endpoint", "a:0", "!"},
		{"endpoint", "a:65536", "!"}, {"endpoint", "a:http", "!"}, {"endpoint", ":1", "!"}, {"endpoint", "2001:db8::1:51820", "! the endpoint \"2001:db8::1:51820\" looks like an IPv6"},
		{"endpoint", "[a]:1", "!"}, {"endpoint", "[1.2.3.4]:1", "!"}, {"endpoint", "[::1]", "!"}, {"endpoint", "[::1]1", "!"}, {"endpoint", "[::]:1", "!"},
		{"endpoint", "0.0.0.0:1", "!"}, {"endpoint", "255.255.255.255:1", "!"}, {"endpoint", "239.1.1.1:1", "!"}, {"endpoint", "[ff02::1]:1", "!"},
		{"endpoint", "[::ffff:1.2.3.4]:1", "!"}, {"endpoint", "1.2.3.256:1", "!"}, {"endpoint", "", "!"}, {"endpoint", "[]:1", "!"},
		{"tunnel", "wg0", "wg0"}, {"tunnel", "a_b=c+d.e-f", "a_b=c+d.e-f"}, {"tunnel", "123456789012345", "123456789012345"}, {"tunnel", "1234567890123456", "!"},
		{"tunnel", "", "!"}, {"tunnel", "a/b", "!"}, {"tunnel", "a b", "!"}, {"tunnel", "a\tb", "!"}, {"tunnel", ".", "!"}, {"tunnel", "..", "!"},
		{"tunnel", "all", "!"}, {"tunnel", "default", "!"}, {"tunnel", "wg%d", "!"}, {"tunnel", "a:b", "!"}, {"tunnel", "-a", "!"}, {"tunnel", "ü", "!"}, {"tunnel", "a;b", "!"}, {"tunnel", "a\x00", "!"},
		{"instance", "site-a", "site-a"}, {"instance", ".x", "!"}, {"instance", "-x", "!"}, {"instance", "", "!"}, {"instance", "a/b", "!"}, {"instance", strings.Repeat("a", 65), "!"},
		{"peer", "läptop@home", "läptop@home"}, {"peer", "", "!"}, {"peer", "a b", "!"}, {"peer", "a\n", "!"}, {"peer", "\xff", "!"}, {"peer", strings.Repeat("a", 65), "!"},
		{"public", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="},
		{"public", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dh=", "! this is not a public key: it is not the base64"},
		{"public", strings.Repeat("ü", 44), "! this is not a public key: it is not the base64"}, {"public", strings.Repeat("A", 43), "! this is not a public key: it has 43"},
		{"command", "echo 1", "echo 1"}, {"command", "", "!"}, {"command", "a\nb", "!"}, {"command", strings.Repeat("a", MaxHookSize+1), "!"},
	} {
		got := parsers[c.parser](c.in)
		if refused := strings.HasPrefix(c.want, "!"); refused != strings.HasPrefix(got, "!") || !refused && got != c.want || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s(%q) = %q, want %q", c.parser, c.in, got, c.want)
		}
	}
}

// A peer has its own wire or the tunnel's, wherever that stands.
func TestWires(t *testing.T) {
	text, err := os.ReadFile("testdata/good/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, r := parseYAML("full.yaml", text, fakeSecret)
	if errs, _ := r.finish(); len(errs) > 0 {
		t.Fatal(errs)
	}
	var got []string
	for _, x := range f.Tunnels {
		s := fmt.Sprint(x.Name, " ", x.Wire, " ", x.PostQuantum, " ", x.Speaks(WireCulvert), x.Speaks(WireWireGuard))
		for _, p := range x.Peers {
			s += fmt.Sprint(", ", p.Name, " ", p.Wire, " ", p.PostQuantum)
		}
		got = append(got, s)
	}
	want := []string{
		"office wireguard false false true, branch wireguard false, läptop@home wireguard false",
		"second culvert false true false",
		"third culvert false true true, culvert culvert true, other wireguard false",
		"fourth culvert true true false, culvert culvert true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("read as\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	third := f.Tunnels[2]
	if third.WirePos.Line != 50 || third.Peers[1].WirePos.Line != 49 || third.Peers[0].PostQuantumPos.Line != 45 ||
		third.Peers[0].WirePos != (Position{}) || f.Tunnels[3].PostQuantumPos.Line != 53 {
		t.Errorf("places: %+v", f.Tunnels[2:])
	}
	w, r, _ := parseWGQuick("wg0.conf", []byte(wgHead+wgPeer))
	if errs, _ := r.finish(); len(errs) > 0 || w.Tunnels[0].Wire != WireWireGuard || w.Tunnels[0].Peers[0].Wire != WireWireGuard {
		t.Errorf("wg-quick: %v, %+v", errs, w.Tunnels[0])
	}
}

func TestSuggest(t *testing.T) {
	tunnel := []string{"mode", "listen", "private_key_file", "addresses", "mtu", "wire", "peers"}
	for in, want := range map[string]string{
		"lisen": "listen", "Listen": "listen", "ListenPort": "listen", "adresses": "addresses", "address": "addresses",
		"privat_key_file": "private_key_file", "private-key-file": "private_key_file", "peer": "peers", "pers": "peers",
		"tmu": "mtu", "quux": "", "": "", strings.Repeat("x", 1000): "",
	} {
		if got := suggest(in, tunnel); got != want {
			t.Errorf("suggest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
