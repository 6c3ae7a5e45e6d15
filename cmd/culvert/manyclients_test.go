package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/crypto/enrolment"
	"culvert/server"
	"culvert/setup"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// crowd is a server and many clients of it in one process, on a network in memory: whole engines, and of the daemon all but the kernel.
type crowd struct {
	testing.TB
	network *transporttest.Network
	host    *transporttest.Host
	at      netip.AddrPort
	file    *config.File
	clients clientFile
	dir     string
	live    *liveTunnel
	key     crypto.PublicKey
	members []*member
	tap     *devicetest.Device // of a tunnel of frames
}

// member is one client. Of what it is told it keeps the latest.
type member struct {
	engine  *tunnel.Tunnel
	key     crypto.PrivateKey
	answers chan []byte
	told    chan server.Document
	tap     *devicetest.Device
}

func newCrowd(tb testing.TB) *crowd {
	tb.Helper()
	return newCrowdOf(tb, `    addresses: [10.20.0.1/16, "fd20::1/64"]
    server: {endpoints: ["192.0.2.1:51820"], push: {routes: [10.30.0.0/16], dns: {servers: [10.20.0.1]}}}
`)
}

// newCrowdOf is newCrowd for a tunnel of which the rest is given.
func newCrowdOf(tb testing.TB, rest string) *crowd {
	tb.Helper()
	dir := tb.TempDir()
	c := &crowd{TB: tb, network: transporttest.New(1), at: netip.MustParseAddrPort("192.0.2.1:51820"), dir: filepath.Join(dir, "state")}
	c.host = c.network.Host(c.at.Addr())
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		tb.Fatal(err)
	}
	c.key = key.Public()
	if err := writeNew(filepath.Join(dir, "key"), []byte(key.Base64()+"\n")); err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "crowd.yaml")
	if err := writeNew(path, []byte(`version: 1
tunnels:
  wg0:
    listen: 51820
    private_key_file: key
`+rest)); err != nil {
		tb.Fatal(err)
	}
	if c.file, err = config.Load(path); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		var closing sync.WaitGroup
		for _, m := range c.members {
			closing.Go(func() { m.engine.Close() })
		}
		closing.Wait()
		if c.live != nil {
			c.down()
		}
	})
	return c
}

func (c *crowd) up() {
	c.Helper()
	k := kernel{
		openTun: func(string, string, int) (device.Device, error) { return newNoDevice(), nil },
		openTap: func(string, string, config.MAC, int) (device.Device, error) { return c.tap, nil },
		newEngine: func(d device.Device, n transport.Network, o tunnel.Options) (engine, error) {
			return tunnel.New(d, n, o)
		},
		network: c.host,
		serveWG: func(string, string, engine, func(string, ...any)) (*wgSocket, error) {
			return &wgSocket{close: func() error { return nil }}, nil
		},
		apply: func(context.Context, setup.L3) (applied, error) {
			return appliedNothing(), nil
		},
		autoMTU: func(context.Context, string, uint32, int, []netip.Addr) (int, error) { return 1400, nil },
	}
	var err error
	if c.live, err = startTunnel(c.Context(), surroundings{
		kernel: k, log: slog.New(slog.DiscardHandler), remark: func(string) {}, clients: func(tunnel string) (*clientStore, error) {
			return c.clients.tunnel(c.dir, "crowd", tunnel)
		},
		exclusively: func(_ context.Context, f func()) { f() }, around: func(context.Context) error { return nil },
	}, c.file, c.file.Tunnels[0]); err != nil {
		c.Fatal(err)
	}
}

func (c *crowd) down() {
	c.Helper()
	if err := c.live.stop(); err != nil {
		c.Error(err)
	}
	c.clients.close()
	c.live = nil
}

