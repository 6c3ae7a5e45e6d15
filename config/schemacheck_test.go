package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// checker is as much of JSON Schema (draft 7) as the schema uses. A word it does not know is an error, so that none is passed over.
type checker struct{ root object }

// check returns what is wrong with x at path; nil where nothing is.
func (c checker) check(s any, x any, path string) (wrong []string) {
	if b, is := s.(bool); is {
		if !b {
			return []string{path + ": nothing may be here"}
		}
		return nil
	}
	m := s.(object)
	say := func(format string, args ...any) { wrong = append(wrong, path+": "+fmt.Sprintf(format, args...)) }
	text, isText := x.(string)
	number, isNumber := asNumber(x)
	mapping, isMapping := x.(object)
	array, isArray := x.([]any)
	for _, word := range slices.Sorted(maps.Keys(m)) {
		switch arg := m[word]; word {
		case "$schema", "title", "description", "definitions", "then", "else":
		case "$ref":
			id := strings.TrimPrefix(arg.(string), "#/definitions/")
			def, ok := c.root["definitions"].(object)[id]
			if !ok {
				say("no definition of %s", id)
				continue
			}
			wrong = append(wrong, c.check(def, x, path)...)
		case "type":
			is := map[string]bool{"string": isText, "integer": isNumber && number == float64(int64(number)), "object": isMapping, "array": isArray,
				"boolean": reflect.ValueOf(x).Kind() == reflect.Bool}
			if !is[arg.(string)] {
				say("%v is no %s", x, arg)
			}
		case "enum":
			if !slices.ContainsFunc(arg.([]any), func(a any) bool { return equal(a, x) }) {
				say("%v is none of %v", x, arg)
			}
		case "const":
			if !equal(arg, x) {
				say("%v is not %v", x, arg)
			}
		case "pattern":
			if isText && !regexp.MustCompile(arg.(string)).MatchString(text) {
				say("%q does not match %s", text, arg)
			}
		case "minLength", "maxLength":
			if n := float64(utf8.RuneCountInString(text)); isText && (word == "minLength" && n < arg.(float64) || word == "maxLength" && n > arg.(float64)) {
				say("%q: %s %v", text, word, arg)
			}
		case "minimum", "maximum":
			if isNumber && (word == "minimum" && number < arg.(float64) || word == "maximum" && number > arg.(float64)) {
				say("%v: %s %v", x, word, arg)
			}
		case "items":
			for i, e := range array {
				wrong = append(wrong, c.check(arg, e, fmt.Sprintf("%s[%d]", path, i))...)
			}
		case "maxItems":
			if float64(len(array)) > arg.(float64) {
				say("%d items", len(array))
			}
		case "minProperties", "maxProperties":
			if n := float64(len(mapping)); isMapping && (word == "minProperties" && n < arg.(float64) || word == "maxProperties" && n > arg.(float64)) {
				say("%s %v", word, arg)
			}
		case "required":
			for _, k := range arg.([]any) {
				if _, ok := mapping[k.(string)]; isMapping && !ok {
					say("%s is missing", k)
				}
			}
		case "properties":
			for k, v := range mapping {
				if p, ok := arg.(object)[k]; ok {
					wrong = append(wrong, c.check(p, v, path+"."+k)...)
				}
			}
		case "additionalProperties":
			known, _ := m["properties"].(object)
			for k, v := range mapping {
				if _, ok := known[k]; !ok {
					wrong = append(wrong, c.check(arg, v, path+"."+k)...)
				}
			}
		case "propertyNames":
			for k := range mapping {
				wrong = append(wrong, c.check(arg, k, path+" key "+k)...)
			}
		case "allOf":
			for _, a := range arg.([]any) {
				wrong = append(wrong, c.check(a, x, path)...)
			}
		case "anyOf":
			var all []string
			for _, a := range arg.([]any) {
				w := c.check(a, x, path)
				if w == nil {
					all = nil
					break
				}
				all = append(all, w...)
			}
			wrong = append(wrong, all...)
		case "not":
			if c.check(arg, x, path) == nil {
				say("is what it must not be")
			}
		case "if":
			branch, ok := m["then"], true
			if c.check(arg, x, path) != nil {
				branch, ok = m["else"]
			}
			if ok && branch != nil {
				wrong = append(wrong, c.check(branch, x, path)...)
			}
		default:
			say("the checker does not know %q", word)
		}
	}
	return wrong
}

func asNumber(x any) (float64, bool) {
	switch v := reflect.ValueOf(x); {
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	}
	return 0, false
}

