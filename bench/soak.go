package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"culvert/internal/lab"
)

// SoakTrial is a daemon that runs for a while with traffic, and with everything happening to it that does in years: reloads, peers that
// restart or are killed, addresses that change, an underlay that goes away, captures, commands.
type SoakTrial struct {
	Round      int            `json:"round"` // from 1
	LoadBefore string         `json:"load_before"`
	Error      string         `json:"error,omitempty"`
	Minutes    float64        `json:"minutes"`
	Events     map[string]int `json:"events"` // how often what has happened
	Pings      int64          `json:"pings"`
	Answers    int64          `json:"answers"`  // the others were sent during the events
	Sessions   uint64         `json:"sessions"` // handshakes completed by the daemon, either wire
	Samples    []SoakSample   `json:"samples"`
}

// SoakSample is what the daemon holds at a quiet moment.
type SoakSample struct {
	Second      float64 `json:"second"`
	Goroutines  int     `json:"goroutines"`
	Descriptors int     `json:"descriptors"`
	Threads     int     `json:"threads"`
	Resident    int64   `json:"resident_bytes"`
}

func (t *SoakTrial) fail(err error) { t.Error = err.Error() }

const (
	soakEvery = 5 * time.Second // an event
	soakPause = 2 * time.Second // behind an event, before a sample
)

// soakScene is two sites: the daemon of the first is watched, that of the second suffers.
type soakScene struct {
	s      *stage
	a, b   *liveSite
	wire   lab.Wire
	turned bool // there is another peer, and an address
	moved  bool // the underlay's address is the other one
}

func (c *soakScene) files() error {
	more := ""
	if c.turned {
		more = `      gone: {public_key: "` + strings.Repeat("A", 42) + `E=", allowed_ips: [10.99.0.0/16], endpoints: ["192.0.2.77:1"]}
`
	}
	text := func(own, far *liveSite, n, m, more string) string {
		out := ""
		for i, wire := range []string{"culvert", "wireguard"} {
			out += fmt.Sprintf(`  wg%d:
    private_key_file: own.key
    listen: %d
    addresses: [10.20.%d.%s/24]
    peers:
      far: {public_key: %q, wire: %s, keepalive: 25s, allowed_ips: [10.20.%d.%s/32], endpoints: ["192.0.2.%s:%d"]}
`, i, 2000+i, i, n, far.public, wire, i, m, m, 2000+i)
			if i == 0 {
				out += more
			}
		}
		return out
	}
	return errors.Join(c.a.configure(text(c.a, c.b, "1", "2", more)), c.b.configure(text(c.b, c.a, "2", "1", "")))
}

// soakEvents are what happens, in turns.
var soakEvents = []struct {
	name string
	do   func(*soakScene) error
}{
	{"status", func(c *soakScene) error {
		_, err := c.a.run(c.s, "status")
		return err
	}},
	{"reload with another peer, or without", func(c *soakScene) error {
		c.turned = !c.turned
		if err := c.files(); err != nil {
			return err
		}
		_, err := c.a.run(c.s, "reload", "site")
		return err
	}},
	{"peer restarts", func(c *soakScene) error { return c.b.signal(syscall.SIGTERM) }},
	{"reload of nothing new", func(c *soakScene) error {
		_, err := c.a.run(c.s, "reload", "site")
		return err
	}},
	{"address changes", func(c *soakScene) error {
		from, to := "192.0.2.1/24", "192.0.2.3/24"
		if c.moved {
			from, to = to, from
		}
		c.moved = !c.moved
		c.a.host.DelAddr(c.wire.A.Device, from) // first: it would take the other along
		c.a.host.AddAddr(c.wire.A.Device, to)
		return nil
	}},
	{"capture", func(c *soakScene) error {
		file := filepath.Join(c.a.folder, "capture.pcapng")
		_ = os.Remove(file)
		var said tail
		cmd := c.a.command(c.s, "capture", "site", "wg0", "-w", file)
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := c.a.host.Start(cmd); err != nil {
			return err
		}
		caught := int64(0)
		for range 100 { // until there is something in it
			time.Sleep(100 * time.Millisecond)
			if st, err := os.Stat(file); err == nil {
				caught = st.Size()
			}
			if caught > 10_000 {
				break
			}
		}
		_ = cmd.Process.Signal(syscall.SIGINT)
		err := cmd.Wait()
		if caught < 1000 {
			return fmt.Errorf("%d bytes were captured: %w\n%s", caught, err, said.String())
		}
		return nil
	}},
	{"peer is killed", func(c *soakScene) error { return c.b.signal(syscall.SIGKILL) }},
	{"underlay goes away", func(c *soakScene) error {
		c.a.host.Down(c.wire.A.Device)
		time.Sleep(500 * time.Millisecond)
		c.a.host.Up(c.wire.A.Device)
		return nil
	}},
	{"status of hung-up clients", func(c *soakScene) error {
		ctx, cancel := context.WithTimeout(c.s.Context(), time.Millisecond)
		defer cancel()
		cmd := c.a.command(c.s, "status", "--json")
		if err := c.a.host.Start(cmd); err != nil {
			return err
		}
		<-ctx.Done()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil
	}},
}

