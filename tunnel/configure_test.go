package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
)

// scene is a node with a peer by and a second one, other, whose session with the node must not suffer.
type scene struct {
	t         *testing.T
	network   *transporttest.Network
	n         *node
	by, other *node
	count     int
}

func newScene(t *testing.T) *scene {
	network := transporttest.New(1)
	s := &scene{t: t, network: network, n: newNode(t, network, 1), by: newNode(t, network, 2), other: newNode(t, network, 3)}
	for _, peer := range []*node{s.by, s.other} {
		s.n.addPeerNode(peer, true)
		peer.addPeerNode(s.n, true)
	}
	synctest.Wait()
	s.ping(s.by)
	s.ping(s.other)
	return s
}

// ping exchanges a packet each way between the node and a peer.
func (s *scene) ping(with *node) {
	s.t.Helper()
	s.count++
	ping, pong := fmt.Sprint("ping ", s.count), fmt.Sprint("pong ", s.count)
	s.n.send(with, ping)
	with.expect(ping)
	with.send(s.n, pong)
	s.n.expect(pong)
}

// change configures the node, with traffic to the other peer before, during and after, and fails unless all of that
// arrives under the same session.
func (s *scene) change(what string, c Change) {
	s.t.Helper()
	before := s.n.tunnelPeer(s.other).current.Load()
	handshakes := s.other.Status().Handshakes
	s.n.send(s.other, "during")
	s.other.send(s.n, "during")
	if c.ListenPort != nil {
		synctest.Wait() // what is under way to the old port is lost with it
	}
	if err := s.n.Configure(c); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	s.n.send(s.other, "after")
	s.n.expect("during")
	s.other.expect("during", "after")
	s.ping(s.other)
	if s.n.tunnelPeer(s.other).current.Load() != before || s.other.Status().Handshakes != handshakes {
		s.t.Errorf("%s: the other peer's session did not survive", what)
	}
}

func (s *scene) changeBy(what string, c PeerChange) {
	s.t.Helper()
	c.PublicKey = s.by.public
	s.change(what, Change{Peers: []PeerChange{c}})
}

func (s *scene) statusOf(of *node) PeerStatus {
	s.t.Helper()
	for _, p := range s.n.Status().Peers {
		if p.PublicKey == of.public {
			return p
		}
	}
	s.t.Fatal("no such peer")
	return PeerStatus{}
}

func TestPeersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		third := newNode(t, s.network, 4)
		third.addPeerNode(s.n, true)
		s.change("add a peer", Change{Peers: []PeerChange{{
			PublicKey:  third.public,
			Endpoint:   &transport.Endpoint{Remote: third.addrPort()},
			AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(third.inner, 32)}},
		}}})
		s.ping(third)
		sent := s.n.tunnelPeer(s.by).current.Load()
		s.changeBy("remove a peer", PeerChange{Remove: true})
		if len(s.n.Status().Peers) != 2 || s.n.lookupPeer(s.by.public) != nil {
			t.Error("the peer is still there")
		}
		if _, ok := sent.Reserve(1, noise.TagSize); ok {
			t.Error("the removed peer's session still works")
		}
		s.n.send(s.by, "to nobody")
		s.by.expect()
		if s.n.dropped(DropOutNoRoute) != 1 {
			t.Errorf("drops %v", s.n.Status().Drops)
		}
		s.by.send(s.n, "from nobody")
		s.n.written() // the ICMP error
		if s.n.dropped(DropInIndex) != 1 {
			t.Errorf("drops %v", s.n.Status().Drops)
		}
		s.changeBy("remove it again", PeerChange{Remove: true})
		// Back again, it needs another handshake, and gets it.
		s.change("add it again", Change{Peers: []PeerChange{{
			PublicKey:  s.by.public,
			Endpoint:   &transport.Endpoint{Remote: s.by.addrPort()},
			AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(s.by.inner, 32)}},
		}}})
		time.Sleep(time.Second)
		s.ping(s.by)
	})
}

func TestPacketsThatWaitGoWithTheirPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		dead := newNode(t, s.network, 4)
		s.n.addPeerNode(dead, true)
		for range 10 {
			s.n.send(dead, "never answered")
		}
		synctest.Wait()
		if s.n.stagedBytes.Load() == 0 {
			t.Fatal("nothing waits")
		}
		s.change("remove a peer with packets waiting", Change{Peers: []PeerChange{{PublicKey: dead.public, Remove: true}}})
		if s.n.stagedBytes.Load() != 0 || s.n.dropped(DropOutPeerRemoved) != 10 {
			t.Errorf("%d bytes staged, drops %v", s.n.stagedBytes.Load(), s.n.Status().Drops)
		}
		before := s.n.Status().Handshakes.InitiationsSent
		time.Sleep(80 * time.Second)
		if got := s.n.Status().Handshakes.InitiationsSent; got != before {
			t.Errorf("%d initiations to a peer that is gone", got-before)
		}
	})
}

func TestPeerSettingsChangeLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		handshakes := s.n.Status().Handshakes.Completed
		psk := crypto.PresharedKey{7}
		s.changeBy("preshared key", PeerChange{PresharedKey: &psk})
		if got := s.statusOf(s.by); !got.HasPresharedKey || got.PresharedKey != psk {
			t.Error("no preshared key")
		}
		s.ping(s.by) // under the session there is
		none := crypto.PresharedKey{}
		s.changeBy("no preshared key", PeerChange{PresharedKey: &none})
		if s.statusOf(s.by).HasPresharedKey {
			t.Error("still a preshared key")
		}
		v6 := netip.MustParseAddrPort("[2001:db8::2]:51820")
		s.changeBy("endpoint", PeerChange{Endpoint: &transport.Endpoint{Remote: v6}})
		if got := s.statusOf(s.by).EndpointText; got != v6.String() {
			t.Errorf("endpoint %s", got)
		}
		s.ping(s.by)
		s.changeBy("endpoint", PeerChange{Endpoint: &transport.Endpoint{Remote: s.by.addrPort()}})
		every := 10 * time.Second
		l := watch(s.network, s.n)
		s.changeBy("keepalive", PeerChange{Keepalive: &every})
		l.reset()
		time.Sleep(35 * time.Second)
		if got := len(l.times("a", noise.TypeData)); got < 3 || s.statusOf(s.by).Keepalive != every {
			t.Errorf("%d keepalives in 35 s", got)
		}
		off := time.Duration(0)
		s.changeBy("no keepalive", PeerChange{Keepalive: &off})
		time.Sleep(time.Minute)
		l.reset()
		time.Sleep(10 * time.Minute)
		if got := l.all(); len(got) != 0 {
			t.Errorf("%d messages", len(got))
		}
		if got := s.n.Status().Handshakes.Completed; got != handshakes {
			t.Errorf("%d handshakes", got-handshakes)
		}
	})
}

// A longer interval must not have to run out before a shorter one counts.
func TestShorterKeepaliveTakesEffectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		long, short := maxKeepalive, 20*time.Second
		s.changeBy("keepalive", PeerChange{Keepalive: &long})
		time.Sleep(30 * time.Second)
		s.changeBy("shorter keepalive", PeerChange{Keepalive: &short})
		l := watch(s.network, s.n)
		l.reset()
		time.Sleep(50 * time.Second)
		if got := l.times("a", noise.TypeData); len(got) < 2 {
			t.Errorf("keepalives at %v", got)
		}
	})
}

func TestPersistentKeepaliveSurvivesMissingKeysAndEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		every := 10 * time.Second
		none := crypto.PrivateKey{}
		a.configure(Change{PrivateKey: &none})
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Keepalive: &every}}})
		time.Sleep(time.Minute)
		a.configure(Change{PrivateKey: &a.key})
		time.Sleep(every)
		synctest.Wait()
		if b.Status().Handshakes.Completed != 1 {
			t.Error("no handshake once there is a key")
		}
		// A peer without an endpoint gets its first keepalive as soon as there is one.
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Remove: true}}})
		b.configure(Change{Peers: []PeerChange{{PublicKey: a.public, Remove: true}}})
		b.addPeerNode(a, false)
		a.addPeerNode(b, false, func(c *PeerChange) { c.Keepalive = &every })
		time.Sleep(time.Minute)
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public, Endpoint: &transport.Endpoint{Remote: b.addrPort()}}}})
		synctest.Wait()
		if b.Status().Handshakes.Completed != 2 {
			t.Error("no handshake once there is an endpoint")
		}
	})
}

