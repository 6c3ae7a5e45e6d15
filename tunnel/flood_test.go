package tunnel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/tai64n"
	"culvert/transport/transporttest"
)

// Floods of the native wire's initiations with the right mac1, which anybody can make who knows the public key: what they
// must not do to memory, to other tunnels' traffic, to third parties, and to peers that want a session.

const (
	// floodMembers is how many peers the flooded node has.
	floodMembers = 1000
	// floodSources is how many addresses a flood comes from.
	floodSources = 8
	// floodChunk is how many messages are in the network at once, which therefore needs little memory of its own.
	floodChunk = 64
)

// member is a configured peer that the attacker has nothing of but, where a flood says so, messages it saw.
type member struct {
	key     crypto.PrivateKey
	public  crypto.PublicKey
	address netip.AddrPort
}

// floodMembersOf are the same for all tests: making keys takes longer than flooding.
var floodMembersOf = sync.OnceValue(func() []member {
	all := make([]member, floodMembers)
	for i := range all {
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			panic(err)
		}
		address := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
		all[i] = member{key, key.Public(), netip.AddrPortFrom(address, uint16(1024+i))}
	}
	return all
})

// floodScene is a node with many peers, one of which has a tunnel with it, and an attacker.
type floodScene struct {
	*loadable
	t       *testing.T
	partner *node
	members []member
	said    int // packets exchanged with the partner
	sent    int // messages of floods

	mu      sync.Mutex
	answers map[netip.AddrPort]*answered
}

// answered is what came from an attacker's address and what went there, in bytes of UDP payload.
type answered struct {
	in, out int
	firsts  int    // first parts among the messages; only these may be answered
	kinds   [8]int // of the answers
}

func newFloodScene(t *testing.T) *floodScene {
	t.Helper()
	network := transporttest.New(1)
	s := &floodScene{loadable: newLoadable(t, network, 1), t: t, members: floodMembersOf(),
		answers: map[netip.AddrPort]*answered{}}
	wire := Culvert
	var c Change
	for _, m := range s.members {
		c.Peers = append(c.Peers, PeerChange{PublicKey: m.public, Wire: &wire})
	}
	s.configure(c)
	s.partner = newNode(t, network, 2)
	s.partner.addPeerNode(s.node, true, onNativeWire)
	s.addPeerNode(s.partner, false, onNativeWire)
	network.Tap(func(p *transporttest.Packet) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if a := s.answers[p.To]; a != nil {
			a.out += len(p.Data)
			a.kinds[p.Data[0]&7]++
		}
	})
	s.talk()
	time.Sleep(3 * time.Second) // the search for the path's MTU is over
	return s
}

// talk has packets go both ways through the tunnel there is; all must arrive, and in order.
func (s *floodScene) talk() {
	s.t.Helper()
	for range 10 {
		s.said++
		there, back := fmt.Sprint("there ", s.said), fmt.Sprint("back ", s.said)
		s.partner.send(s.node, there)
		s.expect(there)
		s.node.send(s.partner, back)
		s.partner.expect(back)
	}
}

// messageMaker returns the i-th message of a flood.
type messageMaker func(i int) []byte

// wave sends count messages of a flood.
func (s *floodScene) wave(next messageMaker, count int) {
	for i := range count {
		port := 2000 + s.sent/2%floodSources // both parts come from one
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 200}), uint16(port))
		msg := next(s.sent)
		s.mu.Lock()
		a := s.answers[from]
		if a == nil {
			a = &answered{}
			s.answers[from] = a
		}
		a.in += len(msg)
		if msg[0] == noise.TypeHybridInitiation {
			a.firsts++
		}
		s.mu.Unlock()
		s.network.Inject(from, s.addrPort(), msg)
		s.sent++
		if i%floodChunk == floodChunk-1 {
			synctest.Wait()
		}
	}
	synctest.Wait()
}

// stamped puts the right mac1 on a message.
func (s *floodScene) stamped(msg []byte) []byte {
	stamper := cookie.NewStamper(s.public)
	if msg[0] == noise.TypeKEM {
		stamper.StampKEM(msg)
	} else {
		stamper.Stamp(msg, 0)
	}
	return msg
}

// parts makes both parts of a genuine initiation.
func (s *floodScene) parts(key crypto.PrivateKey, index uint32, at time.Time) (first, second []byte) {
	s.t.Helper()
	id, err := noise.NewIdentity(key)
	if err != nil {
		s.t.Fatal(err)
	}
	offer := noise.Parameters{Suites: crypto.AllSuites, Layer: noise.LayerIP}
	both, _, err := noise.NewRemote(id, s.public).InitiateHybrid(nil, index, tai64n.From(at), offer, noise.Randomness{})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.stamped(both[:noise.HybridInitiationSize:noise.HybridInitiationSize]), s.stamped(both[noise.HybridInitiationSize:])
}