func equal(a, b any) bool {
	m, isA := asNumber(a)
	n, isB := asNumber(b)
	return isA && isB && m == n || reflect.DeepEqual(a, b)
}

// newChecker reads the schema as a program that uses it would.
func newChecker(t *testing.T) checker {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var c checker
	if err := json.Unmarshal(text, &c.root); err != nil {
		t.Fatal(err)
	}
	return c
}

// document is a YAML text as an editor's schema sees it.
func document(t *testing.T, text []byte) any {
	t.Helper()
	var x any
	if err := yaml.Unmarshal(text, &x); err != nil {
		t.Fatal(err)
	}
	return plain(x)
}

func plain(x any) any {
	switch x := x.(type) {
	case object:
		out := object{}
		for k, v := range x {
			out[k] = plain(v)
		}
		return out
	case []any:
		out := []any{}
		for _, v := range x {
			out = append(out, plain(v))
		}
		return out
	}
	return x
}

// TestSchemaAccepts: whatever the parser takes, the schema takes.
func TestSchemaAccepts(t *testing.T) {
	c := newChecker(t)
	files := 0
	for _, pattern := range []string{"testdata/good/*.yaml", "../examples/*.yaml"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files++
			for _, w := range c.check(c.root, document(t, text), filepath.Base(path)) {
				t.Error(w)
			}
		}
	}
	if files < 20 {
		t.Errorf("%d files", files)
	}
}

// TestSchemaRefuses: what has the wrong form is refused by both.
func TestSchemaRefuses(t *testing.T) {
	c := newChecker(t)
	for _, text := range []string{
		"links: {}", "version: 1", "version: 2\nlinks: {}", "version: 1\nlinks: []", "version: 1\nlinks: {a: {}}", "version: 1\nlinks: {a: {type: brigde}}",
		"version: 1\nlinks: {a: {type: tunnel}}", "version: 1\nlinks: {a: {type: tap, stp: {}}}", "version: 1\nlinks: {a: {type: bridge, stp: {enabled: 1}}}",
		"version: 1\nlinks: {a: {external: true, stp: {}}}", "version: 1\nlinks: {a: {external: true, type: bridge, stp: {}}}",
		"version: 1\nlinks: {a: {external: false}}", "version: 1\nlinks: {a: {type: macvlan}}", "version: 1\nlinks: {a: {type: veth}}",
		"version: 1\nlinks: {a: {type: veth, peer: {netns: b}}}", "version: 1\nlinks: {a: {type: bond}}", "version: 1\nlinks: {a: {type: bond, mode: lacp}}",
		"version: 1\nlinks: {a: {type: bridge, ports: {b: {sticky: true}}}}", "version: 1\nlinks: {a: {type: tap, mtu: 67}}",
		"version: 1\nlinks: {a: {type: tap, mtu: auto}}", "version: 1\nlinks: {a: {type: tap, addresses: 10.0.0.1/24}}",
		"version: 1\nlinks: {a: {type: tap, addresses: [10.0.0.1]}}", "version: 1\nlinks: {a: {type: tap, mac: '1:2:3:4:5:6'}}",
		"version: 1\nlinks: {'a/b': {type: tap}}", "version: 1\nlinks: {a: {type: tap, handover: {socket: a}}}",
		"version: 1\nshaping: [{egress: {}}]", "version: 1\nshaping: [{source: a, egress: {}}]", "version: 1\nshaping: [{source: a, egress: {sfq: {}, cake: {}}}]",
		"version: 1\nshaping: [{source: a, egress: {tbf: {rate: 8, burst: 10k}}}]", "version: 1\nshaping: [{source: a, egress: {htb: {}}}]",
		"version: 1\nshaping: [{source: a, egress: {htb: {rate: 8mbit, leaf: {sfq: {perturb: 10}}}}}]", "version: 1\nxconnect: [{a: b}]",
		"version: 1\nservices: [{radvd: {}}]", "version: 1\nservices: [{dnsmasq: {}}]", "version: 1\nrules: [{from: 10.0.0.0/8}]",
		"version: 1\nsysctl: [{name: kernel.panic, value: 1}]", "version: 1\nsysctl: [{name: net.ipv4.ip_forward}]", "version: 1\nroutes: [10.0.0.0/8, {}]", "version: 1\nnat: [{out: a, family: 4}]", "version: 1\nnetns: {a: {external: 1}}",
		"version: 1\ntunnels: {a: {}}", "version: 1\ntunnels: {a: {private_key_file: k, alias: x}}", "version: 1\ntunnels: {a: {private_key_file: k, mode: x}}",
		"version: 1\ntunnels: {a: {private_key_file: k, peers: {b: {}}}}", "version: 1\nbridges: {}\nlinks: {}",
	} {
		if c.check(c.root, document(t, []byte(text)), "") == nil {
			t.Errorf("the schema takes %q", text)
		}
		_, r := parseYAML("x.yaml", []byte(text+"\n"), fakeSecret)
		if errs, _ := r.finish(); len(errs) == 0 {
			t.Errorf("the parser takes %q", text)
		}
	}
}

