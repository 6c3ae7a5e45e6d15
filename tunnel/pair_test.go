package tunnel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
	"culvert/tunnel/ippacket"
)

// node is one end of a test tunnel: the engine over a device in memory, on a host of a network in memory.
type node struct {
	*Tunnel
	t      testing.TB
	dev    *devicetest.Device
	host   *transporttest.Host
	key    crypto.PrivateKey
	public crypto.PublicKey
	addr   netip.Addr // on the underlay
	inner  netip.Addr
	turn   int // the queue that the next packet is sent through
}

const (
	testPort = 51820
	testMTU  = 1420
)

var noOffload device.Offload

// newNode starts a tunnel on a host with the address 192.0.2.n, with the inner address 10.0.0.n and no peers. It is closed
// when the test ends.
func newNode(t testing.TB, network *transporttest.Network, n byte) *node {
	t.Helper()
	addr := netip.AddrFrom4([4]byte{192, 0, 2, n})
	addr6 := netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n))
	return newNodeOn(t, network.Host(addr, addr6), addr, n)
}

// newNodeOn is newNode on a given host, which has addr; more change the options. It belongs into a bubble.
func newNodeOn(t testing.TB, host *transporttest.Host, addr netip.Addr, n byte, more ...func(*Options)) *node {
	t.Helper()
	return newQueuesOn(t, host, addr, n, 1, more...)
}

// newQueues is newNode with a device of several queues, which it sends through by turns.
func newQueues(t testing.TB, network *transporttest.Network, n byte, queues int) *node {
	t.Helper()
	addr := netip.AddrFrom4([4]byte{192, 0, 2, n})
	return newQueuesOn(t, network.Host(addr, netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n))), addr, n, queues)
}

func newQueuesOn(t testing.TB, host *transporttest.Host, addr netip.Addr, n byte, queues int, more ...func(*Options)) *node {
	t.Helper()
	a := newNodeOver(t, host, addr, n, queues, more...)
	a.host = host
	return a
}

// newNodeOver is newNodeOn over any network.
func newNodeOver(t testing.TB, network transport.Network, addr netip.Addr, n byte, queues int, more ...func(*Options)) *node {
	t.Helper()
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	dev := devicetest.New(fmt.Sprintf("wg%d", n), testMTU, queues)
	options := Options{Logf: t.Logf}
	for _, m := range more {
		m(&options)
	}
	tun, err := New(dev, network, options)
	if err != nil {
		t.Fatal(err)
	}
	tun.jitter = func() time.Duration { return 100 * time.Millisecond }
	t.Cleanup(func() { tun.Close() })
	a := &node{Tunnel: tun, t: t, dev: dev, key: key, public: key.Public(), addr: addr,
		inner: netip.AddrFrom4([4]byte{10, 0, 0, n})}
	port := uint16(testPort)
	a.configure(Change{PrivateKey: &key, ListenPort: &port})
	synctest.Wait() // the port is open: what is sent to it arrives
	return a
}

func (a *node) configure(c Change) {
	a.t.Helper()
	if err := a.Configure(c); err != nil {
		a.t.Fatal(err)
	}
}

// addPeerNode makes b a peer of a, with b's endpoint where it is to be known.
func (a *node) addPeerNode(b *node, knowEndpoint bool, more ...func(*PeerChange)) {
	a.t.Helper()
	c := PeerChange{PublicKey: b.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(b.inner, 32)}}}
	if knowEndpoint {
		c.Endpoint = &transport.Endpoint{Remote: netip.AddrPortFrom(b.addr, testPort)}
	}
	for _, m := range more {
		m(&c)
	}
	a.configure(Change{Peers: []PeerChange{c}})
}

// newPair makes two nodes that are each other's peers; the first knows the second's endpoint. The bubble has settled.
func newPair(t testing.TB, network *transporttest.Network) (a, b *node) {
	a, b = newNode(t, network, 1), newNode(t, network, 2)
	a.addPeerNode(b, true)
	b.addPeerNode(a, false)
	synctest.Wait()
	return a, b
}