// add makes clients that have not joined.
func (c *crowd) add(n int) (fresh []*member) {
	c.Helper()
	for range n {
		m := &member{answers: make(chan []byte, 1), told: make(chan server.Document, 1)}
		i := len(c.members) + 1
		host := c.network.Host(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
		var err error
		if m.key, err = crypto.GeneratePrivateKey(); err != nil {
			c.Fatal(err)
		}
		var dev device.Device = newNoDevice()
		if c.tap != nil {
			m.tap = devicetest.NewEthernet("tap", defaultTapMTU, 1)
			dev = m.tap
		}
		if m.engine, err = tunnel.New(dev, host, tunnel.Options{Pushed: m.pushed}); err != nil {
			c.Fatal(err)
		}
		c.members, fresh = append(c.members, m), append(fresh, m)
	}
	return fresh
}

func (m *member) pushed(_ crypto.PublicKey, subject string, document []byte) {
	switch subject {
	case server.SubjectEnrolled:
		select {
		case m.answers <- document:
		default:
		}
	case server.SubjectConfig:
		d, err := server.DecodeDocument(document)
		if err != nil {
			return
		}
		select {
		case <-m.told:
		default:
		}
		m.told <- d
	}
}

// join has a client enrol, and waits until it is told what to set up.
func (m *member) join(ctx context.Context, c *crowd, link *server.Link) (server.Document, error) {
	private, psk, err := enrolment.Derive(link.Secret, link.ServerKey)
	if err != nil {
		return server.Document{}, err
	}
	request, err := (&server.EnrolRequest{Key: m.key.Public()}).Encode()
	if err != nil {
		return server.Document{}, err
	}
	if err := m.engine.Configure(tunnel.Change{PrivateKey: &private}); err != nil {
		return server.Document{}, err
	}
	answer, err := enrolWith(ctx, m.engine, link.ServerKey, &psk, c.at, request, m.answers)
	if err != nil || !answer.Accepted {
		return server.Document{}, fmt.Errorf("%+v, %w", answer, err)
	}
	wire := tunnel.Culvert
	if err := m.engine.Configure(tunnel.Change{PrivateKey: &m.key, ReplacePeers: true, Peers: []tunnel.PeerChange{{
		PublicKey: c.key, Wire: &wire, Endpoint: &transport.Endpoint{Remote: c.at}}}}); err != nil {
		return server.Document{}, err
	}
	return m.pull(ctx, c)
}

// pull asks what to set up, again and again, and waits for the answer.
func (m *member) pull(ctx context.Context, c *crowd) (server.Document, error) {
	select {
	case <-m.told:
	default:
	}
	again := time.NewTicker(askServer)
	defer again.Stop()
	for {
		if err := m.engine.Push(c.key, server.SubjectPull, nil); err != nil {
			return server.Document{}, err
		}
		select {
		case d := <-m.told:
			return d, nil
		case <-ctx.Done():
			return server.Document{}, ctx.Err()
		case <-again.C:
		}
	}
}

// all runs f for each, so many at a time.
func (c *crowd) all(members []*member, at int, f func(context.Context, int, *member) error) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
	defer cancel()
	slots := make(chan struct{}, at)
	var running sync.WaitGroup
	for i, m := range members {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			if err := f(ctx, i, m); err != nil {
				c.Errorf("client %d: %v", i, err)
			}
		})
	}
	running.Wait()
	if c.Failed() {
		c.FailNow()
	}
}

// invite makes an invitation as "culvert invite" does.
func (c *crowd) invite(name string) *server.Link {
	c.Helper()
	var answer control.ClientsAnswer
	if err := c.live.keepClients(&control.ClientsRequest{Do: control.DoInvite, Name: name, Expires: 3600}, &answer); err != nil {
		c.Fatal(err)
	}
	link, err := server.ParseLink(answer.Link)
	if err != nil {
		c.Fatal(err)
	}
	return link
}