// random makes a message of a type of random bytes.
func (s *floodScene) random(kind uint8, size int) []byte {
	msg := make([]byte, size)
	for i := 4; i < size; i += 4 {
		binary.LittleEndian.PutUint32(msg[i:], rand.Uint32())
	}
	msg[0] = kind
	return s.stamped(msg)
}

// floods are the attacks. None holds a peer's key.
var floods = []struct {
	name       string
	firstParts bool // among its messages
	make       func(s *floodScene) messageMaker
}{
	{"junk", true, func(s *floodScene) messageMaker {
		return func(i int) []byte {
			if i%2 == 0 {
				return s.random(noise.TypeHybridInitiation, noise.HybridInitiationSize)
			}
			return s.random(noise.TypeKEM, noise.KEMSize)
		}
	}},
	{"strangers", true, func(s *floodScene) messageMaker {
		var messages [][]byte
		for i := range 8 {
			key, err := crypto.GeneratePrivateKey()
			if err != nil {
				s.t.Fatal(err)
			}
			first, second := s.parts(key, uint32(i), time.Now())
			messages = append(messages, first, second)
		}
		return func(i int) []byte { return messages[i%len(messages)] }
	}},
	// The claimed key opens, so the peer is found; the hello, which only the key's holder can seal, does not.
	{"impostors", true, func(s *floodScene) messageMaker {
		var messages [][]byte
		for i := range 8 {
			first, second := s.parts(s.members[i].key, uint32(i), time.Now())
			first[noise.HybridInitiationSize-2*noise.MACSize-1] ^= 1
			messages = append(messages, s.stamped(first), second)
		}
		return func(i int) []byte { return messages[i%len(messages)] }
	}},
	{"second parts alone", false, func(s *floodScene) messageMaker {
		return func(int) []byte { return s.random(noise.TypeKEM, noise.KEMSize) }
	}},
	{"replays", true, func(s *floodScene) messageMaker {
		m := s.members[0]
		first, second := s.parts(m.key, 7, time.Now())
		s.network.Inject(m.address, s.addrPort(), first)
		s.network.Inject(m.address, s.addrPort(), second)
		synctest.Wait()
		if got := s.Status().Handshakes.ResponsesSent; got != 2 { // the partner's, and this
			s.t.Fatalf("%d responses", got)
		}
		return func(i int) []byte { return [][]byte{first, second}[i%2] }
	}},
}

// liveHeap is the live heap.
func liveHeap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers kept
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

const (
	// slotBound is what a slot may take, its place in the table included, in bytes.
	slotBound = 1 << 10
	// junkBound is how much a flood that fills no slot may have the heap grow, in bytes: much less than a few bytes of each of its
	// messages. What is remembered of sources under load is part of it.
	junkBound = 128 << 10
	// slotsBound is the same for a flood that fills the slots of all peers.
	slotsBound = junkBound + floodMembers*slotBound
)

// checkUnmoved fails if the flood was answered by anything but cookies, or has changed anything.
func (s *floodScene) checkUnmoved(before Status, heapBefore, bound int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	cookies := 0
	for from, a := range s.answers {
		if a.out > a.in || a.kinds[noise.TypeCookieReply] > a.firsts || a.out > a.firsts*noise.CookieReplySize {
			s.t.Errorf("%v: answers %v of %d bytes, of %d bytes with %d first parts", from, a.kinds, a.out, a.in, a.firsts)
		}
		cookies += a.kinds[noise.TypeCookieReply]
		a.kinds[noise.TypeCookieReply] = 0
		if a.kinds != [8]int{} {
			s.t.Errorf("%v: answers by type: %v", from, a.kinds)
		}
	}
	if asked := s.dropped(DropInUnderLoad) + s.dropped(DropInMAC2); cookies != asked {
		s.t.Errorf("%d cookies for %d messages that lacked one", cookies, asked)
	}
	after := s.Status()
	if after.Handshakes.InitiationsReceived != before.Handshakes.InitiationsReceived ||
		after.Handshakes.ResponsesSent != before.Handshakes.ResponsesSent {
		s.t.Errorf("handshakes before %+v, after %+v", before.Handshakes, after.Handshakes)
	}
	if grown := liveHeap() - heapBefore; grown > bound {
		s.t.Errorf("the heap has grown by %d bytes, stated bound %d", grown, bound)
	} else {
		s.t.Logf("%d messages, %d cookie replies, heap grown by %d bytes of at most %d; drops %v", s.sent, cookies, grown, bound, after.Drops)
	}
}