// measure makes one trial. What could be measured is in t also when there is an error.
func (t *SoakTrial) measure(s *stage, o *options) error {
	program := lab.Build(s, "culvert/cmd/culvert")
	c := &soakScene{s: s}
	var err error
	if c.a, err = newLiveSite(s, "a", program); err != nil {
		return err
	}
	if c.b, err = newLiveSite(s, "b", program); err != nil {
		return err
	}
	c.wire = lab.Link(s, c.a.host, c.b.host, lab.Addresses("192.0.2.1/24", "192.0.2.2/24"))
	if err := c.files(); err != nil {
		return err
	}
	c.a.supervise(s)
	c.b.supervise(s)
	var pingers []*pinger
	for _, ping := range []struct {
		to   string
		size int
	}{{"10.20.0.2", 56}, {"10.20.0.2", 4000}, {"10.20.1.2", 1000}} {
		p, err := startPinger(s, c.a.host, netip.MustParseAddr(ping.to), 50*time.Millisecond, ping.size)
		if err != nil {
			return err
		}
		p.id = (p.id + len(pingers)) & 0xffff
		pingers = append(pingers, p)
	}
	for _, p := range pingers {
		if _, err := p.after(time.Now(), startupTimeout); err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, c.a.text(), c.b.text())
		}
	}
	began := time.Now()
	t.Events = make(map[string]int)
	for n := 0; time.Since(began) < o.Soak; n++ {
		e := soakEvents[n%len(soakEvents)]
		if err := e.do(c); err != nil {
			return fmt.Errorf("%s: %w\n%s", e.name, err, c.a.text())
		}
		t.Events[e.name]++
		time.Sleep(soakPause)
		for _, p := range pingers { // whatever happened, all of it works again
			if _, err := p.after(time.Now(), time.Minute); err != nil {
				return fmt.Errorf("after %q: %w\n%s", e.name, err, c.a.text())
			}
		}
		sample, err := t.sample(c, time.Since(began))
		if err != nil {
			return err
		}
		t.Samples = append(t.Samples, sample)
		if s.Context().Err() != nil {
			return s.Context().Err()
		}
		time.Sleep(max(0, time.Until(began.Add(time.Duration(n+1)*soakEvery))))
	}
	t.Minutes = time.Since(began).Minutes()
	for _, p := range pingers {
		t.Pings += p.Sent.Load()
		t.Answers += p.Answers.Load()
	}
	if n := c.a.starts.Load(); n != 1 {
		return fmt.Errorf("the daemon was started %d times:\n%s", n, c.a.text())
	}
	return t.flat()
}

// sample looks at the daemon.
func (t *SoakTrial) sample(c *soakScene, at time.Duration) (SoakSample, error) {
	out, err := c.a.run(c.s, "status", "--json")
	if err != nil {
		return SoakSample{}, err
	}
	var all []struct {
		PID        int `json:"pid"`
		Goroutines int `json:"goroutines"`
		Tunnels    []struct {
			Handshakes struct {
				Completed uint64 `json:"completed"`
			} `json:"handshakes"`
		} `json:"tunnels"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		return SoakSample{}, fmt.Errorf("status says %s: %w", out, err)
	}
	t.Sessions = 0
	for _, tun := range all[0].Tunnels {
		t.Sessions += tun.Handshakes.Completed
	}
	sample := SoakSample{Second: at.Seconds(), Goroutines: all[0].Goroutines}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", all[0].PID))
	if err != nil {
		return sample, err
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", all[0].PID))
	if err != nil {
		return sample, err
	}
	sample.Descriptors, sample.Threads = len(files), len(threads)
	sample.Resident, err = residentMemory(all[0].PID)
	return sample, err
}

// soakGrowth is by how much the median of the last third of the samples may be above that of the second: of the first memory is taken that
// is needed only once.
var soakGrowth = []struct {
	name        string
	part, fixed float64
	of          func(SoakSample) float64
}{
	{"goroutines", 0, 1, func(s SoakSample) float64 { return float64(s.Goroutines) }},
	{"descriptors", 0, 1, func(s SoakSample) float64 { return float64(s.Descriptors) }},
	{"threads", 0, 2, func(s SoakSample) float64 { return float64(s.Threads) }},
	{"resident MB", 0.05, 1, func(s SoakSample) float64 { return float64(s.Resident) / 1e6 }},
}

// thirds are the medians of the second third of the samples and of the last.
func (t *SoakTrial) thirds(of func(SoakSample) float64) (second, last float64) {
	n := len(t.Samples) / 3
	middle := func(list []SoakSample) float64 {
		var v []float64
		for _, s := range list {
			v = append(v, of(s))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return middle(t.Samples[n : 2*n]), middle(t.Samples[2*n:])
}

// flat says what has grown.
func (t *SoakTrial) flat() error {
	if len(t.Samples) < 6 {
		return fmt.Errorf("%d samples are too few to say anything", len(t.Samples))
	}
	var errs []error
	for _, g := range soakGrowth {
		if second, last := t.thirds(g.of); last > second*(1+g.part)+g.fixed {
			errs = append(errs, fmt.Errorf("%s have grown from %.1f to %.1f", g.name, second, last))
		}
	}
	return errors.Join(errs...)
}

func (t *SoakTrial) summary() string {
	text := fmt.Sprintf("%.1f min, %d sessions", t.Minutes, t.Sessions)
	if len(t.Samples) >= 6 {
		for _, g := range soakGrowth {
			second, last := t.thirds(g.of)
			text += fmt.Sprintf(", %s %.1f then %.1f", g.name, second, last)
		}
	}
	if t.Error != "" {
		text += "  FAILED: " + t.Error
	}
	return text
}
