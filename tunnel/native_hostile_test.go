package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/fragment"
	"culvert/tunnel/message"
	"culvert/tunnel/payload"
)

// A peer is authenticated, not trusted: whatever it puts into its session, nothing comes out of the device but packets from its
// allowed IPs, and other peers notice nothing.

// cut makes the fragments of a plaintext, of piece bytes each.
func cut(plaintext []byte, id uint32, piece int) (fragments [][]byte) {
	for index := 0; len(plaintext) > 0; index++ {
		n := min(piece, len(plaintext))
		fragments = append(fragments, fragmentOf(plaintext[:n], id, uint8(index), n == len(plaintext)))
		plaintext = plaintext[n:]
	}
	return fragments
}

// fragmentOf is the plaintext of one fragment.
func fragmentOf(piece []byte, id uint32, index uint8, last bool) []byte {
	p := append(bytes.Clone(piece), make([]byte, fragment.Overhead)...)
	fragment.PutTail(p[len(piece):], id, index, last, 0)
	return p
}

// trailed is a content with its trailer.
func trailed(kind payload.Kind, content []byte) []byte {
	return append(bytes.Clone(content), payload.Trailer(kind, 0))
}

func TestNativeContentIsValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		other := newNativeActor(n, network, 2)
		a.allow("fd00::1/128")
		a.connect()
		other.connect()
		v4 := udpPacket(a.inner, n.inner, []byte("some payload"))
		tcp := tcpPacket(a.inner, n.inner, 100)
		v6 := udp6Packet(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), []byte("some payload"))
		set16 := func(p []byte, at, v int) []byte {
			p = bytes.Clone(p)
			binary.BigEndian.PutUint16(p[at:], uint16(v))
			return p
		}
		set8 := func(p []byte, at int, v byte) []byte {
			p = bytes.Clone(p)
			p[at] = v
			return p
		}
		extended := append(bytes.Clone(v6[:40]), append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, v6[40:]...)...)
		extended[6] = 0 // hop-by-hop options
		binary.BigEndian.PutUint16(extended[4:], uint16(len(extended)-40))
		fragmented6 := append(bytes.Clone(v6[:40]), append([]byte{17, 0, 0, 0, 0, 0, 0, 1}, v6[40:]...)...)
		fragmented6[6] = 44
		binary.BigEndian.PutUint16(fragmented6[4:], uint16(len(fragmented6)-40))
		whole := trailed(payload.IP, v4)
		nested := fragmentOf(whole, 1, 0, true)

		type try struct {
			name string
			why  DropReason
			in   [][]byte // plaintexts
		}
		var all []try
		add := func(name string, why DropReason, plaintexts ...[]byte) { all = append(all, try{name, why, plaintexts}) }
		for kind := range payload.Kind(16) {
			if kind < payload.IP || kind > payload.Path {
				add(fmt.Sprint("kind ", uint8(kind)), DropInKind, trailed(kind, v4))
				add(fmt.Sprint("kind ", uint8(kind), " in fragments"), DropInKind, cut(trailed(kind, v4), 9, 20)...)
			}
			for padding := range 16 {
				trailer := byte(kind)<<4 | byte(padding)
				for size := range padding + 1 {
					if kind == 0 && padding == 0 {
						continue
					}
					add(fmt.Sprintf("trailer %#x behind %d bytes", trailer, size), DropInKind, append(make([]byte, size), trailer))
				}
			}
		}
		frame := append(make([]byte, 12), append([]byte{8, 0}, v4...)...)
		add("an Ethernet frame", DropInLayer, trailed(payload.Ethernet, frame))
		add("an Ethernet frame, elided", DropInLayer, trailed(payload.EthernetElided, frame))
		add("an Ethernet frame in fragments", DropInLayer, cut(trailed(payload.Ethernet, frame), 1, 20)...)
		for name, p := range map[string][]byte{"IPv4": v4, "IPv6": v6} {
			add(name+" and a byte more", DropInMalformed, trailed(payload.IP, append(bytes.Clone(p), 0)))
			add(name+" and 100 bytes more", DropInMalformed, trailed(payload.IP, append(bytes.Clone(p), make([]byte, 100)...)))
			add(name+" less a byte", DropInMalformed, trailed(payload.IP, p[:len(p)-1]))
			add(name+" less a byte that counts as padding", DropInMalformed, append(bytes.Clone(p), byte(payload.IP)<<4|1))
			add(name+" with padding that is none of its own", DropInMalformed, append(append(bytes.Clone(p), 0, 0), byte(payload.IP)<<4|1))
			add(name+" less all but a byte", DropInMalformed, trailed(payload.IP, p[:1]))
			add(name+" elided and a byte more", DropInMalformed, trailed(payload.IPElided, append(bytes.Clone(p), 0)))
		}
		add("version 5", DropInMalformed, trailed(payload.IP, set8(v4, 0, 0x55)))
		add("another's source", DropInSource, trailed(payload.IP, udpPacket(other.inner, n.inner, nil)))
		add("another's source, elided", DropInSource, trailed(payload.IPElided, udpPacket(other.inner, n.inner, nil)))
		add("another's source in fragments", DropInSource, cut(trailed(payload.IP, udpPacket(other.inner, n.inner, nil)), 1, 9)...)
		add("nobody's source", DropInSource, trailed(payload.IP, udpPacket(netip.MustParseAddr("203.0.113.200"), n.inner, nil)))
		add("the node's own source", DropInSource, trailed(payload.IP, udpPacket(n.inner, n.inner, nil)))
		elided := func(name string, p []byte) { add("elided "+name, DropInMalformed, trailed(payload.IPElided, p)) }
		elided("ICMP", set8(v4, 9, 1))
		elided("SCTP", set8(v4, 9, 132))
		elided("ICMPv6", set8(v6, 6, 58))
		elided("first fragment", set16(v4, 6, 0x2000))
		elided("later fragment", set16(v4, 6, 1))
		elided("last fragment", set16(tcp, 6, 100))
		elided("IPv6 fragment", fragmented6)
		elided("IPv6 extension header", extended)
		elided("UDP with a length too long", set16(v4, 24, len(v4)-20+1))
		elided("UDP with a length too short", set16(v4, 24, len(v4)-20-1))
		elided("UDP of length zero", set16(v4, 24, 0))
		elided("UDP without a whole header", set16(v4[:27], 2, 27))
		elided("TCP without a whole header", set16(tcp[:39], 2, 39))
		elided("TCP with a header of 4 words", set8(tcp, 32, 4<<4))
		elided("TCP with a header over its end", set16(set8(tcp[:44], 32, 15<<4), 2, 44))

		add("a fragment of its tail alone", DropInFragment, trailed(payload.Fragment, make([]byte, fragment.TailSize)))
		for size := 1; size < fragment.TailSize; size++ {
			add(fmt.Sprint("a fragment of ", size), DropInFragment, trailed(payload.Fragment, make([]byte, size)))
		}
		add("a fragment in a fragment", DropInKind, cut(nested, 2, 20)...)
		add("a fragment twice", DropInFragment, fragmentOf(whole[:9], 3, 0, false), fragmentOf(whole[:9], 3, 0, false))
		add("a last fragment twice", DropInFragment, fragmentOf(whole[:9], 4, 5, true), fragmentOf(whole[:9], 4, 5, true))
		add("two lengths", DropInFragment, fragmentOf(whole[:9], 5, 0, false), fragmentOf(whole[9:19], 5, 1, false))
		add("a last fragment longer than the others", DropInFragment,
			fragmentOf(whole[:9], 6, 0, false), fragmentOf(whole[9:], 6, 1, true))
		add("a fragment beyond the last", DropInFragment, fragmentOf(whole[:9], 7, 1, true), fragmentOf(whole[:9], 7, 2, false))
		add("two last fragments", DropInFragment, fragmentOf(whole[:9], 8, 1, true), fragmentOf(whole[:9], 8, 2, true))
		add("a last fragment before one that came", DropInFragment, fragmentOf(whole[:9], 9, 4, false), fragmentOf(whole[:9], 9, 2, true))
		add("number 127 that is not the last", DropInFragment, fragmentOf(whole[:9], 10, 127, false))
		add("pieces that would be too much together", DropInFragment, fragmentOf(make([]byte, 1200), 11, 100, false))
		add("a fragment alone that holds a keepalive", DropInKind, fragmentOf([]byte{0}, 12, 0, true))

		add("a probe of another path in fragments", DropInKind, cut(trailed(payload.Path, make([]byte, 100)), 14, 20)...)
		add("a probe of another path that is none", DropInControl, trailed(payload.Path, make([]byte, 100)))
		add("a control message of nothing", DropInControl, trailed(payload.Control, []byte{0}))
		add("a control message in fragments that is none", DropInControl, cut(trailed(payload.Control, make([]byte, 3000)), 13, 1000)...)

		kp := a.peer().current.Load()
		n.expectDrops(t, "nothing yet", nil)
		for _, c := range all {
			for _, plaintext := range c.in {
				a.inject(a.seal(plaintext))
			}
			n.expectDrops(t, c.name, map[DropReason]int{c.why: 1})
			if got := n.written(); len(got) != 0 {
				t.Errorf("%s: %x delivered", c.name, got)
			}
			time.Sleep(controlInterval)
		}
		if a.peer().current.Load() != kp {
			t.Error("the session has changed")
		}
		time.Sleep(2 * time.Second) // fragments that wait for others are given up
		for name, plaintexts := range map[string][][]byte{
			"IPv4": {trailed(payload.IP, v4)}, "IPv6": {trailed(payload.IP, v6)}, "IPv6 with an extension": {trailed(payload.IP, extended)},
			"elided": {trailed(payload.IPElided, tcp)}, "padded": {append(append(bytes.Clone(v4), make([]byte, 15)...), byte(payload.IP)<<4|15)},
			"in fragments": cut(whole, 100, 9), "a fragment alone": {fragmentOf(whole, 101, 0, true)},
		} {
			for _, plaintext := range plaintexts {
				a.inject(a.seal(plaintext))
			}
			if got := n.written(); len(got) != 1 {
				t.Errorf("%s: %d delivered; drops %v", name, len(got), n.drops.snapshot())
			}
		}
		other.says("untouched")
		n.expect("untouched")
	})
}

