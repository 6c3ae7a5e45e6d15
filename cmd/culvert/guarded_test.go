package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/server"
	"culvert/server/totp"
	"culvert/setup"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// guarded is a server, as the daemon runs it, over a network in memory, and clients that are engines alone: they send what they like.
type guarded struct {
	t       *testing.T
	network *transporttest.Network
	live    *liveTunnel
	dev     *devicetest.Device
	audit   auditText
	at      netip.AddrPort
	broken  atomic.Bool // nothing can be applied
}

var guardedAddress = netip.MustParseAddr("10.20.0.1")

func newGuarded(t *testing.T, signIn string) *guarded {
	g := &guarded{t: t, network: transporttest.New(1), dev: devicetest.New("office", 1420, 1), at: netip.MustParseAddrPort("192.0.2.1:51820")}
	file := load(t, "office.conf", "[Interface]\nPrivateKey = "+testPrivate+"\nListenPort = 51820\nAddress = 10.20.0.1/24\n")
	lasts := time.Hour
	conf := file.Tunnels[0]
	group := config.ClientGroup{Name: "field", SignIn: &config.SignIn{Lasts: lasts, TOTP: signIn == "totp"}}
	if signIn != "totp" {
		group.SignIn.OIDC = &config.OIDC{Issuer: signIn, ClientID: "culvert", Emails: []string{"*@example.net"}}
	}
	conf.Server = &config.Server{Groups: []config.ClientGroup{group}}
	k := kernel{
		openTun: func(string, string, int) (device.Device, error) { return g.dev, nil },
		newEngine: func(d device.Device, n transport.Network, o tunnel.Options) (engine, error) {
			return tunnel.New(d, n, o)
		},
		network: g.network.Host(g.at.Addr()),
		serveWG: func(string, string, engine, func(string, ...any)) (*wgSocket, error) {
			return &wgSocket{close: func() error { return nil }}, nil
		},
		apply: func(_ context.Context, c setup.L3) (applied, error) {
			if stepOf(c) == "up" {
				g.dev.SetUp(true)
			}
			return appliedNothing(), nil
		},
		autoMTU: func(context.Context, string, uint32, int, []netip.Addr) (int, error) {
			if g.broken.Load() {
				return 0, errors.New("no route")
			}
			return 1420, nil
		},
	}
	s := surroundings{kernel: k, log: slog.New(slog.DiscardHandler), out: io.Discard, remark: func(string) {},
		clients: func(string) (*clientStore, error) {
			return &clientStore{&server.Memory{}, server.NewAuditLog(&g.audit)}, nil
		}}
	live, err := startTunnel(t.Context(), s, file, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := live.stop(); err != nil {
			t.Error(err)
		}
	})
	g.live = live
	return g
}

// auditText is an audit log in memory.
type auditText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *auditText) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *auditText) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// guest is a client of the group.
type guest struct {
	g      *guarded
	engine *tunnel.Tunnel
	dev    *devicetest.Device
	key    crypto.PublicKey
	addr   netip.Addr
	secret []byte

	mu   sync.Mutex
	told []roleMail
}

func (g *guarded) join(n byte) *guest {
	g.t.Helper()
	private, err := crypto.GeneratePrivateKey()
	if err != nil {
		g.t.Fatal(err)
	}
	c := &guest{g: g, key: private.Public(), dev: devicetest.New(fmt.Sprint("c", n), 1420, 1)}
	c.engine, err = tunnel.New(c.dev, g.network.Host(netip.AddrFrom4([4]byte{192, 0, 2, n})), tunnel.Options{Pushed: func(_ crypto.PublicKey, subject string, document []byte) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.told = append(c.told, roleMail{subject: subject, document: document})
	}})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.engine.Close() })
	c.dev.SetUp(true)
	answer := &control.ClientsAnswer{}
	if err := g.live.keepClients(&control.ClientsRequest{Do: control.DoAdd, Name: fmt.Sprint("c", n), Group: "field", Key: c.key}, answer); err != nil {
		g.t.Fatal(err)
	}
	c.addr = answer.Setup.Addresses[0].Addr()
	port, keepalive, wire := uint16(51820), 25*time.Second, tunnel.Culvert
	if err := c.engine.Configure(tunnel.Change{PrivateKey: &private, ListenPort: &port, Peers: []tunnel.PeerChange{{
		PublicKey: g.live.conf.PrivateKey.Public(), Wire: &wire, Endpoint: &transport.Endpoint{Remote: g.at}, Keepalive: &keepalive,
		AllowedIPs: []tunnel.AllowedIPChange{{Prefix: netip.MustParsePrefix("10.20.0.0/24")}},
	}}}); err != nil {
		g.t.Fatal(err)
	}
	time.Sleep(time.Second)
	return c
}