// samples are scalars as they may stand in a file.
var samples = strings.Fields(`0 1 2 3 8 10 15 63 64 100 255 256 1000 1499 4094 4095 32765 32766 65535 65536 4294967295 4294967296 -1 -64 -65 0x10 0600 0o600 777 0999
	true false yes on off ~ 1.5 10s 100ms 1.5s 30s 2s 40s 1h 61m 500us 10 0s -1s 1d 8mbit 8Mbit 500kbit 1gbit 2.5gbit 64kibit 1mbps 8bps 8 mbit 10kb 10k 1.5m 2G 3t
	none all any active main default local ipv4 ipv6 inet l2 l3 l3s bridge vepa private passthru source 802.3ad 802.1q 802.1ad active-backup lacp roundrobin ethtool
	slow fast tap tun tunnel eth0 a.b a/b -x .. lo 10.0.0.1 10.0.0.1/24 10.0.0.0/24 0.0.0.0/0 fe80::1 fd00::/8 ::/0 ::1/128 ff02::1 10.0.0.1/33 10.0.0/8 fe80::1%eth0
	::ffff:10.0.0.1 02:00:00:00:00:01 02-00-00-00-00-01 01:00:00:00:00:01 0200.0000.0001 02:00:00:00:00 /run/a.sock /run/../a run/a / /a/ 1-10 10-1 1-4095 100-110
	08:00 24:00 24:01 8:00 0800 mon tue monday Europe/Berlin UTC Local ../x 50GB 1.5TiB 1KB 0GB 10kB 2027-01-01T00:00:00Z 2027-01-01T00:00:00+01:00 2027-01-01
	2027-13-01T00:00:00Z day week year allow deny icmp tcp udp 443 8000-8100 8100-8000 65536-65537
	127.0.0.1:9586 unix:/run/a.sock 192.0.2.1:9586 example.net -a.b 0600x cake besteffort atm layer3+4 eth vlan basic net.ipv4.ip_forward net..x net.core`)

// TestScalarSchemas: the schema of each scalar takes what the parser takes, and refuses most of what it refuses.
func TestScalarSchemas(t *testing.T) {
	forms := 0
	for f := range everyKey() {
		s, ok := f.key.form.(scalar)
		if l, is := f.key.form.(list); is {
			s, ok = l.of.(scalar)
		}
		if !ok {
			continue
		}
		forms++
		text, err := json.Marshal(s.schema)
		if err != nil {
			t.Fatal(err)
		}
		var c checker
		if err := json.Unmarshal(text, &c.root); err != nil {
			t.Fatal(err)
		}
		taken, both, refused := 0, 0, 0
		words, _ := s.schema["enum"].([]any)
		all := slices.Clone(samples)
		for _, w := range words {
			all = append(all, w.(string))
		}
		for _, sample := range all {
			for _, quoted := range []string{sample, `"` + sample + `"`} {
				y := &yamlReader{report: report{src: newSource("x", []byte("a: "+quoted))}}
				n := y.yamlDocument("a: " + quoted + "\n").(*ast.MappingNode).Values[0].Value
				_, ok := s.parse(y, value{node: n, pos: Position{"x", 1, 4}, of: "a"})
				if ok != (len(y.errs) == 0) {
					t.Errorf("%s: %s is taken: %v, with errors %v", f.path, quoted, ok, y.errs)
				}
				w := c.check(c.root, document(t, []byte("a: "+quoted)).(object)["a"], f.path)
				switch {
				case ok && w != nil:
					t.Errorf("the parser takes %s, the schema does not: %v", quoted, w)
				case ok:
					taken++
				case w != nil:
					both++
				default:
					refused++
				}
			}
		}
		if taken == 0 {
			t.Errorf("%s: no sample is right", f.path)
		}
		if both < refused && f.key.form.words() != line.text { // text in quotes can be most things
			t.Logf("%s: %d refused by both, %d by the parser alone", f.path, both, refused)
		}
	}
	if forms < 150 {
		t.Errorf("%d scalars", forms)
	}
}
