package top

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"culvert/control"
	"culvert/crypto"
	"culvert/internal/golden"
	"culvert/server/terminal"
)

var start = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// network is what the daemons say after n seconds.
func network(n int) Snapshot {
	wave := func(mean, swing float64, period int) uint64 { // the integral of a rate that swings, in bytes
		t := float64(n)
		w := 2 * math.Pi / float64(period)
		return uint64(mean*t + swing/w*(1-math.Cos(w*t)))
	}
	at := start.Add(time.Duration(n) * time.Second)
	peer := func(i byte, name string) control.Peer {
		return control.Peer{
			PublicKey: crypto.PublicKey{i}, Name: name, Wire: "culvert", PostQuantum: true, Suite: "AES-256-GCM",
			Endpoint: fmt.Sprintf("192.0.2.%d:51820", i), Source: "198.51.100.1", LatestHandshake: start.Add(-time.Duration(i) * time.Second), Connected: n+int(i) < 180,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20, i, 0}), 24)},
			Native:     &control.Native{PathMTU: 1449, InnerMTU: 1416, PathSettled: true, RTT: 0.0123, RTTMin: 0.0095, RTTVar: 0.001, Loss: new(0.0), Agent: "culvert v1"},
		}
	}
	branch, alice, bob, phone, silent, evil := peer(1, "branch"), peer(2, "alice"), peer(3, "bob"), peer(4, "phone"), peer(5, "silent"), peer(6, "")
	branch.ReceivedBytes, branch.SentBytes, branch.ReceivedPackets, branch.SentPackets = wave(40e6, 30e6, 20), wave(1e6, 0.8e6, 12), 100000*uint64(n), 9000
	branch.Native.Lanes = []control.Lane{
		{Open: true, Endpoint: "192.0.2.1:51820", SentBytes: 1 << 20, ReceivedBytes: 512}, {Number: 1, SentBytes: 4 << 30},
	}
	alice.ReceivedBytes, alice.SentBytes = wave(2e3, 1e3, 8), wave(90e3, 60e3, 30)
	alice.Native.RTT, alice.Native.Loss = 0.180+0.02*math.Sin(float64(n)), new(0.031)
	alice.Access = &control.Access{Default: "deny", Rules: 2, Flows: 3, Quota: &control.Quota{Bytes: 5e10, Used: 1 << 30, Every: "month"}, FromPeer: control.AccessDrops{Denied: uint64(7 * n)}}
	bob.LatestHandshake, bob.Connected, bob.ReceivedBytes, bob.SentBytes = start.Add(-2*time.Hour), false, 5000, 6000
	phone.Wire, phone.PostQuantum, phone.Suite, phone.Native, phone.Keepalive = "wireguard", false, "ChaCha20-Poly1305", nil, 25
	phone.ReceivedBytes, phone.SentBytes = uint64(32*n), uint64(32*n)
	branch.LastHeard, phone.LastHeard = at, at.Add(-time.Duration(n%25)*time.Second) // of the others an older daemon does not tell
	silent.LatestHandshake, silent.Connected, silent.HandshakeAttempts, silent.Native = time.Time{}, false, 4+n/5, &control.Native{PathMTU: 1232, InnerMTU: 1199}
	silent.Suite, silent.SentBytes = "", uint64(148*(n/5))
	evil.Endpoint, evil.TCP = "[2001:db8::6]:443", true
	evil.Native.Agent = "\x1b[2J\x1b[31mpwned\u202e"
	evil.ReceivedBytes = uint64(100 * n)
	return Snapshot{At: at, Took: 3 * time.Millisecond, Instances: []control.Instance{
		{Name: "site-a", Kind: "up", PID: 4711, Started: start, Tunnels: []control.Tunnel{
			{
				Interface: "office", Mode: "tun", Up: true, ListenPort: 51820, MTU: 1416, Peers: []control.Peer{branch, silent, bob, evil},
				Drops: map[string]uint64{"out: no peer for destination": 12, "in: replayed": uint64(3 * n)},
			},
			{Interface: "spare", Mode: "tun", MTU: 1420},
		}},
		{Name: "road", Kind: "up", PID: 4712, Started: start, Tunnels: []control.Tunnel{
			{Interface: "road", Mode: "tun", Up: true, UnderLoad: true, ListenPort: 443, MTU: 1280, Peers: []control.Peer{alice, phone}, Drops: map[string]uint64{"in: denied by rule": uint64(7 * n)}},
		}},
	}}
}

