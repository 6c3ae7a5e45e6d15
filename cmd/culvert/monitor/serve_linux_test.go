package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/config"
)

func freePort(t *testing.T) config.Listen {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return config.Listen{Address: netip.MustParseAddrPort(l.Addr().String())}
}

// get asks at a place.
func get(t *testing.T, at config.Listen, path string, change ...func(*http.Request)) (*http.Response, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		if at.Socket != "" {
			return (&net.Dialer{}).DialContext(ctx, "unix", at.Socket)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", at.Address.String())
	}}, Timeout: 30 * time.Second}
	host := "x"
	if at.Socket == "" {
		host = at.Address.String()
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(r)
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil && resp.StatusCode == http.StatusOK {
		t.Fatal(err)
	}
	return resp, string(body)
}

func status(r *http.Response) int {
	if r == nil {
		return 0
	}
	return r.StatusCode
}

func host(name string) func(*http.Request)     { return func(r *http.Request) { r.Host = name } }
func method(method string) func(*http.Request) { return func(r *http.Request) { r.Method = method } }

func TestServedAndGuarded(t *testing.T) {
	m := newMonitor(t, &fixed{now: sample()})
	metrics, page := freePort(t), config.Listen{Socket: filepath.Join(t.TempDir(), "p.sock")}
	m.Start(config.Monitor{Metrics: metrics, Page: page}, func(text string) { t.Error(text) })
	port := fmt.Sprint(metrics.Address.Port())
	for _, c := range []struct {
		at     config.Listen
		path   string
		change func(*http.Request)
		want   int
		part   string
	}{
		{metrics, "/metrics", nil, 200, "wireguard_sent_bytes_total{"},
		{metrics, "/metrics", nil, 200, "process_resident_memory_bytes "},
		{metrics, "/metrics", nil, 200, "go_goroutines "},
		{metrics, "/healthz", nil, 200, `"ok"`},
		{metrics, "/readyz", nil, 503, "tunnel lan: its interface is down"},
		{metrics, "/", nil, 200, "/metrics"},
		{metrics, "/nothing", nil, 404, ""},
		{metrics, "/metrics", method("POST"), 405, "only reads"},
		{metrics, "/metrics", method("OPTIONS"), 405, ""},
		{metrics, "/metrics", method("HEAD"), 200, ""},
		{metrics, "/metrics", host("evil.example"), 421, "127.0.0.1"},
		{metrics, "/metrics", host("evil.example:" + port), 421, ""},
		{metrics, "/healthz", host("127.0.0.1.evil.example"), 421, ""},
		{metrics, "/metrics", host("192.0.2.1"), 421, ""},
		{metrics, "/metrics", host("localhost:1"), 200, ""},
		{metrics, "/metrics", host("[::1]:1"), 200, ""},
		{page, "/healthz", host("whatever"), 200, `"ok"`},
		{page, "/metrics", nil, 404, ""},
	} {
		var change []func(*http.Request)
		if c.change != nil {
			change = append(change, c.change)
		}
		r, body := get(t, c.at, c.path, change...)
		if status(r) != c.want || !strings.Contains(body, c.part) {
			t.Errorf("%v%s: %d %.300q, want %d %q", c.at, c.path, status(r), body, c.want, c.part)
			continue
		}
		if r.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: headers %v", c.path, r.Header)
		}
	}
	// Refused before it is read to its end, so that the answer may be lost.
	if r, _ := get(t, page, "/healthz", func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", 4*maxHeader)) }); status(r) != 431 && r != nil {
		t.Errorf("a header of %d bytes: %d", 4*maxHeader, status(r))
	}
	st, err := os.Stat(page.Socket)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", st.Mode(), err)
	}
}