// One that begins packets and never completes them loses its own. The other's are put together.
func TestNativeUnfinishedFragments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		honest := newNativeActor(n, network, 2)
		a.connect()
		honest.connect()
		big := udpPacket(honest.inner, n.inner, bytes.Repeat([]byte("x"), 3000))
		parts := cut(trailed(payload.IP, big), 1, 1100)
		piece := make([]byte, 1100)
		const packets = 10_000
		arrived := 0
		for i := range packets {
			a.inject(a.seal(fragmentOf(piece, uint32(i), uint8(i%20), false)))
			if i%500 == 0 { // a packet of the other's is under way all the time
				for _, p := range parts[arrived%len(parts):][:1] {
					honest.inject(honest.seal(p))
				}
				arrived++
				synctest.Wait()
			}
		}
		got := n.written()
		if want := arrived / len(parts); len(got) != want {
			t.Errorf("%d of %d packets of the other were put together; drops %v", len(got), want, n.drops.snapshot())
		}
		for _, p := range got {
			if !bytes.Equal(p, big) {
				t.Fatal("put together wrongly")
			}
		}
		if got := n.dropped(DropInReassembly); got < packets-256 || got > packets {
			t.Errorf("%d of %d were given up", got, packets)
		}
		time.Sleep(2 * time.Second)
		for _, p := range parts {
			honest.inject(honest.seal(p))
		}
		if got := n.written(); len(got) != 1 {
			t.Errorf("%d packets afterwards", len(got))
		}
		if got := n.dropped(DropInReassembly); got != packets+arrived%len(parts)/len(parts)+min(arrived%len(parts), 1) {
			t.Errorf("%d were given up in all", got)
		}
	})
}

