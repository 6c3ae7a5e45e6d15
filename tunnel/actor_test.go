package tunnel

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/crypto/tai64n"
	"culvert/transport"
	"culvert/transport/transporttest"
)

// actor is a far end of a node that the test plays itself, message by message, so that messages can be false, late, missing
// or come from elsewhere. It has no host: what it says is injected, what it is told is seen by a tap.
type actor struct {
	t       testing.TB
	network *transporttest.Network
	node    *node
	addr    netip.AddrPort // where it is
	inner   netip.Addr

	key     crypto.PrivateKey
	public  crypto.PublicKey
	id      *noise.Identity
	remote  *noise.Remote // the node
	stamper *cookie.Stamper
	checker *cookie.Checker
	psk     crypto.PresharedKey

	session *session.Session
	nonce   session.Nonce
	index   uint32 // last one used
	epoch   time.Time

	mu    sync.Mutex
	inbox []transporttest.Packet
}

// newActor makes the actor 198.51.100.number with the inner address 10.0.1.number. The node does not know it yet.
func newActor(n *node, network *transporttest.Network, number byte) *actor {
	n.t.Helper()
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		n.t.Fatal(err)
	}
	id, err := noise.NewIdentity(key)
	if err != nil {
		n.t.Fatal(err)
	}
	a := &actor{
		t:       n.t,
		network: network,
		node:    n,
		addr:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, number}), 1000+uint16(number)),
		inner:   netip.AddrFrom4([4]byte{10, 0, 1, number}),
		key:     key,
		public:  key.Public(),
		id:      id,
		remote:  noise.NewRemote(id, n.public),
		stamper: cookie.NewStamper(n.public),
		checker: cookie.NewChecker(key.Public()),
		index:   uint32(number) << 16,
		epoch:   time.Now(),
	}
	network.Tap(func(p *transporttest.Packet) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.To == a.addr {
			q := *p
			q.Data = bytes.Clone(p.Data)
			a.inbox = append(a.inbox, q)
		}
	})
	return a
}

// join makes the actor a peer of its node.
func (a *actor) join(more ...func(*PeerChange)) *actor {
	a.t.Helper()
	c := PeerChange{PublicKey: a.public, AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(a.inner, 32)}}}
	for _, m := range more {
		m(&c)
	}
	a.node.configure(Change{Peers: []PeerChange{c}})
	return a
}

// at is for join: the node knows the actor's endpoint.
func (a *actor) at(c *PeerChange) { c.Endpoint = &transport.Endpoint{Remote: a.addr} }

// move has the actor be at another address from now on.
func (a *actor) move(to netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addr = to
}

func (a *actor) peer() *peer { return a.node.lookupPeer(a.public) }

func (a *actor) now() time.Duration { return time.Since(a.epoch) + 1 }

// inject sends the node a message.
func (a *actor) inject(msg []byte) { a.network.Inject(a.addr, a.node.addrPort(), msg) }

// got returns what came since it was last asked, once the bubble has settled.
func (a *actor) got() []transporttest.Packet {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.inbox
	a.inbox = nil
	return all
}