func TestReady(t *testing.T) {
	up := sample()
	up.Tunnels[1].Up = true
	ending := up
	ending.Ready = false
	for _, c := range []struct {
		s     *Snapshot
		query string
		want  string // reasons, joined
	}{
		{&up, "", ""},
		{&up, "any", ""},
		{&up, "branch", ""},
		{&up, "branch,site-b", ""},
		{&up, "all", "tunnel office: 2 of 3 peers have no session"},
		{&up, "new,branch", `peer "new" has no session`},
		{&up, "nobody", `there is no peer "nobody"`},
		{&ending, "", "the instance is starting or ending"},
		{new(sample()), "any", "tunnel lan: its interface is down, or its port is not open"},
		{&up, "any,", "!"},
		{&up, strings.Repeat("x,", maxNames) + "x", "!"},
	} {
		var query []string
		if c.query != "" {
			query = []string{c.query}
		}
		w, err := parseWanted(query)
		if err != nil {
			if c.want != "!" {
				t.Errorf("%q: %v", c.query, err)
			}
			continue
		}
		h := ready(c.s, w)
		if got := strings.Join(h.Reasons, "; "); got != c.want || (h.Status == "ok") != (got == "") {
			t.Errorf("%q: %s, %q, want %q", c.query, h.Status, got, c.want)
		}
	}
	lonely := up
	lonely.Tunnels = slices.Clone(up.Tunnels)
	lonely.Tunnels[1].Peers = slices.Clone(lonely.Tunnels[1].Peers)
	lonely.Tunnels[1].Peers[0].Connected = false
	if h := ready(&lonely, wanted{any: true}); len(h.Reasons) != 1 || h.Tunnels[1].Connected != 0 {
		t.Errorf("%+v", h)
	}
}

// A loop that does not answer is told of after three seconds; other requests go on meanwhile.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixed{now: sample()}
		if h := live(t.Context(), f); h.Status != "ok" || len(h.Reasons) != 0 {
			t.Errorf("%+v", h)
		}
		f.dead = errors.Join(errors.New("tunnel a: gone"), errors.New("tunnel b: gone"))
		if h := live(t.Context(), f); h.Status != "failing" || len(h.Reasons) != 2 {
			t.Errorf("%+v", h)
		}
		f.slow = make(chan struct{})
		began := time.Now()
		h := live(t.Context(), f)
		if took := time.Since(began); took != aliveWithin || h.Status != "failing" || h.Reasons[0] != "no answer within 3s" {
			t.Errorf("%+v after %v", h, took)
		}
	})
}

func TestHealthAnswers(t *testing.T) {
	f := &fixed{now: sample(), dead: errors.New("tunnel office: stuck")}
	m := newMonitor(t, f)
	at := freePort(t)
	m.Start(config.Monitor{Metrics: at}, func(text string) { t.Error(text) })
	r, body := get(t, at, "/healthz")
	var h health
	if err := json.Unmarshal([]byte(body), &h); err != nil || status(r) != 503 || h.Status != "failing" || len(h.Reasons) != 1 {
		t.Errorf("%d %s", status(r), body)
	}
	if r, body := get(t, at, "/readyz?peers=,"); status(r) != 400 {
		t.Errorf("%d %s", status(r), body)
	}
}

// Many who ask at once take one snapshot, and it is let go of.
func TestSnapshotsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixed{now: sample()}
		s := shared{source: f}
		for range 100 {
			s.snapshot()
		}
		time.Sleep(shareFor)
		s.snapshot()
		if f.taken != 2 {
			t.Errorf("%d snapshots", f.taken)
		}
		time.Sleep(keepFor + time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.last != nil {
			t.Error("a snapshot is kept that nobody asks for")
		}
	})
}

