package config

import (
	"strings"
	"testing"
)

// No error or warning shows a key, wherever in the file it stands and whatever is wrong with its line.
func TestErrorsHideKeys(t *testing.T) {
	const key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
	const hex = "c809f3e5317e9575c9b5ed78b638b7ce530dabe85ddab6142202418" + "01ddf0669"
	for name, text := range map[string]string{
		"inline":            "version: 1\ntunnels:\n  wg0:\n    private_key: KEY\n",
		"inline, flow":      "version: 1\ntunnels: {wg0: {private_key: KEY}}\n",
		"quoted key":        "version: 1\ntunnels: {wg0: {\"private_key\": \"KEY\", 'preshared_key': 'KEY'}}\n",
		"as a file":         "version: 1\ntunnels: {wg0: {private_key_file: KEY}}\n",
		"misspelt":          "version: 1\ntunnels: {wg0: {privat_ky: KEY}}\n",
		"as the key":        "version: 1\ntunnels: {wg0: {KEY: 1}}\n",
		"as a tunnel":       "version: 1\ntunnels: {KEY: 1}\n",
		"as a peer":         "version: 1\ntunnels: {wg0: {peers: {KEY: 1}}}\n",
		"as an address":     "version: 1\ntunnels: {wg0: {addresses: [KEY], mtu: KEY, listen: KEY, mode: KEY, wire: KEY, post_quantum: KEY}}\n",
		"as an endpoint":    "version: 1\ntunnels: {wg0: {peers: {a: {endpoints: [KEY, \"KEY:1\", \"[KEY]:1\"]}}}}\n",
		"literal":           "version: 1\ntunnels:\n  wg0:\n    private_key: |\n      KEY\n",
		"bare line":         "version: 1\nKEY\n",
		"unclosed quote":    "version: 1\nprivate_key: \"KEY\n",
		"reserved":          "version: 1\n@KEY\n",
		"escape":            "version: 1\n\"\\qKEY\"\n",
		"hex":               "version: 1\nHEX\n",
		"psk with a typo":   "version: 1\ntunnels: {wg0: {peers: {a: {presharedkey: KEY, public_key: 3}}}}\n",
		"cut":               "version: 1\nprivate_key: " + key[:20] + "\n",
		"conf, typo":        "[Interface]\nPrivatKey = KEY\n",
		"conf, bad":         "[Interface]\nPrivateKey = KEYx\n",
		"conf, hex":         "[Interface]\nPrivateKey = HEX\n",
		"conf, twice":       "[Interface]\nPrivateKey = KEY\nPrivateKey = KEY\n",
		"conf, in [Peer]":   "[Peer]\nPrivateKey = KEY\n",
		"conf, no section":  "PrivateKey = KEY\n",
		"conf, no key":      "[Interface]\nKEY\n",
		"conf, as section":  "[KEY]\n",
		"conf, psk":         "[Peer]\nPresharedKey = KEYKEY\n",
		"conf, blanks":      "[Interface]\nPrivate Key =   KEY KEY\n",
		"conf, other value": "[Interface]\nAddress = KEY\nMTU = KEY\nDNS = KEY\nTable = KEY\n",
		"conf, cut":         "[Interface]\nPrivateKey = " + key[:20] + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.NewReplacer("KEY", key, "HEX", hex).Replace(text)
			var r *report
			if strings.HasPrefix(name, "conf") {
				_, r, _ = parseWGQuick("wg0.conf", []byte(text))
			} else {
				_, r = parseYAML("wg0.yaml", []byte(text), fakeSecret)
			}
			errs, warnings := r.finish()
			if len(errs) == 0 {
				t.Fatal("accepted")
			}
			shown := errs.Error()
			for _, w := range warnings {
				shown += w.Error()
			}
			for _, part := range []string{key[:12], key[12:24], key[30:42], hex[:16], hex[40:56]} {
				if strings.Contains(shown, part) {
					t.Fatalf("a part of the key is shown:\n%s", shown)
				}
			}
		})
	}
}

func TestRedact(t *testing.T) {
	const key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
	for _, c := range []struct {
		line   string
		column int
		want   string
		at     int
	}{
		{"PrivateKey = abc", 14, "PrivateKey = (hidden)", 14},
		{"PrivateKey = abc", 16, "PrivateKey = (hidden)", 14},
		{"PrivateKey =", 13, "PrivateKey =", 13},
		{"private_key_file: a.key", 19, "private_key_file: a.key", 19},
		{"public_key: " + key, 13, "public_key: " + key, 13},
		{"x: " + key + " y", 4, "x: (hidden) y", 4},
		{"x: " + key + " y", 49, "x: (hidden) y", 13},
		{"f: /var/lib/culvert/keys-of-this-host/office/branch", 4, "f: /var/lib/culvert/keys-of-this-host/office/branch", 4},
	} {
		if got, at := redact(c.line, c.column, secrets(c.line)); got != c.want || at != c.at {
			t.Errorf("redact(%q, %d) = %q, %d; want %q, %d", c.line, c.column, got, at, c.want, c.at)
		}
	}
}