// seen is a view of the given size after n samples of network.
func seen(width, height, n int, o Options) *Model {
	o.Interval = time.Second
	m := New(o)
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	for i := range n {
		m.Update(network(i))
	}
	return m
}

// keys presses keys: a word of several letters is the name of one.
func keys(m *Model, names ...string) (last tea.Cmd) {
	special := map[string]rune{
		"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "end": tea.KeyEnd, "home": tea.KeyHome,
		"pgdown": tea.KeyPgDown, "pgup": tea.KeyPgUp, "backspace": tea.KeyBackspace, "space": tea.KeySpace,
	}
	for _, name := range names {
		k := tea.KeyPressMsg{Text: name, Code: []rune(name)[0]}
		if code, ok := special[name]; ok {
			k = tea.KeyPressMsg{Code: code}
		} else if name == "ctrl+c" {
			k = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		}
		_, last = m.Update(k)
	}
	return last
}

func frame(m *Model) string {
	lines := m.Frame()
	for i := range lines {
		lines[i] = trimRight(lines[i])
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestFrames(t *testing.T) {
	for name, m := range map[string]*Model{
		"list":    seen(80, 24, 40, Options{}),
		"wide":    seen(180, 40, 40, Options{}),
		"small":   seen(60, 12, 40, Options{}),
		"tiny":    seen(24, 6, 40, Options{}),
		"ascii":   seen(80, 24, 40, Options{ASCII: true}),
		"colours": seen(80, 24, 40, Options{Drawn: Colour}),
		"mono":    seen(80, 24, 40, Options{Drawn: Mono}),
		"one":     seen(80, 24, 40, Options{Name: "site-a"}),
		"first":   seen(80, 24, 1, Options{}),
		"asking":  seen(80, 24, 0, Options{}),
		"detail":  seen(80, 24, 40, Options{}),
		"lanes":   seen(130, 50, 200, Options{}),
		"access":  seen(80, 30, 40, Options{}),
		"hostile": seen(80, 24, 40, Options{}),
		"help":    seen(80, 24, 40, Options{}),
		"typing":  seen(80, 24, 40, Options{}),
		"trouble": seen(80, 24, 40, Options{}),
		"tunnel":  seen(80, 24, 40, Options{}),
		"nothing": seen(80, 24, 40, Options{}),
		"paused":  seen(80, 24, 40, Options{}),
	} {
		switch name {
		case "detail", "lanes":
			keys(m, "enter")
		case "access":
			keys(m, "/", "a", "l", "i", "c", "enter", "enter")
		case "hostile":
			keys(m, "S", "/", "4", "4", "3", "enter", "enter")
		case "help":
			keys(m, "?")
		case "typing":
			keys(m, "/", "O", "f", "x", "backspace", "f")
		case "trouble":
			keys(m, "a", "a", "down")
		case "tunnel":
			keys(m, "t", "s", "r")
		case "nothing":
			keys(m, "/", "z", "z", "enter")
		case "paused":
			keys(m, "space")
			m.Update(network(45))
		}
		t.Run(name, func(t *testing.T) { golden.Check(t, "testdata/"+name+".txt", frame(m)) })
	}
}

// No line is wider than the window, and there are as many as it has, whatever its size and the page.
func TestFramesFit(t *testing.T) {
	for _, drawn := range []Drawn{Plain, Colour} {
		m := seen(80, 24, 40, Options{Drawn: drawn})
		m.err = errors.New("something\nin several lines, and with \x1b[2J")
		pages := map[string]func(){
			"list": func() { m.page = listPage }, "help": func() { m.page = helpPage },
			"detail": func() { m.page = listPage; keys(m, "home", "enter") }, "typing": func() { m.page = listPage; m.typing = true },
		}
		for _, name := range []string{"list", "help", "detail", "typing"} {
			pages[name]()
			for width := 1; width <= 230; width += 1 + width/40 {
				for _, height := range []int{1, 2, 3, 5, 8, 10, 13, 14, 17, 18, 24, 31, 60} {
					m.Update(tea.WindowSizeMsg{Width: width, Height: height})
					lines := m.Frame()
					if len(lines) != height {
						t.Fatalf("%s at %dx%d: %d lines", name, width, height, len(lines))
					}
					for i, l := range lines {
						if w := ansi.StringWidth(l); w > width {
							t.Fatalf("%s at %dx%d: line %d is %d wide: %q", name, width, height, i, w, l)
						}
						if rest := ansi.Strip(l); terminal.Safe(rest) != rest {
							t.Fatalf("%s at %dx%d: line %d holds what is not printable: %q", name, width, height, i, l)
						}
					}
				}
			}
			m.typing = false
		}
	}
}

func TestOrders(t *testing.T) {
	m := seen(120, 30, 40, Options{})
	names := func() string {
		var list []string
		for i := range m.rows {
			list = append(list, m.rows[i].name()[:2])
		}
		return strings.Join(list, " ")
	}
	for i, want := range []string{
		"br al Bg ph si bo", // rate; the nameless one's key begins with Bg
		"al bo br ph si Bg", // name
		"bo br si Bg al ph", // tunnel
		"br ph al Bg bo si", // last heard
		"al bo br Bg ph si", // round trip
		"al bo br Bg ph si", // loss; not measured last
		"br al Bg ph bo si", // in
		"br al ph si bo Bg", // out
		"br al bo Bg ph si", // total
		"br al Bg ph si bo",
	} {
		if got := names(); got != want {
			t.Errorf("order %d, by %s: %s, want %s", i, orderNames[m.order], got, want)
		}
		keys(m, "s")
	}
	keys(m, "S", "r")
	if got := names(); got != "bo si ph Bg al br" {
		t.Errorf("reversed: %s", got)
	}
}

func TestCursorStaysWithItsPeer(t *testing.T) {
	m := seen(80, 24, 40, Options{})
	keys(m, "down")
	if got := m.rows[m.cursor].name(); got != "alice" {
		t.Fatal(got)
	}
	keys(m, "s", "s", "r")
	if got := m.rows[m.cursor].name(); got != "alice" {
		t.Errorf("sorted by tunnel the other way round: %s", got)
	}
	keys(m, "enter")
	m.Update(network(41))
	if f := frame(m); !strings.Contains(f, "road > alice") {
		t.Error(f)
	}
	keys(m, "esc", "end", "down", "pgdown")
	if m.cursor != len(m.rows)-1 {
		t.Errorf("cursor %d of %d", m.cursor, len(m.rows))
	}
	keys(m, "home", "up", "pgup")
	if m.cursor != 0 {
		t.Errorf("cursor %d", m.cursor)
	}
}

// A daemon that ends is shown as it was, for a while; one that comes back counts anew.
func TestDaemonComesAndGoes(t *testing.T) {
	m := seen(80, 24, 40, Options{})
	only := func(n int, names ...string) Snapshot {
		s := network(n)
		var kept []control.Instance
		for _, in := range s.Instances {
			for _, name := range names {
				if in.Name == name {
					kept = append(kept, in)
				}
			}
		}
		s.Instances = kept
		return s
	}
	for n := 40; n < 45; n++ {
		m.Update(only(n, "road"))
	}
	golden.Check(t, "testdata/gone.txt", frame(m))
	for n := 45; n < 80; n++ {
		m.Update(only(n, "road"))
	}
	if f := frame(m); strings.Contains(f, "office") || !strings.Contains(f, "alice") {
		t.Errorf("after %v:\n%s", linger, f)
	}
	back := network(1) // small counts again
	back.At = start.Add(80 * time.Second)
	back.Instances[0].PID++
	m.Update(back)
	branch := peerID{"site-a", "office", crypto.PublicKey{1}}
	if track := m.history.peers[branch]; known(track.inRate) {
		t.Errorf("the first sample of a process has a rate: %v", track.inRate)
	}
	again := network(2)
	again.At = start.Add(81 * time.Second)
	again.Instances[0].PID++
	m.Update(again)
	if track := m.history.peers[branch]; track.inRate < 100e6 || track.inRate > 600e6 {
		t.Errorf("rate %v", track.inRate)
	}

	alone := seen(80, 24, 0, Options{Name: "site-a"})
	alone.Update(only(1, "site-a"))
	alone.Update(Snapshot{At: start.Add(time.Hour), Err: errors.New("nothing called site-a is running")})
	if f := frame(alone); !strings.Contains(f, "site-a does not run any more, since 13:00:00") || !strings.Contains(f, "branch") {
		t.Errorf("an instance that was asked for stays:\n%s", f)
	}
}

// While one sample is on its way no other is asked for, a slow daemon is asked less often, and a paused view asks nothing.
func TestAsking(t *testing.T) {
	asked := 0
	m := New(Options{Interval: time.Second, Ask: func(context.Context) Snapshot { asked++; return Snapshot{} }})
	m.Init()
	now := start
	tickOnce := func() bool {
		now = now.Add(time.Second)
		return m.ticked(now) != nil
	}
	if tickOnce() {
		t.Error("asked while the first was on its way")
	}
	m.Update(Snapshot{At: now, Took: time.Millisecond})
	if !tickOnce() || tickOnce() {
		t.Error("one a second")
	}
	m.Update(Snapshot{At: now, Took: 2 * time.Second})
	for i := range 5 {
		if tickOnce() {
			t.Errorf("asked %d s after an answer that took 2 s", i+1)
		}
	}
	if !tickOnce() {
		t.Error("not asked after 6 s")
	}
	m.Update(Snapshot{At: now})
	keys(m, "space")
	for range 2 {
		if tickOnce() {
			t.Error("asked while paused")
		}
	}
	if keys(m, "space") == nil || !m.asking {
		t.Error("the end of a pause asks at once")
	}
	if tickOnce() {
		t.Error("asked twice")
	}
	for range 10 {
		tickOnce()
	}
	if n := m.notice(); !strings.Contains(n, "no answer for") {
		t.Errorf("notice %q of a daemon that does not answer", n)
	}
}

func TestQuit(t *testing.T) {
	for _, name := range []string{"q", "ctrl+c"} {
		m := seen(80, 24, 2, Options{})
		if cmd := keys(m, name); cmd == nil || cmd() != tea.Quit() {
			t.Errorf("%s does not end it", name)
		}
	}
	m := seen(80, 24, 2, Options{})
	if cmd := keys(m, "/", "q"); cmd != nil || m.filter != "q" {
		t.Error("q in a filter is a letter")
	}
	if cmd := keys(m, "ctrl+c"); cmd == nil {
		t.Error("ctrl+c in a filter ends it")
	}
}

// Ten thousand peers: what is remembered of idle ones is small, and the ends of the list are reached.
func TestManyPeers(t *testing.T) {
	const n = 10000
	many := func(sample int) Snapshot {
		peers := make([]control.Peer, n)
		for i := range peers {
			peers[i] = control.Peer{
				PublicKey: crypto.PublicKey{byte(i), byte(i >> 8), 1}, Name: fmt.Sprintf("client-%05d", i), Wire: "culvert",
				ReceivedBytes: uint64(sample * i), LatestHandshake: start, Connected: true, Native: &control.Native{},
			}
		}
		return Snapshot{At: start.Add(time.Duration(sample) * time.Second), Instances: []control.Instance{
			{Name: "hub", PID: 1, Tunnels: []control.Tunnel{{Interface: "hub", Up: true, Peers: peers}}}}}
	}
	m := New(Options{Interval: time.Second})
	m.Update(tea.WindowSizeMsg{Width: 100, Height: 30})
	for i := range 5 {
		m.Update(many(i))
	}
	if f := frame(m); !strings.Contains(f, "10000 of 10000 peers in contact") || !strings.Contains(f, "client-09999") || !strings.Contains(f, "1/10000") {
		t.Error(f)
	}
	keys(m, "s", "end")
	if f := frame(m); !strings.Contains(f, "client-09999") || !strings.Contains(f, "10000/10000") {
		t.Error(f)
	}
	keys(m, "/", "0", "9", "9", "9")
	if f := frame(m); !strings.Contains(f, "/0999") || !strings.Contains(f, "11 of 10000") {
		t.Error(f)
	}
	rings := 0
	for _, track := range m.history.peers {
		for _, s := range []series{track.out, track.rtt} {
			if s != nil {
				rings++
			}
		}
	}
	if rings > 2*n/2 {
		t.Errorf("%d series of peers that send nothing take memory", rings)
	}
	// What has gone is forgotten.
	for i := 5; i < 5+tracksFor+2; i++ {
		m.Update(Snapshot{At: start.Add(time.Duration(i) * time.Second)})
	}
	if len(m.history.peers)+len(m.history.tunnels) != 0 {
		t.Errorf("%d peers and %d tunnels that are gone are remembered", len(m.history.peers), len(m.history.tunnels))
	}
}

func TestTypedTextIsBounded(t *testing.T) {
	m := seen(80, 24, 2, Options{})
	keys(m, "/")
	m.Update(tea.PasteMsg{Content: strings.Repeat("x", 5000) + "\x1b[2J\n"})
	if len(m.filter) > 64 || strings.ContainsAny(m.filter, "\x1b\n") {
		t.Errorf("%q", m.filter)
	}
}

func TestOnce(t *testing.T) {
	n := 0
	var out strings.Builder
	o := Options{Interval: time.Millisecond, Ask: func(context.Context) Snapshot { n++; return network(n) }}
	if err := Once(t.Context(), o, &out, 100); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/once.txt", out.String())
}