// More connections than are served at once wait, and whoever says nothing is sent away.
func TestConnectionsAreBounded(t *testing.T) {
	m := newMonitor(t, &fixed{now: sample()})
	at := config.Listen{Socket: filepath.Join(t.TempDir(), "s")}
	m.Start(config.Monitor{Metrics: at}, func(text string) { t.Error(text) })
	var silent []net.Conn
	for range maxConnections {
		c, err := net.Dial("unix", at.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	c, err := net.Dial("unix", at.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("one connection too many is served: %v", err)
	}
	silent[0].Close()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("%q, %v", line, err)
	}
}

// Reloading opens before it closes, and changes nothing where something cannot be had.
func TestChange(t *testing.T) {
	m := newMonitor(t, &fixed{now: sample()})
	dir := t.TempDir()
	a, b, sock := freePort(t), freePort(t), config.Listen{Socket: filepath.Join(dir, "new", "s")}
	apply := func(c config.Monitor) error {
		change, err := m.Prepare(c)
		if err == nil {
			change.Commit()
		}
		return err
	}
	is := func(at config.Listen, path string, want int) {
		t.Helper()
		if r, body := get(t, at, path); status(r) != want {
			t.Errorf("%v%s: %d %.200s, want %d", at, path, status(r), body, want)
		}
	}
	if err := apply(config.Monitor{Metrics: a}); err != nil {
		t.Fatal(err)
	}
	is(a, "/metrics", 200)
	no := false
	if err := apply(config.Monitor{Metrics: a, Page: sock, Peers: &no}); err != nil {
		t.Fatal(err)
	}
	if _, body := get(t, a, "/metrics"); strings.Contains(body, "wireguard_sent_bytes_total") || !strings.Contains(body, "culvert_tunnel_up") {
		t.Error("series of peers are still there, or all are gone")
	}
	is(sock, "/healthz", 200)
	is(sock, "/metrics", 404)
	if err := apply(config.Monitor{Metrics: sock, Page: a}); err != nil { // what is where has changed places
		t.Fatal(err)
	}
	is(sock, "/metrics", 200)
	is(a, "/metrics", 404)
	taken, err := net.Listen("tcp", b.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := apply(config.Monitor{Metrics: b, Page: freePort(t)}); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Fatalf("an address that is taken: %v", err)
	}
	is(sock, "/metrics", 200)
	change, err := m.Prepare(config.Monitor{Metrics: sock, Page: config.Listen{Socket: filepath.Join(dir, "new", "t")}})
	if err != nil {
		t.Fatal(err)
	}
	change.Discard()
	is(a, "/healthz", 200)
	if err := apply(config.Monitor{}); err != nil {
		t.Fatal(err)
	}
	is(a, "/healthz", 0)
	if left, err := os.ReadDir(filepath.Join(dir, "new")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A place that is narrowed or widened on its own port is opened once the old one is closed; two places that are in each other's way are
// said to be.
func TestPlacesOnOnePort(t *testing.T) {
	m := newMonitor(t, &fixed{now: sample()})
	narrow := freePort(t)
	wide := config.Listen{Address: netip.AddrPortFrom(netip.IPv4Unspecified(), narrow.Address.Port())}
	for _, at := range []config.Listen{wide, narrow, wide} {
		change, err := m.Prepare(config.Monitor{Metrics: at})
		if err != nil {
			t.Fatalf("%v: %v", at, err)
		}
		change.Commit()
		if r, _ := get(t, narrow, "/metrics"); status(r) != 200 || m.places[at] == nil || len(m.places)+len(m.missing) != 1 {
			t.Errorf("%v: %d, places %v, missing %v", at, status(r), m.places, m.missing)
		}
	}
	change, err := m.Prepare(config.Monitor{Metrics: narrow})
	if err != nil {
		t.Fatal(err)
	}
	change.Discard()
	if r, _ := get(t, narrow, "/metrics"); status(r) != 200 || m.places[wide] == nil {
		t.Error("a change that was given up has changed something")
	}
	if _, err := m.Prepare(config.Monitor{Metrics: wide, Page: narrow}); err == nil || !strings.Contains(err.Error(), "own monitor, which listens at "+wide.String()) {
		t.Errorf("both, one of them there: %v", err)
	}
	if _, err := newMonitor(t, &fixed{}).Prepare(config.Monitor{Metrics: narrow, Page: wide}); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("a place of another program: %v", err)
	}
	m.Close()
	if _, err := newMonitor(t, &fixed{}).Prepare(config.Monitor{Metrics: wide, Page: narrow}); err == nil || !strings.Contains(err.Error(), "own monitor") {
		t.Errorf("both, none there: %v", err)
	}
}

// Two addresses are in nobody's way on one port: what cannot be had there is another program's, and is not waited for.
func TestPlacesOnOnePortOfTwoAddresses(t *testing.T) {
	m := newMonitor(t, &fixed{now: sample()})
	own := freePort(t)
	other := config.Listen{Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), own.Address.Port())}
	taken, err := net.Listen("tcp", other.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	m.Start(config.Monitor{Metrics: own}, func(text string) { t.Error(text) })
	for _, c := range []config.Monitor{{Metrics: other}, {Metrics: own, Page: other}} {
		if change, err := m.Prepare(c); err == nil {
			change.Discard()
			t.Errorf("%v is taken, and the change is not refused", other)
		} else if !strings.Contains(err.Error(), "another program") {
			t.Error(err)
		}
	}
}

// The history looks at the tunnels alone, and not even that where somebody has just taken a snapshot.
func TestHistoryTakesNoSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixed{now: sample()}
		m := New(f, slog.New(slog.DiscardHandler))
		m.mu.Lock()
		m.remember(true)
		m.mu.Unlock()
		time.Sleep(10*time.Second + 100*time.Millisecond)
		if f.taken != 0 || f.looked != 11 {
			t.Errorf("%d snapshots, %d looks", f.taken, f.looked)
		}
		time.Sleep(800 * time.Millisecond)
		m.shared.snapshot()
		time.Sleep(200 * time.Millisecond)
		if f.taken != 1 || f.looked != 11 {
			t.Errorf("just after a snapshot: %d snapshots, %d looks", f.taken, f.looked)
		}
		m.Close()
		time.Sleep(2 * keepFor) // the snapshot's timer
	})
}