// The bounds of what a receiver keeps, asked of the receiver itself.
func TestNativeReassemblyIsBounded(t *testing.T) {
	m, _ := newWirePath(t, Culvert, crypto.ChaCha20Poly1305, nil, noOffload)
	far, near := onlyPeer(m.out.tunnel).current.Load(), onlyPeer(m.in.tunnel).current.Load()
	piece := make([]byte, 1300)
	r := rand.New(rand.NewPCG(1, 1))
	for range 20_000 {
		plaintext := fragmentOf(piece, r.Uint32N(1000), uint8(r.IntN(40)), false)
		counter, _ := far.Reserve(1, len(plaintext)+noise.TagSize)
		msg := make([]byte, len(plaintext)+session.Overhead)
		m.inject(msg[:far.Seal(msg, counter, plaintext, &m.out.nonce)])
		if packets, size := m.in.reassembler.Usage(); packets > 16 || size > 256<<10 {
			t.Fatalf("%d packets and %d bytes of one session", packets, size)
		}
	}
	if near.received.Load() != 20_000 {
		t.Errorf("%d messages came in: the test tests nothing", near.received.Load())
	}
}

// inject has the receiving worker take one datagram.
func (m *memoryPath) inject(msg []byte) {
	train := trainOf(msg)
	m.in.datagram(msg, &train, m.in.tunnel.clock.now())
	m.in.noteArrivals(m.in.tunnel.clock.now())
}

