package config

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"culvert/setup/spec"
)

const clientPeer = "[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nEndpoint = 192.0.2.1:51820\nAllowedIPs = "

// What wg-quick files say of name servers and default routes becomes keys of a client, and the same files come back of them.
func TestImportClient(t *testing.T) {
	for name, c := range map[string]struct {
		head, allowed string
		want, not     []string // in the YAML
		warnings      int
	}{
		"all": {"Address = 10.8.0.2/24, fd08::2/64\nDNS = 10.8.0.53, corp.example\n", "0.0.0.0/0, ::/0",
			[]string{"full_tunnel: true\n", "servers: [\"10.8.0.53\"]\n", "search: [corp.example]\n"}, []string{"domains"}, 1},
		"IPv4 alone":              {"Address = 10.8.0.2/24\n", "0.0.0.0/0", []string{"full_tunnel: [ipv4]\n"}, nil, 2},
		"IPv6 without an address": {"Address = 10.8.0.2/24\n", "0.0.0.0/0, ::/0", []string{"full_tunnel: [ipv4]\n"}, nil, 2},
		"a mark":                  {"Address = 10.8.0.2/24\nFwMark = 0x10\n", "0.0.0.0/0", []string{"full_tunnel: [ipv4]\n", "fwmark: 0x10\n"}, nil, 2},
		"no mark":                 {"Address = 10.8.0.2/24\nFwMark = off\n", "0.0.0.0/0", nil, []string{"full_tunnel"}, 0},
		"table's mark":            {"Address = 10.8.0.2/24\nFwMark = 254\n", "0.0.0.0/0", nil, []string{"full_tunnel"}, 0},
		"no table":                {"Address = 10.8.0.2/24\nTable = off\n", "0.0.0.0/0", []string{"table: off\n"}, []string{"full_tunnel"}, 0},
		"a table":                 {"Address = 10.8.0.2/24\nTable = 77\n", "0.0.0.0/0", []string{"table: 77\n"}, []string{"full_tunnel"}, 0},
		"some":                    {"Address = 10.8.0.2/24\n", "10.0.0.0/8", nil, []string{"full_tunnel", "dns"}, 0},
	} {
		f, r, _ := parseWGQuick("wg0.conf", []byte(wgHead+c.head+clientPeer+c.allowed+"\n"))
		if errs, _ := r.finish(); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
			continue
		}
		in := ImportWGQuick(f, "")
		var out, back bytes.Buffer
		if err := WriteYAML(&out, in.File); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: %q is missing in\n%s", name, w, &out)
			}
		}
		for _, w := range c.not {
			if strings.Contains(out.String(), w) {
				t.Errorf("%s: %q is in\n%s", name, w, &out)
			}
		}
		if len(in.Warnings) != c.warnings {
			t.Errorf("%s: %d warnings: %v", name, len(in.Warnings), Errors(in.Warnings))
		}
		y, ry := parseYAML("wg0.yaml", out.Bytes(), fakeSecret)
		if errs, _ := ry.finish(); len(errs) > 0 {
			t.Errorf("%s: refused: %v\n%s", name, errs, &out)
			continue
		}
		y.Tunnels[0].PrivateKey = f.Tunnels[0].PrivateKey
		if _, err := WriteWGQuick(&back, &y.Tunnels[0]); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(c.head) {
			key, _, _ := strings.Cut(line, " =")
			if want := strings.ReplaceAll(line, "254", "0xfe"); !strings.Contains(back.String(), want) && key != "FwMark" {
				t.Errorf("%s: %q is not in\n%s", name, want, &back)
			}
		}
	}
}

func TestExportClient(t *testing.T) {
	y, r := parseYAML("a.yaml", []byte(`version: 1
tunnels:
  a:
    private_key_file: k
    wire: wireguard
    addresses: [10.8.0.2/24]
    full_tunnel: true
    kill_switch: true
    except: [192.168.0.0/16]
    dns: {servers: [10.8.0.53], domains: [corp.example, "~lab.example"], resolver: resolved}
    peers:
      p: {public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", endpoints: ["192.0.2.1:1"], allowed_ips: [0.0.0.0/0]}
`), fakeSecret)
	if errs, _ := r.finish(); len(errs) > 0 {
		t.Fatal(errs)
	}
	var out bytes.Buffer
	warnings, err := WriteWGQuick(&out, &y.Tunnels[0])
	if err != nil || len(warnings) != 4 || !strings.Contains(out.String(), "DNS = 10.8.0.53, corp.example\n") {
		t.Errorf("%v, %q:\n%s", err, warnings, &out)
	}
}

// What a file says of a tunnel, and what it leaves to be found out, is what the setup layer is told.
func TestClient(t *testing.T) {
	f := readGood(t, "testdata/good/setup.yaml")
	var c *spec.Client
	for i := range f.Setup.Links {
		if f.Setup.Links[i].Key == "vpn" {
			c = f.Setup.Links[i].Client
		}
	}
	if c == nil {
		t.Fatal("nothing")
	}
	if !slices.Equal(c.Full, []int{4, 6}) || !slices.Equal(c.Carries, []int{4}) || !c.AnyEndpoint || !c.Lookup || len(c.Endpoints) != 1 || c.Listen != 51820 {
		t.Errorf("%+v", c)
	}
	if c.Mark>>16 != 0x6376 || c.Mark != c.Table {
		t.Errorf("mark %#x, table %d", c.Mark, c.Table)
	}
	if want := []string{"corp.example", "lab", "~."}; !slices.Equal(c.DNS.Routes(false), want) {
		t.Errorf("domains %q, want %q", c.DNS.Routes(false), want)
	}
	if again := readGood(t, "testdata/good/setup.yaml"); again.Tunnels[len(again.Tunnels)-1].Mark != c.Mark {
		t.Error("another mark at the next start")
	}
	if f.Tunnels[0].Mark != 0 {
		t.Errorf("a tunnel that needs no mark has %#x", f.Tunnels[0].Mark)
	}
}