func TestSocketPlaces(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) config.Listen { return config.Listen{Socket: filepath.Join(dir, name)} }
	file := at("file")
	if err := os.WriteFile(file.Socket, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(file, nil); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("on a file: %v", err)
	}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: at("left").Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(at("left"), nil); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("where somebody listens: %v", err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	l, err := listen(at("left"), nil)
	if err != nil {
		t.Fatalf("one that was left: %v", err)
	}
	l.Close()
	if err := os.Mkdir(filepath.Join(dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(at("open/s"), nil); err == nil || !strings.Contains(err.Error(), "others can change") {
		t.Errorf("in a folder that others can change: %v", err)
	}
	if os.Geteuid() == 0 {
		group := uint32(12345)
		l, err := listen(at("grouped"), &group)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if st, err := os.Stat(at("grouped").Socket); err != nil || groupOf(st) != group || st.Mode().Perm() != 0o660 {
			t.Errorf("group %d, mode %v, %v", groupOf(st), st.Mode(), err)
		}
	}
}

// A start goes on without what it cannot have, and has it later.
func TestStartGoesOn(t *testing.T) {
	m := newMonitor(t, &fixed{now: sample()})
	at := freePort(t)
	taken, err := net.Listen("tcp", at.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	m.Start(config.Monitor{Metrics: at}, func(text string) { told = append(told, text) })
	if len(told) != 1 || !strings.Contains(told[0], "is taken") || !strings.Contains(told[0], "tried again") {
		t.Errorf("told %q", told)
	}
	change, err := m.Prepare(config.Monitor{Metrics: at}) // a reload of the same is not refused for it
	if err != nil {
		t.Fatal(err)
	}
	change.Commit()
	taken.Close()
	m.retry()
	if r, body := get(t, at, "/metrics"); status(r) != 200 {
		t.Errorf("%d %s", status(r), body)
	}
}