// rawControl has the actor say something as a control message.
func (a *nativeActor) rawControl(content []byte) { a.inject(a.sealed(payload.Control, content)) }

func TestNativeMalformedControlMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		other := newNativeActor(n, network, 2)
		a.connect()
		other.connect()
		encode := func(number uint64, m message.Message) []byte {
			content, err := message.Encode(nil, number, m)
			if err != nil {
				t.Fatal(err)
			}
			return content
		}
		var all [][]byte
		for _, content := range [][]byte{
			encode(1, message.Hello{Agent: "x", MTU: 1420, Layer: 3}), encode(0, message.Ack{Number: 1}), encode(0, message.Echo{ID: 1, Sent: 1}),
			encode(0, message.Reply{ID: 1}), encode(0, message.Probed{ID: 1}), encode(1, message.Push{Subject: "x", Document: []byte("y")}),
			encode(0, message.Goodbye{Reason: 1}),
		} {
			for size := 1; size < len(content); size++ {
				all = append(all, content[:size])
			}
			all = append(all, append(bytes.Clone(content), 0), append(bytes.Clone(content), content...))
		}
		all = append(all,
			encode(0, message.Probe{ID: 1})[:4],
			append(encode(0, message.Probe{ID: 1}), 1),
			[]byte{0x80}, []byte{0x9f}, []byte{0xf6}, []byte{0x83, 1, 0, 0xa0}, []byte{0x83, 0x20, 0, 0xa0}, []byte{0x84, 8, 0, 0xa1, 1, 0, 0},
			[]byte{0x83, 8, 0, 0xbf, 1, 0, 0xff},             // an indefinite map
			[]byte{0x83, 8, 0, 0xa2, 1, 0, 1, 0},             // a key twice
			[]byte{0x83, 8, 0, 0xa1, 1, 0xf9, 0, 0},          // a float
			[]byte{0x83, 8, 0, 0xa1, 1, 0xc1, 0},             // a tag
			[]byte{0x83, 8, 5, 0xa1, 1, 0},                   // a number where there is none
			[]byte{0x83, 7, 0, 0xa2, 1, 0x61, 'x', 2, 0x40},  // none where there is one
			[]byte{0x83, 7, 1, 0xa2, 1, 0x61, 0x1b, 2, 0x40}, // a subject that is no text for people
			[]byte{0x83, 7, 1, 0xa2, 1, 0x61, 'x', 2, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0}, // longer than the world
			bytes.Repeat([]byte{0x81}, 1200),
			bytes.Repeat([]byte{0xa1}, 1200),
			bytes.Repeat([]byte{0xff}, 1200),
		)
		kp := a.peer().current.Load()
		n.expectDrops(t, "nothing yet", nil)
		for i, content := range all {
			a.rawControl(content)
			synctest.Wait()
			n.expectDrops(t, fmt.Sprintf("message %d: %x", i, content[:min(len(content), 20)]), map[DropReason]int{DropInControl: 1})
			time.Sleep(controlInterval)
		}
		if a.peer().current.Load() != kp {
			t.Error("a malformed message ended the session")
		}
		if got := n.Status().Peers; slices.ContainsFunc(got, func(p PeerStatus) bool { return p.Native.Agent != "" }) {
			t.Error("a malformed hello was taken")
		}
		// Unknown types and keys are ignored, and acknowledged where numbered.
		a.got()
		a.rawControl([]byte{0x83, 0x18, 99, 1, 0xa1, 1, 0})
		if acks := a.messages(message.TypeAck); len(acks) != 1 || acks[0].message != (message.Ack{Number: 1}) {
			t.Errorf("a message of an unknown type: %+v", acks)
		}
		a.rawControl([]byte{0x83, 7, 2, 0xa3, 1, 0x61, 'x', 2, 0x40, 9, 0})
		if acks := a.messages(message.TypeAck); len(acks) != 1 || acks[0].message != (message.Ack{Number: 2}) {
			t.Errorf("a push with an unknown key: %+v", acks)
		}
		n.expectDrops(t, "what is well-formed", nil)
		other.says("untouched")
		n.expect("untouched")
	})
}