// udpPacket is an IPv4 UDP packet between inner addresses; its checksums are right.
func udpPacket(src, dst netip.Addr, payload []byte) []byte {
	p := make([]byte, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(p[10:], ^ippacket.Fold(ippacket.Sum(p[:20], 0)))
	binary.BigEndian.PutUint16(p[20:], 1000)
	binary.BigEndian.PutUint16(p[22:], 2000)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	copy(p[28:], payload)
	return p
}

// tcpPacket is an IPv4 TCP packet with size bytes of payload. With NeedsChecksum its checksum is the pseudo-header's sum.
func tcpPacket(src, dst netip.Addr, size int) []byte {
	p := make([]byte, 40+size)
	p[0], p[6], p[8], p[9] = 0x45, 0x40, 64, 6
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(p[10:], ^ippacket.Fold(ippacket.Sum(p[:20], 0)))
	binary.BigEndian.PutUint16(p[20:], 1000)
	binary.BigEndian.PutUint16(p[22:], 2000)
	p[32], p[33] = 5<<4, 0x10
	binary.BigEndian.PutUint16(p[34:], 65535)
	binary.BigEndian.PutUint16(p[36:], ippacket.Fold(ippacket.Sum(p[12:20], uint64(6+20+size))))
	return p
}

// send pushes a packet from a to b's inner address.
func (a *node) send(b *node, payload string) {
	a.dev.Queue(a.turn%len(a.queues)).Push(udpPacket(a.inner, b.inner, []byte(payload)), noOffload)
	a.turn++
}

// received returns the payloads that have come out of the device, once the bubble has settled.
func (a *node) received() []string {
	var all []string
	for _, p := range a.written() {
		if len(p) >= 28 && p[9] == 17 {
			all = append(all, string(p[28:]))
		} else {
			all = append(all, fmt.Sprintf("%x", p))
		}
	}
	return all
}

// expect fails unless exactly these payloads have come out.
func (a *node) expect(want ...string) {
	a.t.Helper()
	if got := a.received(); fmt.Sprint(got) != fmt.Sprint(want) {
		a.t.Fatalf("received %q, want %q", got, want)
	}
}

// dropped returns how many packets were dropped for a reason.
func (a *node) dropped(r DropReason) int { return int(a.drops[r].Load()) }

func TestPairExchangesPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		a.send(b, "one")
		a.send(b, "two")
		b.expect("one", "two")
		b.send(a, "three")
		a.expect("three")
		s := a.Status()
		if !s.Up || len(s.Peers) != 1 || s.Peers[0].LastHandshake.IsZero() || s.Handshakes.Completed != 1 || len(s.Drops) != 0 {
			t.Errorf("status: %+v", s)
		}
	})
}

// A peer is heard by its handshake, by its answer to data, which is the keepalive of ten seconds, and by data.
func TestLastHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		heard := func() time.Time { return a.Status().Peers[0].LastHeard }
		if at := heard(); !at.IsZero() {
			t.Errorf("heard %v before anything was sent", at)
		}
		began := time.Now()
		near := func(when string, want time.Duration) {
			t.Helper()
			if got := heard().Sub(began); got < want || got > want+time.Second {
				t.Errorf("%s it was heard after %v, want %v", when, got, want)
			}
		}
		a.send(b, "one")
		b.expect("one")
		near("by the handshake", 0)
		time.Sleep(time.Minute)
		near("by a keepalive", 10*time.Second)
		b.send(a, "two")
		a.expect("two")
		near("by data", time.Minute)
	})
}

// tunnelPeer returns a's peer b.
func (a *node) tunnelPeer(b *node) *peer { return a.lookupPeer(b.public) }

// addrPort is the node's address and port on the underlay.
func (a *node) addrPort() netip.AddrPort { return netip.AddrPortFrom(a.addr, testPort) }