// One of few seconds falls due while an initiation may not be repeated yet.
func TestKeepaliveOfASecondGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := actorScene(t)
		every := time.Second
		a.join(func(c *PeerChange) { c.Keepalive = &every })
		a.handshake() // of which the confirmation is lost
		time.Sleep(session.RekeyTimeout + time.Second)
		a.inject(a.response(a.one(noise.TypeInitiation)))
		a.got()
		time.Sleep(10 * time.Second)
		if got := len(a.payloads()); got < 9 {
			t.Errorf("%d keepalives in ten seconds", got)
		}
	})
}

func TestReplacePeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		psk, every := crypto.PresharedKey{1}, 25*time.Second
		s.changeBy("extras", PeerChange{PresharedKey: &psk, Keepalive: &every,
			AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("10.5.0.0/16")}}})
		s.change("replace all peers by the two there are", Change{ReplacePeers: true, Peers: []PeerChange{
			{PublicKey: s.by.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(s.by.inner, 32)}}},
			{PublicKey: s.other.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(s.other.inner, 32)}}},
		}})
		got := s.statusOf(s.by)
		if got.HasPresharedKey || got.Keepalive != 0 || fmt.Sprint(got.AllowedIPs) != "[10.0.0.2/32]" {
			t.Errorf("what was not named is still there: %+v", got)
		}
		s.ping(s.by)
		s.change("replace all peers by one", Change{ReplacePeers: true, Peers: []PeerChange{
			{PublicKey: s.other.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(s.other.inner, 32)}}},
			{PublicKey: s.other.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.MustParsePrefix("10.6.0.0/16")}}},
		}})
		if all := s.n.Status().Peers; len(all) != 1 || fmt.Sprint(all[0].AllowedIPs) != "[10.0.0.3/32 10.6.0.0/16]" {
			t.Errorf("peers: %+v", all)
		}
		if s.n.usedIndices() != 1 {
			t.Errorf("%d indices in use", s.n.usedIndices())
		}
		s.n.configure(Change{ReplacePeers: true})
		if s.n.usedIndices() != 0 || s.n.routes.snapshot().Size() != 0 || s.n.endpointCount() != 0 || len(s.n.Status().Peers) != 0 {
			t.Error("something is left of the peers")
		}
	})
}

func TestAllowedIPChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		prefixes := func(all ...string) (c []AllowedIPChange) {
			for _, p := range all {
				c = append(c, AllowedIPChange{Prefix: netip.MustParsePrefix(p)})
			}
			return c
		}
		expect := func(want string) {
			t.Helper()
			if got := fmt.Sprint(s.statusOf(s.by).AllowedIPs); got != want {
				t.Errorf("allowed IPs %s, want %s", got, want)
			}
		}
		s.changeBy("add", PeerChange{AllowedIPs: prefixes("10.7.1.2/16", "fd00::1/64")})
		expect("[10.0.0.2/32 10.7.0.0/16 fd00::/64]") // host bits are cut
		remove := prefixes("10.7.0.0/16", "10.0.0.3/32", "192.0.2.0/24")
		for i := range remove {
			remove[i].Remove = true // but only its own: the second is the other's, the third nobody's
		}
		s.changeBy("remove", PeerChange{AllowedIPs: remove})
		expect("[10.0.0.2/32 fd00::/64]")
		s.changeBy("replace", PeerChange{ReplaceAllowedIPs: true, AllowedIPs: prefixes("10.0.0.2/32", "10.8.0.0/16")})
		expect("[10.0.0.2/32 10.8.0.0/16]")
		s.ping(s.by)
		s.changeBy("replace by none", PeerChange{ReplaceAllowedIPs: true})
		expect("[]")
		s.by.send(s.n, "not allowed any more")
		s.n.expect()
		if s.n.dropped(DropInSource) != 1 {
			t.Errorf("drops %v", s.n.Status().Drops)
		}
		// Many at once, moved from one peer to the other and back.
		var many []AllowedIPChange
		for i := range 1000 {
			many = append(many, AllowedIPChange{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)}), 32)})
		}
		s.changeBy("many", PeerChange{AllowedIPs: many})
		s.change("move", Change{Peers: []PeerChange{{PublicKey: s.other.public, AllowedIPs: many}}})
		expect("[]")
		if got := len(s.statusOf(s.other).AllowedIPs); got != 1001 {
			t.Errorf("%d allowed IPs moved", got)
		}
		s.changeBy("the first one", PeerChange{AllowedIPs: prefixes("10.0.0.2/32")})
		s.ping(s.by)
	})
}

func TestUpdateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		s.change("update a peer that does not exist", Change{Peers: []PeerChange{{PublicKey: key.Public(), UpdateOnly: true,
			AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(s.other.inner, 32)}}}}})
		if len(s.n.Status().Peers) != 2 {
			t.Error("it was added")
		}
		every := 7 * time.Second
		s.changeBy("update one that does", PeerChange{UpdateOnly: true, Keepalive: &every})
		if s.statusOf(s.by).Keepalive != every {
			t.Error("it was not changed")
		}
	})
}

func TestPortChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		handshakes := s.n.Status().Handshakes
		for _, port := range []uint16{1234, 0, 0, testPort} {
			s.change(fmt.Sprint("port ", port), Change{ListenPort: &port})
			got := s.n.Status().ListenPort
			if port != 0 && got != port || got == 0 {
				t.Fatalf("port %d, want %d", got, port)
			}
			s.ping(s.by)
			if ep := s.by.tunnelPeer(s.n).endpoint.Load(); ep.Remote.Port() != got {
				t.Errorf("the peer sends to %v, the port is %d", ep, got)
			}
		}
		if s.n.Status().Handshakes != handshakes {
			t.Error("a new port needed a handshake")
		}
		// One in use.
		taken, err := s.n.host.Open(transport.Options{Port: 4321})
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		mark, port, key := uint32(9), uint16(4321), crypto.PrivateKey{1, 2, 3}
		before := s.n.Status()
		err = s.n.Configure(Change{ListenPort: &port, Mark: &mark, PrivateKey: &key, ReplacePeers: true})
		if !errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, ErrInvalidChange) {
			t.Fatalf("error %v", err)
		}
		if after := s.n.Status(); !reflect.DeepEqual(before, after) {
			t.Errorf("status before %+v, after %+v", before, after)
		}
		s.ping(s.by)
		s.ping(s.other)
	})
}

func TestMarkChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		for _, mark := range []uint32{0xca6c, 1, 0} {
			s.change(fmt.Sprint("mark ", mark), Change{Mark: &mark})
			if got := s.n.Status().Mark; got != mark {
				t.Errorf("mark %d, want %d", got, mark)
			}
		}
		s.ping(s.by)
	})
}

func TestInvalidChangesChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		before := s.n.Status()
		duration := func(d time.Duration) *time.Duration { return &d }
		endpoint := func(ap netip.AddrPort) *transport.Endpoint { return &transport.Endpoint{Remote: ap} }
		for name, bad := range map[string]PeerChange{
			"negative keepalive":       {Keepalive: duration(-time.Second)},
			"keepalive too long":       {Keepalive: duration(65536 * time.Second)},
			"keepalive of half":        {Keepalive: duration(500 * time.Millisecond)},
			"endpoint without port":    {Endpoint: endpoint(netip.MustParseAddrPort("192.0.2.9:0"))},
			"endpoint without address": {Endpoint: endpoint(netip.AddrPort{})},
			"invalid prefix":           {AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(s.n.inner, 33)}}},
			"zero prefix":              {AllowedIPs: []AllowedIPChange{{}}},
		} {
			port, mark, key := uint16(99), uint32(99), crypto.PrivateKey{9}
			bad.PublicKey = s.by.public
			err := s.n.Configure(Change{ListenPort: &port, Mark: &mark, PrivateKey: &key, ReplacePeers: true,
				Peers: []PeerChange{{PublicKey: s.other.public, Remove: true}, bad}})
			if !errors.Is(err, ErrInvalidChange) {
				t.Errorf("%s: error %v", name, err)
			}
			if after := s.n.Status(); !reflect.DeepEqual(before, after) {
				t.Errorf("%s: status before %+v, after %+v", name, before, after)
			}
		}
		s.ping(s.by)
		s.ping(s.other)
	})
}

func TestInterfaceGoesDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		every := 15 * time.Second
		s.changeBy("keepalive", PeerChange{Keepalive: &every})
		s.n.dev.SetUp(false)
		synctest.Wait()
		if s.n.Status().Up || s.n.bound.Load() != nil || s.n.usedIndices() != 0 {
			t.Error("something is still up")
		}
		// The port is free.
		other, err := s.n.host.Open(transport.Options{Port: testPort})
		if err != nil {
			t.Fatal(err)
		}
		other.Close()
		l := watch(s.network, s.n)
		l.reset()
		s.n.send(s.by, "into a device that is down") // as a race may have it
		time.Sleep(10 * time.Minute)
		if got := slices.ContainsFunc(l.all(), func(e wireEvent) bool { return e.from == "a" }); got {
			t.Error("something was sent")
		}
		if s.n.stagedBytes.Load() != 0 {
			t.Error("a packet waits")
		}
		// Configuring while down takes effect on the way up.
		port, mark := uint16(777), uint32(5)
		s.n.configure(Change{ListenPort: &port, Mark: &mark})
		if got := s.n.Status(); got.Up || got.ListenPort != port || got.Mark != mark {
			t.Errorf("status %+v", got)
		}
		l.reset()
		s.n.dev.SetUp(true)
		l.expectTimes(t, "a", noise.TypeInitiation, 0) // to the peer with a keepalive
		if got := s.n.Status(); !got.Up || got.ListenPort != port || s.n.bound.Load().socket.Port() != port {
			t.Errorf("status %+v", got)
		}
		s.ping(s.by)
		s.ping(s.other)
		for range 3 {
			s.n.dev.SetUp(false)
			s.n.dev.SetUp(true)
		}
		// Initiations in such a hurry look replayed to the peer; the repeated one does not.
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		s.ping(s.by)
	})
}

func TestPortTakenWhileComingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.n.dev.SetUp(false)
		synctest.Wait()
		thief, err := s.n.host.Open(transport.Options{Port: testPort})
		if err != nil {
			t.Fatal(err)
		}
		defer thief.Close()
		time.Sleep(time.Second)
		s.n.dev.SetUp(true)
		synctest.Wait()
		if s.n.Status().Up {
			t.Error("up without a socket")
		}
		// Another port is all it takes.
		port := uint16(1111)
		s.n.configure(Change{ListenPort: &port})
		if got := s.n.Status(); !got.Up || got.ListenPort != port {
			t.Errorf("status %+v", got)
		}
		s.ping(s.by)
		// Or the same one, once it is free.
		s.n.dev.SetUp(false)
		synctest.Wait()
		if thief, err = s.n.host.Open(transport.Options{Port: port}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.n.dev.SetUp(true)
		synctest.Wait()
		if err := s.n.Configure(Change{ListenPort: &port}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("error %v", err)
		}
		thief.Close()
		s.n.configure(Change{ListenPort: &port})
		s.ping(s.by)
	})
}

func TestTunnelConfiguredBeforeItIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		n := newNode(t, s.network, 7) // its device is up, but the tunnel may not have noticed yet
		n.addPeerNode(s.by, true)
		s.by.addPeerNode(n, false)
		n.send(s.by, "as early as can be")
		s.by.expect("as early as can be")
	})
}

// endpointCount returns how many addresses the routing-loop check knows.
func (a *node) endpointCount() int {
	a.endpoints.mu.RLock()
	defer a.endpoints.mu.RUnlock()
	return len(a.endpoints.peers)
}