// A flood of control messages is held to the peer's rate. Other peers' packets and control messages are not touched.
func TestNativeControlFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network := nativeScene(t)
		other := newNativeActor(n, network, 2)
		a.connect()
		other.connect()
		const each, rounds = 1000, 20
		echo, err := message.Encode(nil, 0, message.Echo{ID: 7, Sent: 1})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for round := range rounds {
			for range each {
				a.rawControl(echo)
			}
			text := fmt.Sprint("round ", round)
			other.says(text)
			n.expect(text)
			other.got()
			other.tells(0, message.Echo{ID: uint64(round + 1), Sent: 1})
			if replies := other.messages(message.TypeReply); len(replies) != 1 || replies[0].message.(message.Reply).ID != uint64(round+1) {
				t.Fatalf("round %d: the other's echo was answered by %+v", round, replies)
			}
			time.Sleep(100 * time.Millisecond)
		}
		limit := controlBurst + int(time.Since(start)/controlInterval) + 1
		if got := len(a.messages(message.TypeReply)); got > limit || got < limit/2 {
			t.Errorf("%d echoes of %d were answered, the limit is %d", got, each*rounds, limit)
		}
		if got := n.dropped(DropInControlRate); got < each*rounds-limit {
			t.Errorf("%d messages dropped", got)
		}
		if n.Status().Peers[0].Native == nil || a.peer().current.Load() == nil {
			t.Error("the session has ended")
		}
	})
}