// joinAll has so many clients join, and returns how long that took from when all were invited.
func (c *crowd) joinAll(n int) (took time.Duration) {
	c.Helper()
	seen := make(map[netip.Prefix]bool)
	var mu sync.Mutex
	for n > 0 {
		const atOnce = 1000 // open invitations are 1024 at most
		fresh := c.add(min(n, atOnce))
		n -= len(fresh)
		links := make([]*server.Link, len(fresh))
		for i := range fresh {
			links[i] = c.invite(fmt.Sprintf("client-%d", len(c.members)-len(fresh)+i))
		}
		began := time.Now()
		c.all(fresh, 64, func(ctx context.Context, i int, m *member) error {
			d, err := m.join(ctx, c, links[i])
			mu.Lock()
			defer mu.Unlock()
			for _, a := range d.Addresses {
				if seen[a] {
					c.Errorf("two clients have %v", a)
				}
				seen[a] = true
			}
			return err
		})
		took += time.Since(began)
	}
	if len(seen) != 2*len(c.members) {
		c.Errorf("%d addresses of %d clients", len(seen), len(c.members))
	}
	return took
}

// storm restarts the server and has all clients ask at once; it returns when the last was answered.
func (c *crowd) storm() time.Duration {
	c.Helper()
	before := make([]server.Document, len(c.members))
	c.all(c.members, len(c.members), func(ctx context.Context, i int, m *member) (err error) {
		before[i], err = m.pull(ctx, c)
		return err
	})
	c.down()
	c.up()
	began := time.Now()
	c.all(c.members, len(c.members), func(ctx context.Context, i int, m *member) error {
		d, err := m.pull(ctx, c)
		if err == nil && !d.Equal(&before[i]) {
			c.Errorf("client %d had %v, and has %v", i, before[i].Addresses, d.Addresses)
		}
		return err
	})
	return time.Since(began)
}

// Clients that join side by side each get addresses of their own, and all are served again with the same after a restart of the server.
func TestCrowd(t *testing.T) {
	t.Parallel()
	c := newCrowd(t)
	c.up()
	c.joinAll(50)
	c.storm()
}

// BenchmarkCrowd has 2,000 clients join, 64 at a time, and then all come back at once after a restart. Clients and server share the
// processors.
func BenchmarkCrowd(b *testing.B) {
	const n = 2000
	for b.Loop() {
		c := newCrowd(b)
		c.up()
		took := c.joinAll(n)
		b.ReportMetric(took.Seconds(), "s/joined")
		b.ReportMetric(c.storm().Seconds(), "s/storm")
	}
}

// BenchmarkServedClient tells what a client takes of the server's memory before it has a session.
func BenchmarkServedClient(b *testing.B) {
	const n = 2000
	for b.Loop() {
		c := newCrowd(b)
		c.up()
		before := liveHeap()
		for i := range n {
			key, err := crypto.GeneratePrivateKey()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.live.role.server.server.Add(fmt.Sprintf("client-%d", i), "", key.Public(), false, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
		if err := c.live.apply(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(liveHeap()-before)/n, "B/client")
		runtime.KeepAlive(c)
	}
}

// liveHeap is how many bytes are in use.
func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkServedSession tells what a client that has joined and was told what to set up takes of the server's memory, its session included:
// by how much less is in use when the server has gone, of which the clients hear nothing. What a server without clients takes is left out.
func BenchmarkServedSession(b *testing.B) {
	const n = 2000
	for b.Loop() {
		c := newCrowd(b)
		before := liveHeap()
		c.up()
		empty := liveHeap() - before
		c.joinAll(n)
		live, peers := 0, 0 // ends of invitations are peers as well, for a while
		for until := time.Now().Add(server.Linger + 30*time.Second); time.Now().Before(until) && (live != n || peers != n); time.Sleep(time.Second) {
			live, peers = c.live.engine.Sessions()
		}
		if live != n || peers != n {
			b.Fatalf("%d sessions with %d peers, of %d clients", live, peers, n)
		}
		full := liveHeap()
		c.host.SetAddrs()
		c.down()
		b.ReportMetric((float64(full)-float64(liveHeap())-float64(empty))/n, "B/client")
		runtime.KeepAlive(c)
	}
}
