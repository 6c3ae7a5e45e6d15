package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// resultsOf reads a model, with changes (old, new pairs) that must each apply, and checks the queries named; all if none.
func resultsOf(t *testing.T, files []string, change []string, queries ...int) []string {
	t.Helper()
	m := newModel()
	changed := make([]bool, len(change)/2)
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(src)
		for i := range changed {
			next := strings.ReplaceAll(text, change[2*i], change[2*i+1])
			changed[i] = changed[i] || next != text
			text = next
		}
		if err := parse(m, filepath.Base(name), text); err != nil {
			t.Fatal(err)
		}
	}
	for i, ok := range changed {
		if !ok {
			t.Fatalf("nothing reads %q", change[2*i])
		}
	}
	if len(queries) == 0 {
		for i := range m.queries {
			queries = append(queries, i+1)
		}
	}
	var out []string
	for _, n := range queries {
		v, err := check(m, m.queries[n-1], 20000)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v.result)
	}
	return out
}

const proved, open = "is true", "cannot be proved"

func TestNeedhamSchroeder(t *testing.T) {
	for file, want := range map[string]string{"needham-schroeder.pv": open, "needham-schroeder-lowe.pv": proved} {
		for i, got := range resultsOf(t, []string{"testdata/" + file}, nil) {
			if got != want {
				t.Errorf("%s, query %d %s, want: %s", file, i+1, got, want)
			}
		}
	}
}

// Each change takes one thing out of the handshake; the query that rests on it must no longer be provable.
func TestWeakenedHandshakes(t *testing.T) {
	for _, c := range []struct {
		name, scenario string
		query          int
		change         []string
	}{
		{"ss not mixed in: anybody can forge types 5 and 6", "base", 5,
			[]string{"k1(c2, ss)", "k1(c2, empty)", "k2(c2, ss)", "k2(c2, empty)"}},
		{"ee not mixed in: no forward secrecy without ML-KEM", "mlkem-broken", 1,
			[]string{"k1(c4, ee)", "k1(c4, empty)", "k2(c4, ee)", "k2(c4, empty)"}},
		{"se not mixed in: a responder whose key leaked can be told to be talking to anybody", "kci-responder", 2,
			[]string{"k1(c6, exp(epr, si))", "k1(c6, empty)", "k1(c6, exp(pki, er))", "k1(c6, empty)"}},
		{"ML-KEM's secret not mixed in: recorded traffic falls with X25519", "x25519-broken-later", 1,
			[]string{"k1(c5, decap(dk, kct))", "k1(c5, empty)", "k1(c5, kemss(m))", "k1(c5, empty)"}},
		{"PSK not mixed in: it protects nothing", "psk-only", 1,
			[]string{"(c7, psk)", "(c7, empty)"}},
		{"hello not in the transcript: the offer can be changed by who has the responder's key", "kci-responder", 2,
			[]string{"let h5 = hash(h4, hello) in", "let h5 = hash(h4, empty) in"}},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			files := []string{"../culvert.pvl", "../" + c.scenario + ".pv"}
			if got := resultsOf(t, files, c.change, c.query)[0]; got != open {
				t.Errorf("%s: query %d %s", c.name, c.query, got)
			}
		})
	}
}