// The queue that all peers share takes no more than it holds, and each peer no more than its part of it.
func TestNativeControlQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		n := newLoadable(t, network, 1)
		var actors []*nativeActor
		for i := range byte(20) {
			a := newNativeActor(n.node, network, 10+i)
			synctest.Wait()
			a.connect()
			actors = append(actors, a)
		}
		release := n.hold()
		big, err := message.Encode(nil, 1, message.Push{Subject: "x", Document: make([]byte, 1000)})
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range actors {
			for range 100 {
				a.rawControl(big)
			}
			synctest.Wait()
			if got, want := len(n.controls), min(controlQueue, controlBurst*(i+1)); got != want {
				t.Fatalf("after %d peers %d messages wait, want %d", i+1, got, want)
			}
		}
		if got, want := n.dropped(DropInControlRate), 100*len(actors)-controlQueue; got != want {
			t.Errorf("%d dropped, want %d", got, want)
		}
		actors[0].says("data goes on meanwhile")
		n.expect("data goes on meanwhile")
		release()
	})
}

func TestNativeGoodbyeOfAnEarlierSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		a.connect()
		old := a.session
		time.Sleep(time.Second)
		a.connect()
		current := a.session
		kp := a.peer().current.Load()
		a.session = old
		a.tells(0, message.Goodbye{Reason: message.ReasonStopping})
		synctest.Wait()
		if a.peer().current.Load() != kp {
			t.Fatal("a goodbye under the session before ended this one")
		}
		n.expectDrops(t, "a late goodbye", nil)
		a.session = current
		a.says("still here")
		n.expect("still here")
		a.tells(0, message.Goodbye{Reason: 12345}) // whatever the reason
		synctest.Wait()
		if a.peer().current.Load() != nil || n.usedIndices() != 0 {
			t.Error("a goodbye did not end the session")
		}
		a.says("gone")
		n.expect()
		n.expectDrops(t, "after the goodbye", map[DropReason]int{DropInIndex: 1})
		// What it has to say next begins anew.
		time.Sleep(time.Second)
		a.connect()
		a.says("back")
		n.expect("back")
	})
}

// What a peer says of numbers, counts and ids that never were changes nothing.
func TestNativeFalseAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := nativeScene(t)
		a.connect()
		a.says("one")
		n.expect("one")
		time.Sleep(maintainEvery)
		first := a.messages(message.TypeHello)
		if len(first) == 0 || first[0].number != 1 {
			t.Fatalf("hello: %+v", first)
		}
		for _, number := range []uint64{2, 3, 1 << 32, math.MaxUint64} {
			a.tells(0, message.Ack{Number: number})
		}
		for _, id := range []uint64{0, 100, 1 << 40, math.MaxUint64} {
			a.tells(0, message.Probed{ID: id})
			a.tells(0, message.Reply{ID: id, Received: math.MaxUint64})
			a.tells(0, message.Echo{ID: id, Sent: math.MaxUint64})
			a.tells(0, message.Echo{ID: id, Sent: 0})
		}
		synctest.Wait()
		if got := a.messages(message.TypeReply); len(got) != 8 {
			t.Errorf("%d echoes were answered", len(got))
		}
		if s := n.Status().Peers[0].Native; s.PathMTU != 1232 || s.RTT != 0 || s.Loss != nil {
			t.Errorf("native: %+v", s)
		}
		time.Sleep(5 * time.Second)
		if again := a.messages(message.TypeHello); len(again) == 0 || again[0].number != 1 {
			t.Errorf("a hello that was not acknowledged is not sent again: %+v", again)
		}
		a.tells(0, message.Ack{Number: 1})
		a.got()
		time.Sleep(time.Minute)
		if again := a.messages(message.TypeHello); len(again) != 0 {
			t.Errorf("a hello that was acknowledged is sent again: %+v", again)
		}
		n.expectDrops(t, "false answers", nil)

		// True ids with false counts: what status shows of the peer stays a fraction.
		a.says("two")
		n.expect("two")
		for i := range 20 {
			time.Sleep(time.Second)
			a.says("more")
			for _, m := range a.messages(message.TypeEcho) {
				a.tells(0, message.Reply{ID: m.message.(message.Echo).ID, Received: []uint64{0, 5, math.MaxUint64, 1, 1 << 63}[i%5]})
			}
		}
		synctest.Wait()
		if s := n.Status().Peers[0].Native; s.Loss != nil && !(*s.Loss >= 0 && *s.Loss <= 1) || s.RTT < 0 {
			t.Errorf("native: %+v", s)
		}
	})
}

