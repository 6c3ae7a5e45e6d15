package tunnel

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
)

func TestRekeyingLosesReordersAndDuplicatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		network.SetDefaultLink(transporttest.Link{Delay: 40 * time.Millisecond})
		var toA, toB []string
		for i := range 3000 { // five minutes at ten a second, each way
			payload := fmt.Sprint("packet ", i)
			a.send(b, payload)
			toB = append(toB, payload)
			if i > 3 { // b learns a's endpoint from the handshake
				b.send(a, payload)
				toA = append(toA, payload)
			}
			time.Sleep(100 * time.Millisecond)
			if i == 1200 || i == 1201 || i == 2402 { // and many at once when the session is about to be renewed
				for j := range 300 {
					payload := fmt.Sprint("burst ", i, j)
					a.send(b, payload)
					b.send(a, payload)
					toA, toB = append(toA, payload), append(toB, payload)
				}
			}
		}
		time.Sleep(time.Second)
		if got := b.received(); !slices.Equal(got, toB) {
			t.Errorf("b received %d packets of %d, or others", len(got), len(toB))
		}
		if got := a.received(); !slices.Equal(got, toA) {
			t.Errorf("a received %d packets of %d, or others", len(got), len(toA))
		}
		if got := a.Status().Handshakes.Completed; got != 3 {
			t.Errorf("%d handshakes", got)
		}
		if len(a.Status().Drops)+len(b.Status().Drops) != 0 {
			t.Errorf("drops %v, %v", a.Status().Drops, b.Status().Drops)
		}
		if a.usedIndices() != 2 || b.usedIndices() != 2 {
			t.Errorf("%d and %d indices in use, want current and previous", a.usedIndices(), b.usedIndices())
		}
	})
}

func TestCountersOfAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t, transporttest.New(1))
		a.send(b, "first")
		b.expect("first")
		b.send(a, "a longer answer to it")
		a.expect("a longer answer to it")
		a.dev.Queue(0).Push(udpPacket(b.inner, b.inner, []byte("refused, but authentic")), noOffload)
		b.expect()
		const first, answer, refused = 48, 64, 64 // padded
		out := []uint64{3, noise.InitiationSize + 2*session.Overhead + first + refused}
		back := []uint64{2, noise.ResponseSize + session.Overhead + answer}
		sa, sb := a.Status().Peers[0], b.Status().Peers[0]
		for name, c := range map[string][3][]uint64{
			"a to b": {out, {sa.SentPackets, sa.SentBytes}, {sb.ReceivedPackets, sb.ReceivedBytes}},
			"b to a": {back, {sb.SentPackets, sb.SentBytes}, {sa.ReceivedPackets, sa.ReceivedBytes}},
		} {
			if !slices.Equal(c[1], c[0]) || !slices.Equal(c[2], c[0]) {
				t.Errorf("%s: %d sent, %d received, want %d", name, c[1], c[2], c[0])
			}
		}
	})
}

func TestOnlyTheLastThreeKeypairsReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		var old []*session.Session
		for range 4 {
			a.connect()
			old = append(old, a.session)
			time.Sleep(time.Second)
		}
		a.handshake() // a fifth, unconfirmed
		old = append(old, a.session)
		for i, s := range old {
			a.session = s
			want := []string{}
			if i == 2 || i == 3 { // the previous and the current one
				want = append(want, "alive")
			}
			if i < 4 {
				a.say("alive")
				n.expect(want...)
			}
		}
		a.session = old[4]
		a.say("confirms")
		n.expect("confirms")
		a.session = old[3] // previous now
		a.say("late")
		n.expect("late")
		if got := n.usedIndices(); got != 2 {
			t.Errorf("%d indices in use", got)
		}
		if got := n.dropped(DropInIndex); got != 2 {
			t.Errorf("%d messages of forgotten sessions", got)
		}
	})
}

func TestNothingIsAcceptedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		network.SetDefaultLink(transporttest.Link{Duplicate: 1, Delay: time.Millisecond, Reorder: 0.3, ReorderDelay: 10 * time.Millisecond})
		seen := make(map[string]int)
		for i := range 500 {
			a.send(b, fmt.Sprint("packet ", i))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		for _, p := range b.received() {
			seen[p]++
		}
		if len(seen) != 500 {
			t.Errorf("%d of 500 packets arrived", len(seen))
		}
		for p, n := range seen {
			if n != 1 {
				t.Errorf("%q was delivered %d times", p, n)
			}
		}
		if b.dropped(DropInReplay) < 500 {
			t.Errorf("drops: %v", b.Status().Drops)
		}
		if b.dropped(DropInOldInitiation) != 1 || b.Status().Handshakes.Completed != 1 {
			t.Errorf("the doubled initiation: drops %v", b.Status().Drops)
		}
	})
}

func TestReplayWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := actorScene(t)
		a.connect()
		behind, within := a.seal(a.packet("behind")), a.seal(a.packet("within"))
		a.session.Reserve(8192-2, 0)
		a.say("the newest") // 8192 counters after the one within
		n.expect("the newest")
		a.inject(behind)
		n.expect()
		if got := n.dropped(DropInReplay); got != 1 {
			t.Errorf("drops: %v", n.Status().Drops)
		}
		a.inject(within)
		n.expect("within")
		a.inject(within)
		n.expect()
		// A false message does not move the window.
		next := a.seal(a.packet("next"))
		a.session.Reserve(1<<20, 0)
		a.inject(flipped(a.seal(a.packet("far ahead")), 20*8))
		n.expect()
		a.inject(next)
		n.expect("next")
	})
}

// A bad network: a third of everything is lost, much of the rest comes late, twice or in another order.
func TestTrafficSurvivesABadNetwork(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := transporttest.New(seed)
				a, b := newPair(t, network)
				b.addPeerNode(a, true)
				network.SetDefaultLink(transporttest.Link{
					Loss: 0.3, Duplicate: 0.2, Reorder: 0.2, ReorderDelay: 80 * time.Millisecond,
					Delay: 20 * time.Millisecond, Jitter: 30 * time.Millisecond,
				})
				sent, seen := make(map[string]bool), make(map[string]int)
				const count = 1000
				for i := range count {
					pa, pb := fmt.Sprint("a", i), fmt.Sprint("b", i)
					sent[pa], sent[pb] = true, true
					a.send(b, pa)
					b.send(a, pb)
					time.Sleep(250 * time.Millisecond)
				}
				time.Sleep(time.Second)
				for _, p := range append(a.received(), b.received()...) {
					seen[p]++
				}
				for p, n := range seen {
					if n != 1 || !sent[p] {
						t.Errorf("%q was delivered %d times", p, n)
					}
				}
				if len(seen) < 2*count*6/10 {
					t.Errorf("%d of %d packets arrived", len(seen), 2*count)
				}
				network.SetDefaultLink(transporttest.Link{})
				time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
				a.received()
				b.received()
				a.send(b, "recovered")
				b.expect("recovered")
				b.send(a, "recovered too")
				a.expect("recovered too")
			})
		})
	}
}

func TestStagedPacketsAreBoundedAndSentInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		network.SetLink(a.host, b.host, transporttest.Link{Loss: 1})
		var want []string
		for i := range 200 {
			payload := fmt.Sprintf("packet %03d", i)
			a.send(b, payload)
			if i >= 200-maxStagedPackets {
				want = append(want, payload)
			}
		}
		b.expect()
		if got := a.dropped(DropOutStagedFull); got != 200-maxStagedPackets {
			t.Errorf("%d packets dropped", got)
		}
		size := stagedCost(len(udpPacket(a.inner, b.inner, []byte(want[0]))))
		if got := a.Status().Peers[0].StagedBytes; got != maxStagedPackets*size || int(a.stagedBytes.Load()) != got {
			t.Errorf("%d bytes staged, %d in all", got, a.stagedBytes.Load())
		}
		network.SetLink(a.host, b.host, transporttest.Link{Delay: 50 * time.Millisecond})
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		a.send(b, "newer")
		time.Sleep(time.Second)
		b.expect(append(want, "newer")...)
		if a.stagedBytes.Load() != 0 {
			t.Errorf("%d bytes still staged", a.stagedBytes.Load())
		}
	})
}

func TestStagedBytesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		network.SetLink(a.host, b.host, transporttest.Link{Loss: 1})
		packet, o := superPacket(46)
		large, small := stagedCost(len(packet)), stagedCost(28+len("small"))
		fit := maxStagedBytes / large
		for i := range fit + 3 {
			for at := 40; at < len(packet); at++ {
				packet[at] = byte(i)
			}
			a.dev.Queue(0).Push(packet, o)
		}
		a.send(b, "small")
		b.expect()
		// The small one cost another large one its place, if there was no room left.
		for maxStagedBytes-fit*large < small {
			fit--
		}
		if got := int(a.stagedBytes.Load()); got != fit*large+small || got > maxStagedBytes {
			t.Errorf("%d bytes staged", got)
		}
		network.SetLink(a.host, b.host, transporttest.Link{})
		time.Sleep(session.RekeyTimeout + session.MaxRetryJitter)
		var first byte
		total := 0
		for _, p := range b.written() {
			if p[9] == 17 {
				continue
			}
			if total == 0 {
				first = p[40]
			}
			for _, c := range p[40:] {
				if want := first + byte(total/(len(packet)-40)); c != want {
					t.Fatalf("byte %d is %d, want %d: not in order", total, c, want)
				}
				total++
			}
		}
		if total != fit*(len(packet)-40) || first != 3 {
			t.Errorf("%d bytes arrived, the first packet is number %d", total, first)
		}
	})
}

func TestStagedTotalIsBounded(t *testing.T) {
	var total atomic.Int64
	var peers []*staged
	packet := make([]byte, 60_000)
	lost := 0
	for len(peers) < 3*maxStagedTotal/maxStagedBytes {
		s := &staged{}
		peers = append(peers, s)
		for range 5 {
			n, why := s.push(packet, device.Offload{}, 0, &total)
			if n > 0 && why == DropOutStagedMemory {
				lost++
			}
			if total.Load() > maxStagedTotal || s.bytes > maxStagedBytes || len(s.packets) > maxStagedPackets {
				t.Fatalf("%d bytes in all, %d of one peer", total.Load(), s.bytes)
			}
		}
	}
	if lost == 0 || total.Load() < maxStagedTotal-int64(len(packet)) {
		t.Errorf("%d packets lost at the bound, %d bytes staged", lost, total.Load())
	}
	for _, s := range peers {
		if n := len(s.packets); s.clear(&total) != n {
			t.Error("clear counts wrongly")
		}
	}
	if total.Load() != 0 {
		t.Errorf("%d bytes staged in the end", total.Load())
	}
}

// What waited goes first, however the session came up and whichever worker is quicker.
func TestNothingOvertakesStagedPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a := loadScene(t)
		a.handshake()
		for _, p := range []string{"one", "two", "three"} {
			a.sendTo(p)
		}
		a.expectSilence("packets under an unconfirmed session")
		release := n.hold()
		a.inject(a.seal(nil)) // confirms, while the control loop cannot send yet
		synctest.Wait()
		a.sendTo("four")
		a.sendTo("five")
		synctest.Wait()
		release()
		a.sendTo("six")
		if got := strings.Join(a.payloads(), " "); got != "one two three four five six" {
			t.Errorf("sent in the order %s", got)
		}
	})
}

func TestPacketsWaitForTheSessionThatReplacesAnExpiredOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		a.send(b, "first")
		b.expect("first")
		time.Sleep(session.RejectAfterTime)
		network.SetDefaultLink(transporttest.Link{Delay: 100 * time.Millisecond})
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprint("packet ", i))
			a.send(b, want[i])
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		b.expect(want...)
	})
}

func TestSessionThatNobodyUsesIsRenewedOnlyOnTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l, _ := established(t)
		time.Sleep(time.Hour)
		l.reset()
		a.send(b, "after an hour")
		b.expect("after an hour")
		l.expectTimes(t, "a", noise.TypeInitiation, 0)
	})
}
