package config

import (
	"fmt"
	"strings"
	"testing"
)

// Hostile files of the largest size: each is refused before a parser that recurses or takes quadratic time sees it.
func TestYAMLBounds(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, maxPiece/len(s)-100) }
	var keys, nested strings.Builder
	for i := range maxSibling + 1 {
		fmt.Fprintf(&keys, "k%d: 1\n", i)
	}
	for i := range MaxDepth + 1 {
		fmt.Fprintf(&nested, "%*sa:\n", i, "")
	}
	for name, c := range map[string]struct{ text, part string }{
		"open lists": {fill("["), "too many parts"}, "some lists": {strings.Repeat("[", MaxDepth+1), "nested deeper than 16"},
		"open mappings":      {strings.Repeat("a: {", 100_000), "nested deeper than 16"},
		"lists of lists":     {strings.Repeat("- ", 200_000), "nested deeper than 16"},
		"keys within keys":   {strings.Repeat("? ", 200_000), "? keys are not accepted"},
		"indented mappings":  {nested.String() + strings.Repeat(" ", MaxDepth+1) + "b: 1\n", "nested deeper than 16"},
		"many keys":          {keys.String(), "more than 17384 keys"},
		"many elements":      {"a: [" + fill("1,") + "]", "too many parts"},
		"many entries":       {"a:\n" + fill("- 1\n"), "too many parts"},
		"long key":           {strings.Repeat("k", maxKey+1) + ": 1\n", "longer than 256 bytes"},
		"long text":          {"a: " + fill("x"), "longer than 8192 bytes"},
		"long quoted text":   {"a: \"" + fill("x") + "\"\n", "longer than 8192 bytes"},
		"unclosed text":      {"a: \"" + strings.Repeat("x\n", 4000), "end character of double-quoted"},
		"anchors":            {strings.Repeat("- &a x\n", 70_000), "anchors and aliases are not accepted"},
		"aliases":            {strings.Repeat("- *a\n", 70_000), "anchors and aliases are not accepted"},
		"tags":               {strings.Repeat("- !a x\n", 70_000), "tags are not accepted"},
		"documents":          {strings.Repeat("---\na: 1\n", 1000), "second YAML document"},
		"tunnels":            {"version: 1\ntunnels:\n" + numbered("  t%d: {private_key_file: k}\n", MaxTunnels+1), "more than 64 tunnels"},
		"peers":              {"version: 1\ntunnels:\n  a:\n    private_key_file: k\n    peers:\n" + keyed("      p%d: {public_key: %s}\n", MaxPeers+1), "more than 16384 peers"},
		"addresses":          {"version: 1\ntunnels: {a: {private_key_file: k, addresses: [" + numbered("\"fd00::%d/64\",", MaxAddresses+1) + "]}}\n", "more than 256 elements"},
		"allowed IPs":        {allowed("version: 1\ntunnels:\n  a:\n    private_key_file: k\n    peers:\n", "      p%d: {public_key: %s, allowed_ips: [%s]}\n", ","), "more than 65536 allowed IPs"},
		"endpoints":          {"version: 1\ntunnels: {a: {peers: {b: {endpoints: [" + numbered("\"h:%d\",", MaxEndpoints+1) + "]}}}}\n", "more than 8 elements"},
		"pinned addresses":   {"version: 1\ntunnels: {a: {mode: tap, private_key_file: k, peers: {b: {public_key: " + madeKey(1) + ", macs: [" + madeMACs(0, MaxMACs+1) + "]}}}}\n", "more than 4096 elements"},
		"pinned, all peers":  {"version: 1\ntunnels: {a: {mode: tap, private_key_file: k, peers: {b: {public_key: " + madeKey(1) + ", macs: [" + madeMACs(0, MaxMACs) + "]}, c: {public_key: " + madeKey(2) + ", macs: [" + madeMACs(MaxMACs, 1) + "]}}}}\n", "more than 4096 pinned MAC addresses"},
		"VLANs":              {"version: 1\ntunnels: {a: {mode: tap, private_key_file: k, peers: {b: {public_key: " + madeKey(1) + ", vlan: {tagged: [" + numbered("%d,", maxVLAN+1) + "]}}}}}\n", "more than 4094 elements"},
		"ranges of VLANs":    {"version: 1\ntunnels: {a: {mode: tap, private_key_file: k, peers: {b: {public_key: " + madeKey(1) + ", vlan: {tagged: [" + strings.Repeat("1-4094,", maxVLAN+1) + "]}}}}}\n", "more errors from here on"},
		"name servers":       {"version: 1\ntunnels: {a: {dns: {servers: [" + numbered("\"fd00::%d\",", MaxDNS+1) + "]}}}\n", "more than 64 elements"},
		"hooks":              {"version: 1\ntunnels: {a: {hooks: {pre_up: [" + numbered("c%d,", MaxHooks+1) + "]}}}\n", "more than 64 elements"},
		"long hook":          {"version: 1\ntunnels: {a: {hooks: {pre_up: [" + strings.Repeat("c", MaxHookSize+1) + "]}}}\n", "longer than 4096 bytes"},
		"errors":             {numbered("k%d: 1\n", MaxErrors+50), "and 52 more errors from here on"},
		"errors of a lexer":  {strings.Repeat("- &a\n", 70_000), "more errors from here on"},
		"peers on one line":  {"version: 1\ntunnels: {a: {private_key_file: k, peers: {" + keyed("p%d: {public_key: %s},", MaxPeers+1) + "}}}\n", "larger than 1048576 bytes without its peers"},
		"comments and blank": {fill("# x\n\n"), "no configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := parseYAML("x.yaml", []byte(c.text), fakeSecret)
			errs, _ := r.finish()
			if !strings.Contains(errs.Error(), c.part) {
				t.Fatalf("got %.400v; want %q", errs, c.part)
			}
			checkErrors(t, []byte(c.text), errs)
			if n := len(errs); n > MaxErrors+1 {
				t.Errorf("%d errors", n)
			}
		})
	}
}