// Numbers out of turn are not acted on; repetitions are acknowledged again and not acted on again.
func TestNativeNumbersOutOfTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, network, pushed := pushScene(t)
		_ = network
		a.connect()
		say := func(number uint64, text string, acked bool) {
			t.Helper()
			a.got()
			a.tells(number, message.Push{Subject: "s", Document: []byte(text)})
			acks := a.messages(message.TypeAck)
			if acked != (len(acks) == 1) || acked && acks[0].message != (message.Ack{Number: number}) {
				t.Errorf("%s: acknowledged by %+v", text, acks)
			}
			time.Sleep(controlInterval)
		}
		say(2, "too early", false)
		say(math.MaxUint64, "much too early", false)
		say(1, "first", true)
		say(1, "first once more", true)
		say(3, "too early", false)
		say(2, "second", true)
		say(1, "too late", false)
		if got := fmt.Sprint(pushed.seen()); got != "[first second]" {
			t.Errorf("acted on %s", got)
		}
		n.expectDrops(t, "numbers", nil)
	})
}

// pushScene is nativeScene with a node that notes documents pushed to it.
func pushScene(t *testing.T) (*node, *nativeActor, *transporttest.Network, *notes) {
	network := transporttest.New(1)
	addr := netip.MustParseAddr("192.0.2.1")
	pushed := new(notes)
	n := newNodeOn(t, network.Host(addr), addr, 1, notePushes(pushed))
	a := newNativeActor(n, network, 1)
	synctest.Wait()
	return n, a, network, pushed
}

// notes are documents that were pushed.
type notes struct {
	mu  sync.Mutex
	all []string
}

// seen returns what was noted, once the bubble has settled.
func (p *notes) seen() []string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}

// notePushes is for newNodeOn.
func notePushes(to *notes) func(*Options) {
	return func(o *Options) {
		o.Pushed = func(_ crypto.PublicKey, _ string, document []byte) {
			to.mu.Lock()
			defer to.mu.Unlock()
			to.all = append(to.all, string(document))
		}
	}
}

func TestNativePushLargerThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _, pushed := pushScene(t)
		a.connect()
		largest := strings.Repeat("d", message.MaxDocument)
		content, err := message.Encode(nil, 1, message.Push{Subject: "s", Document: []byte(largest)})
		if err != nil {
			t.Fatal(err)
		}
		give := func(content []byte, id uint32) {
			for _, p := range cut(trailed(payload.Control, content), id, 1000) {
				a.inject(a.seal(p))
			}
			synctest.Wait()
		}
		for i, size := range []int{message.MaxDocument + 1, message.MaxSize - 20, message.MaxSize, 40_000} {
			big := []byte{0x83, 7, 1, 0xa2, 1, 0x61, 's', 2, 0x59, byte(size >> 8), byte(size)}
			give(append(big, make([]byte, size)...), uint32(i))
			n.expectDrops(t, fmt.Sprint(size, " bytes"), map[DropReason]int{DropInControl: 1})
		}
		if len(pushed.seen()) != 0 {
			t.Fatal("a document too large was taken")
		}
		give(content, 100)
		if got := pushed.seen(); len(got) != 1 || got[0] != largest {
			t.Errorf("%d documents of the largest size were taken; drops %v", len(got), n.drops.snapshot())
		}
	})
}

func trainOf(msg []byte) transport.Train {
	return transport.Train{Buf: msg, N: len(msg), Endpoint: transport.Endpoint{Remote: netip.MustParseAddrPort("192.0.2.1:51820")}}
}