// authenticator has an authenticator enrolled.
func (c *guest) authenticator() {
	c.g.t.Helper()
	answer := &control.ClientsAnswer{}
	if err := c.g.live.keepClients(&control.ClientsRequest{Do: control.DoCodes, Name: fmt.Sprint("c", c.engineNumber())}, answer); err != nil {
		c.g.t.Fatal(err)
	}
	u, err := url.Parse(answer.Link)
	if err != nil {
		c.g.t.Fatal(err)
	}
	if c.secret, err = base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret")); err != nil {
		c.g.t.Fatal(err)
	}
	time.Sleep(time.Second)
}

func (c *guest) engineNumber() string {
	name, err := c.dev.Name()
	if err != nil {
		c.g.t.Fatal(err)
	}
	return strings.TrimPrefix(name, "c")
}

// subjects are those of what came since the last call, each once.
func (c *guest) subjects() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, m := range c.told {
		list = append(list, m.subject)
	}
	c.told = nil
	slices.Sort(list)
	return strings.Join(slices.Compact(list), " ")
}

// last is the last state that the server has told.
func (c *guest) last() (s server.SignInState) {
	c.g.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.told {
		if m.subject == server.SubjectSignIn {
			var err error
			if s, err = server.DecodeSignInState(m.document); err != nil {
				c.g.t.Fatal(err)
			}
		}
	}
	return s
}

func (c *guest) push(subject string, document []byte) {
	c.g.t.Helper()
	if err := c.engine.Push(c.g.live.conf.PrivateKey.Public(), subject, document); err != nil {
		c.g.t.Fatal(err)
	}
}

// sends has a code tried.
func (c *guest) sends(code string) server.SignInState {
	c.g.t.Helper()
	b, err := (&server.SignInAnswer{Code: code}).Encode()
	if err != nil {
		c.g.t.Fatal(err)
	}
	c.push(server.SubjectSignInAnswer, b)
	time.Sleep(time.Second)
	return c.last()
}

func (c *guest) code() string {
	return totp.Code(sha1.New, c.secret, totp.Step(time.Now()), totp.Digits)
}

// packet is an IPv4 packet of an experiment's protocol (RFC 3692).
func packet(from, to netip.Addr) []byte {
	b := make([]byte, 28)
	b[0], b[8], b[9] = 0x45, 64, 253
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	return b
}

// crosses reports how many of a hundred packets arrive from one device at the other.
func crosses(from, to *devicetest.Device, p []byte) (n int) {
	for range 100 {
		from.Queue(0).Push(p, device.Offload{})
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	buf := make([]byte, 65536)
	for {
		got, _, ok := to.Queue(0).TryNext(buf)
		if !ok {
			return n
		}
		if bytes.Equal(got, p) {
			n++
		}
	}
}

// passes fails unless everything passes both ways, or with want false nothing.
func (c *guest) passes(want bool) {
	c.g.t.Helper()
	out, in := crosses(c.dev, c.g.dev, packet(c.addr, guardedAddress)), crosses(c.g.dev, c.dev, packet(guardedAddress, c.addr))
	if all := map[bool]int{true: 100, false: 0}[want]; out != all || in != all {
		c.g.t.Fatalf("%d of 100 packets from the client pass, %d to it; want %d", out, in, all)
	}
}