func TestFloods(t *testing.T) {
	for _, f := range floods {
		t.Run(f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFloodScene(t)
				next := f.make(s)
				s.wave(func(int) []byte { return make([]byte, noise.KEMSize) }, 2*floodChunk) // so that the network has its memory
				s.sent = 0
				before, heapBefore, indices := s.Status(), liveHeap(), s.usedIndices()

				// More than the queue holds, while nothing is taken from it. Data does not pass there.
				release := s.hold()
				s.wave(next, 2*handshakeQueue)
				if f.firstParts && s.dropped(DropInQueueFull) == 0 || s.dropped(DropInKEM)+s.dropped(DropInQueueFull) < handshakeQueue {
					t.Error("the queue was never crowded")
				}
				s.talk()
				release()
				// Second parts alone cost too little to ask anybody for a cookie.
				if loaded := s.Status().UnderLoad; loaded != f.firstParts {
					t.Errorf("under load: %v", loaded)
				}
				s.talk()

				// Too slow for the queue to fill, so that each is looked at as closely as it deserves.
				time.Sleep(2 * underLoadFor)
				if s.Status().UnderLoad {
					t.Error("still under load")
				}
				for range 10 {
					s.wave(next, floodChunk)
					s.talk()
				}
				s.checkUnmoved(before, heapBefore, junkBound)
				if got := s.usedIndices(); got != indices {
					t.Errorf("%d indices in use, before %d", got, indices)
				}
			})
		})
	}
}

// TestFloodOfFirstParts has all peers' keys in the attacker's hands, who never sends a second part: a slot each is what it
// costs, for a while.
func TestFloodOfFirstParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFloodScene(t)
		s.wave(func(int) []byte { return make([]byte, noise.KEMSize) }, 2*floodChunk)
		s.sent = 0
		all := func(at time.Time) messageMaker {
			return func(i int) []byte {
				first, _ := s.parts(s.members[i%floodMembers].key, rand.Uint32(), at)
				return first
			}
		}
		s.talk()
		before, heapBefore := s.Status(), liveHeap()
		s.wave(all(time.Now()), floodMembers)
		once := liveHeap() - heapBefore
		if once > floodMembers*slotBound {
			t.Errorf("%d slots take %d bytes", floodMembers, once)
		}
		time.Sleep(time.Second)
		s.wave(all(time.Now()), floodMembers) // replaces all
		twice := liveHeap() - heapBefore
		if twice > floodMembers*slotBound {
			t.Errorf("%d slots filled twice take %d bytes", floodMembers, twice)
		}
		if got := s.dropped(DropInOldInitiation) + s.dropped(DropInHandshake) + s.dropped(DropInUnderLoad); got != 0 {
			t.Errorf("%d of the first parts were not taken: %v", got, s.Status().Drops)
		}
		s.talk()
		time.Sleep(slotLifetime + time.Second)
		s.talk()
		left := liveHeap() - heapBefore
		if left > once/2 {
			t.Errorf("%d bytes are left of %d", left, once)
		}
		t.Logf("%d slots: %d bytes, filled again %d, after their time %d", floodMembers, once, twice, left)
		s.checkUnmoved(before, heapBefore, slotsBound)
	})
}

// TestHandshakeDuringFloods has a peer without a session want one while all floods go on, in waves that keep the node under
// load, with the queue full most of the time.
func TestHandshakeDuringFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFloodScene(t)
		var makers []messageMaker
		for _, f := range floods {
			makers = append(makers, f.make(s))
		}
		wave := func() {
			release := s.hold()
			s.wave(func(i int) []byte { return makers[i%len(makers)](i / len(makers)) }, 2*underLoadFrom)
			release()
		}
		wave()
		newcomer := newNode(t, s.network, 3)
		s.addPeerNode(newcomer, false, onNativeWire)
		newcomer.addPeerNode(s.node, true, onNativeWire)
		newcomer.send(s.node, "new")
		arrived := ""
		for range 100 { // 10 s
			wave()
			if got := s.received(); len(got) > 0 {
				arrived = strings.Join(got, ",")
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if arrived != "new" {
			t.Fatalf("received %q; drops %v", arrived, s.Status().Drops)
		}
		if tries := newcomer.Status().Handshakes.InitiationsSent; tries > 3 {
			t.Errorf("%d tries", tries)
		}
		if newcomer.Status().Handshakes.CookiesReceived == 0 {
			t.Error("the newcomer needed no cookie: there was no load")
		}
		s.talk()
		for from, a := range s.answers {
			if a.out > a.in || a.kinds[noise.TypeHybridResponse] != 0 {
				t.Errorf("%v: %+v", from, a)
			}
		}
	})
}

// TestFloodedQueueIsShared fills the queue while nothing is taken from it: what comes then is lost, not waited for, and the
// initiator's next try finds room.
func TestFloodedQueueIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFloodScene(t)
		next := floods[0].make(s)
		newcomer := newNode(t, s.network, 3)
		s.addPeerNode(newcomer, false, onNativeWire)
		newcomer.addPeerNode(s.node, true, onNativeWire)
		release := s.hold()
		s.wave(next, handshakeQueue+floodChunk)
		newcomer.send(s.node, "new")
		s.talk()
		release()
		s.expect()
		time.Sleep(10 * time.Second)
		s.expect("new")
		if tries := newcomer.Status().Handshakes.InitiationsSent; tries > 3 {
			t.Errorf("%d tries", tries)
		}
	})
}
