package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// sameInParts checks that a text reads the same as one and in parts of one and of three entries.
func sameInParts(t *testing.T, text string, errorsToo bool) (cuts int) {
	t.Helper()
	one, r := parseYAMLParts("x.yaml", []byte(text), fakeSecret, 0)
	wantErrs, wantWarnings := r.finish()
	for _, entries := range []int{1, 3} {
		_, c := cutOut(strings.ReplaceAll(text, "\r\n", "\n"), entries)
		cuts += len(c)
		got, r := parseYAMLParts("x.yaml", []byte(text), fakeSecret, entries)
		errs, warnings := r.finish()
		if (len(errs) == 0) != (len(wantErrs) == 0) {
			t.Fatalf("in parts of %d: %v\nas one: %v\nof\n%s", entries, errs, wantErrs, text)
		}
		if len(errs) > 0 {
			if errorsToo && errs.Error() != wantErrs.Error() {
				t.Fatalf("in parts of %d:\n%v\nas one:\n%v\nof\n%s", entries, errs, wantErrs, text)
			}
			continue
		}
		if !reflect.DeepEqual(got, one) || !reflect.DeepEqual(warnings, wantWarnings) {
			t.Fatalf("in parts of %d:\n%+v\nas one:\n%+v\nof\n%s", entries, got, one, text)
		}
	}
	return cuts
}

func TestPartsReadAsOne(t *testing.T) {
	cuts := 0
	for _, pattern := range []string{"testdata/errors/*.yaml", "testdata/good/*.yaml", "../examples/*.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("nothing matches %s: %v", pattern, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			cuts += sameInParts(t, string(text), true)
		}
	}
	if cuts == 0 {
		t.Error("no list of peers was cut")
	}
}

// What peers may look like, and what may stand around them.
func TestPartsOfOddPeers(t *testing.T) {
	const head = "version: 1\ntunnels:\n  a:\n    private_key_file: k\n"
	key := func(i int) string { return madeKey(i) }
	for name, c := range map[string]struct {
		text string
		cut  bool
	}{
		"flow":            {head + "    peers:\n" + keyed("      p%d: {public_key: %s}\n", 7), true},
		"block":           {head + "    peers:\n" + keyed("      p%d:\n        public_key: %s\n        keepalive: 25s\n", 7), true},
		"comments":        {head + "    peers: # these\n# none\n" + keyed("      # next\n\n      p%d: {public_key: %s} # so\n#x\n", 7), true},
		"keys behind":     {head + "    peers:\n" + keyed("      p%d: {public_key: %s}\n", 7) + "    listen: 5\n    mtu: 1400\n", true},
		"two tunnels":     {head + "    peers:\n" + keyed("      p%d: {public_key: %s}\n", 4) + "  b:\n    private_key_file: l\n    peers:\n" + keyed("      p%d: {public_key: %s}\n", 5), true},
		"quoted names":    {head + "    peers:\n" + keyed("      \"p%d\": {'public_key': \"%s\"}\n", 5), true},
		"CRLF":            {strings.ReplaceAll(head+"    peers:\n"+keyed("      p%d: {public_key: %s}\n", 7), "\n", "\r\n"), true},
		"name twice":      {head + "    peers:\n" + keyed("      p%d: {public_key: %s}\n", 5) + "      p1: {public_key: " + key(9) + "}\n", true},
		"key twice":       {head + "    peers:\n" + keyed("      p%d: {public_key: %s}\n", 5) + "      q: {public_key: " + key(1) + "}\n", true},
		"unknown keys":    {head + "    peers:\n" + keyed("      p%d: {public_kay: %s}\n", 5), true},
		"no mapping":      {head + "    peers:\n" + keyed("      p%d: [%s]\n", 5), true},
		"a list":          {head + "    peers:\n" + keyed("      - {public_key: %[2]s, name: \"%[1]d\"}\n", 5), true},
		"at a wrong key":  {head + "    switch:\n      peers:\n" + keyed("        p%d: {public_key: %s}\n", 5), true},
		"at the root":     {"peers:\n" + keyed("  p%d: {public_key: %s}\n", 5) + head, true},
		"peers twice":     {head + "    peers:\n" + keyed("      p%d: {public_key: %s}\n", 5) + "    peers:\n" + keyed("      q%d: {public_key: %s}\n", 5), true},
		"no peers":        {head + "    peers:\n    listen: 1\n", false},
		"over lines":      {head + "    peers:\n" + keyed("      p%d: {public_key:\n        %s}\n", 5), false},
		"in brackets":     {head + "    peers: {\n" + keyed("      p%d: {public_key: %s},\n", 5) + "    }\n", false},
		"unindented":      {head + "    peers:\n" + keyed("      p%d: {public_key: %s}\n", 5) + "     q: {public_key: " + key(9) + "}\n", false},
		"in block text":   {head + "    hooks:\n      pre_up:\n        - |\n          peers:\n            a\n            b\n            c\n            d\n", false},
		"commented block": {head + "    hooks:\n      pre_up:\n        - |2 # text\n          peers:\n            a\n            b\n            c\n            d\n", false},
		"folded text":     {head + "    hooks:\n      pre_up: [\"x\n        peers:\n          a\n          b\n          c\n          d\"]\n", false},
		"plain text":      {head + "    hooks:\n      pre_up:\n      - x\n        peers:\n          a\n          b\n          c\n          d\n", true},
		"quotes in words": {head + "    hooks:\n      pre_up: [it's 'x, ']\n    peers:\n      a\n      b\n      c\n      d ']\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			if cuts := sameInParts(t, c.text, name != "a list" && name != "plain text"); (cuts > 0) != c.cut {
				t.Errorf("%d cuts", cuts)
			}
		})
	}
}