func TestWGQuickBounds(t *testing.T) {
	const head = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"
	for name, c := range map[string]struct{ text, part string }{
		"peers":        {head + keyed("[Peer]\n#%d\nPublicKey=%s\n", MaxPeers+2), "more than 16384 peers"},
		"addresses":    {head + numbered("Address = fd00::%d/64\n", MaxAddresses+1), "more than 256 values"},
		"one line":     {head + "Address = " + numbered("fd00::%d/64 ", MaxAddresses+1), "more than 256 values"},
		"name servers": {head + "DNS = " + numbered("fd00::%d ", MaxDNS+1), "more than 64 name servers"},
		"domains":      {head + "DNS = " + numbered("n%d.net ", 2*MaxDNS+1), "more than 128 values"},
		"hooks":        {head + numbered("PreUp = c%d\n", MaxHooks+1), "more than 64 commands"},
		"allowed IPs":  {head + allowed("", "[Peer]\n#%d\nPublicKey=%s\nAllowedIPs=%s\n", ","), "more than 65536 allowed IPs"},
		"commas":       {head + "AllowedIPs = 1\n[Peer]\nAllowedIPs = " + strings.Repeat(",", MaxFileSize/2), "more errors from here on"},
		"long line":    {head + strings.Repeat("x", MaxFileSize/2), "neither a key"},
		"sections":     {strings.Repeat("[x]\n", MaxFileSize/4), "more errors from here on"},
	} {
		t.Run(name, func(t *testing.T) {
			_, r, _ := parseWGQuick("wg0.conf", []byte(c.text))
			errs, _ := r.finish()
			if !strings.Contains(errs.Error(), c.part) {
				t.Fatalf("got %.400v; want %q", errs, c.part)
			}
			checkErrors(t, []byte(c.text), errs)
			if n := len(errs); n > MaxErrors+1 {
				t.Errorf("%d errors", n)
			}
		})
	}
}

// The largest tunnel that is accepted: as many peers as there may be, with keys and networks of their own.
func TestManyPeers(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\ntunnels:\n  a:\n    private_key_file: k\n    wire: wireguard\n    peers:\n")
	for i := range 3000 {
		fmt.Fprintf(&b, "      p%d: {public_key: %s, allowed_ips: [10.%d.%d.0/24]}\n", i, madeKey(i), i/256, i%256)
	}
	f, r := parseYAML("x.yaml", []byte(b.String()), fakeSecret)
	if errs, _ := r.finish(); len(errs) > 0 {
		t.Fatalf("%.400v", errs)
	}
	if n := len(f.Tunnels[0].Peers); n != 3000 {
		t.Errorf("%d peers", n)
	}
	rewriteYAML(t, f)
	rewriteWGQuick(t, f)
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func keyed(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i, madeKey(i))
	}
	return b.String()
}

func madeKey(i int) string {
	text, _, _ := fakeSecret(fmt.Sprint(i))
	return strings.TrimSpace(string(text))
}

// madeMACs makes n addresses, the first of which ends in the number from.
func madeMACs(from, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\"52:54:00:%02x:%02x:%02x\",", (from+i)>>16, (from+i)>>8&255, (from+i)&255)
	}
	return b.String()
}

// allowed makes peers with more allowed IPs than a tunnel may have.
func allowed(head, peer, comma string) string {
	var b strings.Builder
	b.WriteString(head)
	for i := range 5 {
		nets := make([]string, MaxAllowedIPs/5+1)
		for j := range nets {
			nets[j] = fmt.Sprintf("%d.%d.%d.0", i, j>>8, j&255)
		}
		fmt.Fprintf(&b, peer, i, madeKey(i), strings.Join(nets, comma))
	}
	return b.String()
}
