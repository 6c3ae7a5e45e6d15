package monitor

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"culvert/control"
	"culvert/internal/golden"
)

func exposition(t *testing.T, s *Snapshot, peers bool) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&collector{func() (*Snapshot, time.Time) { return s, sampleTime }, func() bool { return peers }})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// zeros are the series of reasons for drops that never occurred: there are too many to be read.
var zeros = regexp.MustCompile(`(?m)^culvert_drops_total\{.*\} 0\n`)

func TestExposition(t *testing.T) {
	s := sample()
	text := exposition(t, &s, true)
	if n := len(zeros.FindAllString(text, -1)); n != 2*len(reasons)-4 {
		t.Errorf("%d reasons that never occurred, of %d", n, len(reasons))
	}
	text = strings.ReplaceAll(zeros.ReplaceAllString(text, ""), fmt.Sprintf("goversion=%q", goVersion()), `goversion="go"`)
	golden.Check(t, "testdata/metrics.txt", text)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		if !strings.Contains(text, "\n"+f.name+"{") && !strings.Contains(text, "\n"+f.name+" ") {
			t.Errorf("the sample has nothing of %s", f.name)
		}
	}
	without := exposition(t, &s, false)
	for _, f := range families {
		if has := strings.Contains(without, "\n"+f.name+"{"); f.peer && has {
			t.Errorf("%s is there without series of peers", f.name)
		}
	}
	if !strings.Contains(without, "\nculvert_peers_without_series 4\n") || strings.Contains(without, "branch") {
		t.Error("peers are shown, or not counted, without series of peers")
	}
}

// However many peers there are, the series stay bounded, and are of the same peers each time; those that were connected come first.
func TestPeerSeriesAreBounded(t *testing.T) {
	s := sample()
	var peers []control.Peer
	for i := range MaxPeerSeries + 1000 {
		p := control.Peer{PublicKey: keyOf(i), Wire: "culvert"}
		if i%10 == 0 {
			p.LatestHandshake, p.Connected = sampleTime, true
		}
		peers = append(peers, p)
	}
	s.Tunnels[0].Peers = peers
	text := exposition(t, &s, true)
	if n := strings.Count(text, "\nculvert_peer_session{"); n != MaxPeerSeries {
		t.Errorf("%d peers have series", n)
	}
	if n := strings.Count(text, "\nculvert_peer_session{") - strings.Count(strings.ReplaceAll(text, "} 1\n", "}\n"), "} 0\n"); n > MaxPeerSeries {
		t.Error(n)
	}
	connected := regexp.MustCompile(`(?m)^culvert_peer_session\{.*\} 1$`).FindAllString(text, -1)
	if len(connected) != (len(peers)+9)/10 {
		t.Errorf("%d connected peers have series, want %d", len(connected), (len(peers)+9)/10)
	}
	if !strings.Contains(text, "\nculvert_peers_without_series 1001\n") { // and the one of the other tunnel
		t.Error("what is left out is not counted")
	}
	slices.Reverse(s.Tunnels[0].Peers)
	if exposition(t, &s, true) != text {
		t.Error("the order of peers decides who has series")
	}
}

func TestMetricsOfNothing(t *testing.T) {
	if text := exposition(t, &Snapshot{}, true); !strings.Contains(text, "culvert_tunnel") && !strings.Contains(text, "culvert_start_time_seconds 0") {
		t.Error(text)
	}
}

var updateDocs = flag.Bool("docs", false, "write the generated parts of the documents anew")

const operations = "../../../docs/operations.md"

// The table in docs/operations.md is what there is.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("<!-- metrics -->\n| metric | labels | what it says |\n|---|---|---|\n")
	for _, f := range families {
		labels := "`" + strings.Join(f.labels, "`, `") + "`"
		if len(f.labels) == 0 {
			labels = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.name, labels, f.help)
	}
	b.WriteString("<!-- end -->")
	block := regexp.MustCompile(`(?s)<!-- metrics -->\n.*?<!-- end -->`)
	if !block.Match(text) {
		t.Fatal("docs/operations.md has no place for the metrics")
	}
	want := block.ReplaceAllLiteralString(string(text), b.String())
	if *updateDocs {
		if err := os.WriteFile(operations, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Error("the table of metrics in docs/operations.md is not what there is: run go generate ./cmd/culvert/monitor")
	}
}

// Every metric and label that the dashboard asks for is there.
func TestDashboardAsksForWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/grafana/culvert.json")
	if err != nil {
		t.Fatal(err)
	}
	var board any
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	known := map[string]*family{}
	for _, f := range families {
		known[f.name] = f
	}
	queries, used := 0, map[string]bool{}
	metric := regexp.MustCompile(`\b((?:culvert|wireguard|process|go)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	label := regexp.MustCompile(`([a-zA-Z_]+) *(?:=~|!~|!=|=)`)
	grouped := regexp.MustCompile(`\b(?:by|on|ignoring|group_left) *\(([^)]*)\)`)
	beyond := []string{"job", "instance", "__name__"} // of the server that scrapes
	check := func(query string) {
		queries++
		labels := slices.Clone(beyond)
		found := metric.FindAllStringSubmatch(query, -1)
		if len(found) == 0 {
			t.Errorf("%q asks for nothing of ours", query)
		}
		for _, m := range found {
			if strings.HasPrefix(m[1], "process_") || strings.HasPrefix(m[1], "go_") {
				continue
			}
			f := known[m[1]]
			if f == nil {
				t.Errorf("%q asks for %s, which does not exist", query, m[1])
				continue
			}
			used[f.name] = true
			labels = append(labels, f.labels...)
			for _, l := range label.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(f.labels, l[1]) && !slices.Contains(beyond, l[1]) {
					t.Errorf("%q: %s has no label %s", query, f.name, l[1])
				}
			}
			if f.kind == prometheus.CounterValue && !regexp.MustCompile(`(rate|increase)\([^)]*`+f.name).MatchString(query) && !strings.Contains(query, "label_values") {
				t.Errorf("%q shows the counter %s as it is", query, f.name)
			}
		}
		for _, g := range grouped.FindAllStringSubmatch(query, -1) {
			for l := range strings.SplitSeq(g[1], ",") {
				if l = strings.TrimSpace(l); l != "" && !slices.Contains(labels, l) {
					t.Errorf("%q groups by %s, which none of its metrics has", query, l)
				}
			}
		}
		if strings.Count(query, "(") != strings.Count(query, ")") || strings.Count(query, "{") != strings.Count(query, "}") {
			t.Errorf("%q is not closed", query)
		}
	}
	ids := map[float64]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			if q, ok := v["expr"].(string); ok {
				check(q)
			}
			if q, ok := v["definition"].(string); ok {
				check(q)
			}
			if _, ok := v["gridPos"]; ok {
				id, _ := v["id"].(float64)
				if ids[id] {
					t.Errorf("two panels have the id %v", id)
				}
				ids[id] = true
			}
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(board)
	if queries < 15 || len(used) < 20 {
		t.Errorf("%d queries for %d metrics", queries, len(used))
	}
}