func TestStandsAlone(t *testing.T) {
	for line, want := range map[string]bool{
		"": true, "a: b": true, "  a: 'b' # it's": true, `a: "b\"c"`: true, "- - 'a'": true, "{a: 'b', c: [\"d\"]}": true, "a: b#c": true,
		"a: |": false, "a: >-": false, "- |2": false, "a: |2- # c": false, "a: 'b": false, `a: "b\"`: false, "a: [b": false, "a: b]": false,
		"a: it's": false, "[a - 'x, ']": false, "[a:'x, ']": false, "[it's, \"x']": false, "\ta: b": false, "a: 'b'c": false, "a: 'b' c": false,
		"{a: b}}": false, "]a[": false, "a: 'it''s'": true, "a: '#'": true, "a: \"b\" #": true, "'a': b": true, "a: 'b'#c": false,
	} {
		if got := standsAlone(line); got != want {
			t.Errorf("standsAlone(%q) = %v", line, got)
		}
	}
}

// FuzzParts compares what is read in parts with what is read as one.
func FuzzParts(f *testing.F) {
	paths, _ := filepath.Glob("testdata/good/*.yaml")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("version: 1\ntunnels:\n  a:\n    private_key_file: k\n    peers:\n" + keyed("      p%d: {public_key: %s}\n", 5) + "    mtu: 1400\n")
	f.Add("version: 1\ntunnels:\n  a:\n    private_key_file: k\n    peers:\n" + keyed("      p%d:\n        public_key: '%s'\n", 5) + "    hooks:\n      pre_up:\n      - |\n        peers:\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<14 {
			return
		}
		sameInParts(t, text, false)
	})
}

// A file of ten thousand peers is read, in memory that does not follow the library's appetite.
func TestTenThousandPeers(t *testing.T) {
	var text strings.Builder
	text.WriteString("version: 1\ntunnels:\n  a:\n    private_key_file: k\n    peers:\n")
	const peers = 10_000
	for i := range peers {
		fmt.Fprintf(&text, "      peer%d: {public_key: %s, endpoints: [\"192.0.2.1:%d\"], allowed_ips: [10.%d.%d.%d/32]}\n", i, madeKey(i), 1+i, i>>16, i>>8&255, i&255)
	}
	f, r := parseYAML("x.yaml", []byte(text.String()), fakeSecret)
	if errs, _ := r.finish(); len(errs) > 0 {
		t.Fatal(errs[0])
	}
	if n := len(f.Tunnels[0].Peers); n != peers {
		t.Fatalf("%d peers", n)
	}
	last := &f.Tunnels[0].Peers[peers-1]
	if want := (Position{"x.yaml", peers + 5, 7}); last.Pos != want || last.Name != "peer9999" || last.AllowedIPs[0].String() != "10.0.39.15/32" {
		t.Errorf("the last peer is %+v", last)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	runtime.KeepAlive(f)
	f = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := int64(before.HeapAlloc-after.HeapAlloc) / peers; each > 1500 {
		t.Errorf("a peer of a file takes %d bytes", each)
	} else {
		t.Logf("a peer of a file takes %d bytes", each)
	}
}
