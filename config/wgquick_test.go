package config

import (
	"strings"
	"testing"
)

const wgHead = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"
const wgPeer = "[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n"

// What wg-quick takes is read as wg-quick reads it.
func TestWGQuickReads(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{wgHead, ""},
		{"[INTERFACE]\nprivatekey=yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", ""},
		{"\t[Interface] # x\n\t PrivateKey\t=\tyAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\t# y", ""},
		{wgHead + "ListenPort=51820\nFwMark=51820\nMTU=1420\nTable=off\nSaveConfig=false",
			"ListenPort = 51820\nFwMark = 0xca6c\nMTU = 1420\nTable = off\n"},
		{wgHead + "FwMark = off\nTable = auto\n", "FwMark = off\n"},
		{wgHead + "Address = 10.0.0.1,fd00::1/64\nAddress = 10.0.1.1/24 10.0.2.1/24\n", "Address = 10.0.0.1/32, fd00::1/64, 10.0.1.1/24, 10.0.2.1/24\n"},
		{wgHead + "DNS = a.example, 1.1.1.1 b.example\nDNS = fd00::53\n", "DNS = 1.1.1.1, fd00::53, a.example, b.example\n"},
		{wgHead + "PostUp = a = b; c\nPostUp = d # e\nPreDown = x\n", "PostUp = a = b; c\nPostUp = d\nPreDown = x\n"},
		{wgHead + wgPeer, "\n# peer1\n" + wgPeer},
		{wgHead + wgPeer + "AllowedIPs =\nPersistentKeepalive = off\n", "\n# peer1\n" + wgPeer},
		{wgHead + wgPeer + "AllowedIPs = 10.0.0.7/8 , ::1\nAllowedIPs=0.0.0.0/0\nPersistentKeepalive = 0\n", "\n# peer1\n" + wgPeer + "AllowedIPs = 10.0.0.0/8, ::1/128, 0.0.0.0/0\n"},
		{wgHead + wgPeer + "PresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "\n# peer1\n" + wgPeer},
		{wgHead + wgPeer + "Endpoint = [fe80::1%eth0]:1\n", "\n# peer1\n" + wgPeer + "Endpoint = [fe80::1%eth0]:1\n"},
	} {
		f, r, _ := parseWGQuick("wg0.conf", []byte(c.text))
		if errs, _ := r.finish(); len(errs) > 0 {
			t.Errorf("%q: %v", c.text, errs)
			continue
		}
		var out strings.Builder
		if _, err := WriteWGQuick(&out, &f.Tunnels[0]); err != nil {
			t.Errorf("%q: %v", c.text, err)
		}
		if got := strings.TrimPrefix(out.String(), wgHead); got != c.want {
			t.Errorf("%q is read as\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
}

// What is wrong is told with its place; warnings are marked by a W.
func TestWGQuickErrors(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", []string{"1:1: the file has no [Interface]"}},
		{"# [Interface]\n", []string{"1:1: the file has no [Interface]"}},
		{"[Interface]\n", []string{"1:1: the [Interface] section has no PrivateKey"}},
		{"[Interface]\nPrivateKey =\n", []string{"2:13: this is not a private key: it has 0 characters"}},
		{"[Interface]\nPrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", []string{"2:14: the private key is all zeros"}},
		{wgHead + "[Peer]\n", []string{"3:1: the [Peer] section has no PublicKey", "W3:1: peer peer1 has no allowed IPs"}},
		{wgHead + "[ Peer ]\nX = 1\n", []string{"3:1: unknown section \"[ Peer ]\""}},
		{wgHead + "Adress = 10.0.0.1/8\n", []string{"3:1: unknown key \"Adress\" in [Interface]"}},
		{wgHead + "PublicKey = x\n", []string{"3:1: unknown key \"PublicKey\" in [Interface]"}},
		{wgHead + "MTU = 1000\nAddress = fd00::1/64\n", []string{"3:7: IPv6 needs an MTU"}},
		{wgHead + "Address = 10.0.0.1/8, ü 10.0.0.2/8 10.0.0.1/16\n", []string{"3:23: \"ü\" is not an IP address", "3:36: the address 10.0.0.1 is given twice"}},
		{wgHead + "PostUp = a # b\n", []string{"W3:12: what follows the # is a comment"}},
		{wgHead + "PostUp = \n", []string{"3:9: the command is empty"}},
		{wgHead + "ListenPort\n", []string{"3:1: this line is neither"}},
		{wgHead + wgPeer + "AllowedIPs = 10.0.0.0/8 10.1.0.0/16\n", []string{"5:14: \"10.0.0.0/8 10.1.0.0/16\" has no valid prefix length"}},
		{wgHead + wgPeer + "AllowedIPs = -10.0.0.0/8\n", []string{"5:14: \"-10.0.0.0/8\": a file states the whole set"}},
		{wgHead + wgPeer + "AllowedIPs = 10.0.0.1/8, 10.0.0.0/8\n", []string{"W5:14: \"10.0.0.1/8\" has bits set", "W5:26: 10.0.0.0/8 is given twice"}},
		{wgHead + "\x00", []string{"3:1: the file holds the control character U+0000"}},
		{wgHead + "Address = 10.0.0.1/8\r# x\n", []string{"3:21: the file holds the control character U+000D"}},
	} {
		_, r, _ := parseWGQuick("wg0.conf", []byte(c.text))
		errs, warnings := r.finish()
		var got []string
		for _, e := range errs {
			got = append(got, strings.TrimPrefix(e.Error(), "wg0.conf:"))
		}
		for _, e := range warnings {
			if !strings.Contains(e.Message, "no allowed IPs") || len(c.want) == 2 {
				got = append(got, "W"+strings.TrimPrefix(e.Error(), "wg0.conf:"))
			}
		}
		ok := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			ok = ok && strings.HasPrefix(got[i], c.want[i])
		}
		if !ok {
			t.Errorf("%q:\n%s\nwant %q", c.text, strings.Join(got, "\n"), c.want)
		}
	}
}