// gotKinds returns the types of the messages that came.
func (a *actor) gotKinds() []uint8 {
	var kinds []uint8
	for _, p := range a.got() {
		kind, ok := noise.MessageType(p.Data)
		if !ok {
			a.t.Fatalf("the node sent something that is no message: %x", p.Data)
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

// expectSilence fails if anything came.
func (a *actor) expectSilence(what string) {
	a.t.Helper()
	if kinds := a.gotKinds(); len(kinds) != 0 {
		a.t.Fatalf("%s: answered by messages of types %v", what, kinds)
	}
}

// one returns the one message that came, which must be of a kind.
func (a *actor) one(kind uint8) []byte {
	a.t.Helper()
	all := a.got()
	if len(all) != 1 || all[0].Data[0] != kind {
		var kinds []uint8
		for _, p := range all {
			kinds = append(kinds, p.Data[0])
		}
		a.t.Fatalf("messages of types %v came instead of one of type %d (drops %v)", kinds, kind, a.node.drops.snapshot())
	}
	return all[0].Data
}

// initiation makes an initiation with the timestamp of at.
func (a *actor) initiation(at time.Time) ([]byte, *noise.Initiator) {
	a.t.Helper()
	a.index++
	msg, pending, err := a.remote.Initiate(nil, a.index, tai64n.From(at), crypto.GeneratePrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	a.stamper.Stamp(msg, a.now())
	return msg, pending
}

// restamp puts the right mac1 on a changed message, as anybody can who knows the node's public key.
func (a *actor) restamp(msg []byte) []byte {
	cookie.NewStamper(a.node.public).Stamp(msg, 0)
	return msg
}

// consume makes the actor's session of a response.
func (a *actor) consume(pending *noise.Initiator, response []byte) {
	a.t.Helper()
	keys, remote, err := pending.Consume(response, a.psk)
	if err != nil {
		a.t.Fatalf("the node's response: %v", err)
	}
	a.derive(&keys, true, pending.LocalIndex(), remote)
}

func (a *actor) derive(keys *noise.Keys, initiator bool, local, remote uint32) {
	a.t.Helper()
	s, err := session.New(keys, crypto.ChaCha20Poly1305, initiator, local, remote, a.now())
	if err != nil {
		a.t.Fatal(err)
	}
	a.session = s
}

// handshake has the actor initiate and complete a handshake, unconfirmed yet.
func (a *actor) handshake() {
	a.t.Helper()
	msg, pending := a.initiation(time.Now())
	a.inject(msg)
	a.consume(pending, a.one(noise.TypeResponse))
}

// response answers the node's initiation and takes the session it makes into use.
func (a *actor) response(initiation []byte) []byte {
	a.t.Helper()
	if !a.checker.CheckMAC1(initiation) {
		a.t.Fatal("the node's initiation has a wrong mac1")
	}
	r, err := a.id.ReadInitiation(initiation)
	if err != nil {
		a.t.Fatal(err)
	}
	if r.Static() != a.node.public {
		a.t.Fatal("the initiation is not the node's")
	}
	if _, err := r.Verify(a.remote); err != nil {
		a.t.Fatal(err)
	}
	a.index++
	msg, keys, err := r.Respond(nil, a.index, a.psk, crypto.GeneratePrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	a.stamper.Stamp(msg, a.now())
	a.derive(&keys, false, a.index, r.RemoteIndex())
	return msg
}

// seal makes a data message of a plaintext; nil is a keepalive.
func (a *actor) seal(plaintext []byte) []byte {
	a.t.Helper()
	counter, ok := a.session.Reserve(1, len(plaintext)+noise.TagSize)
	if !ok {
		a.t.Fatal("the actor's session is used up")
	}
	msg := make([]byte, len(plaintext)+session.Overhead)
	return msg[:a.session.Seal(msg, counter, plaintext, &a.nonce)]
}

// open decrypts a data message of the node; padding included.
func (a *actor) open(msg []byte) []byte {
	a.t.Helper()
	if got := noise.ReceiverIndex(msg); got != a.session.LocalIndex {
		a.t.Fatalf("a message for index %d came, the session has %d", got, a.session.LocalIndex)
	}
	plaintext, err := a.session.Open(make([]byte, 0, len(msg)), msg, &a.nonce)
	if err != nil {
		a.t.Fatal(err)
	}
	return plaintext
}

// say sends the node a packet with a payload.
func (a *actor) say(payload string) { a.inject(a.seal(a.packet(payload))) }

// packet is one from the actor's inner address to the node's, padded as is due.
func (a *actor) packet(payload string) []byte {
	p := udpPacket(a.inner, a.node.inner, []byte(payload))
	return append(p, make([]byte, padding(len(p), testMTU))...)
}

// sendTo pushes a packet for the actor into the node's device.
func (a *actor) sendTo(payload string) {
	a.node.dev.Queue(0).Push(udpPacket(a.node.inner, a.inner, []byte(payload)), noOffload)
}

// payloads returns the payloads of all data messages that came, "" for a keepalive.
func (a *actor) payloads() []string {
	a.t.Helper()
	var all []string
	for _, p := range a.got() {
		if p.Data[0] != noise.TypeData {
			continue
		}
		packet := a.open(p.Data)
		if len(packet) == 0 {
			all = append(all, "")
			continue
		}
		all = append(all, string(packet[28:binary.BigEndian.Uint16(packet[2:])]))
	}
	return all
}

// flipped returns msg with one bit changed.
func flipped(msg []byte, bit int) []byte {
	m := bytes.Clone(msg)
	m[bit/8] ^= 1 << (bit % 8)
	return m
}
