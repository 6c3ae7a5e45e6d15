package access

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// handOver has another state go on, with a policy.
func (a *asked) handOver(s Spec) *asked {
	a.t.Helper()
	b := &asked{NewState(compile(a.t, s), someday), a.t, a.now}
	if err := b.Resume(a.Keep(a.now), MaxFlows, b.now); err != nil {
		a.t.Fatal(err)
	}
	return b
}

func TestKeptFlowsGoOn(t *testing.T) {
	both(t, func(t *testing.T, far, near string, _ bool) {
		a := newAsked(t, webAndDNS)
		web := made{src: far, dst: near, proto: TCP, sport: 1000, dport: 443, flags: flagSYN}
		ack := web
		ack.flags = flagACK
		dns := made{src: far, dst: near, proto: UDP, sport: 1000, dport: 53}
		ping := made{src: far, dst: near, proto: ICMP, icmp: 8, id: 7}
		if far == peer6 {
			ping.icmp = 128
		}
		first := made{src: far, dst: near, proto: UDP, sport: 1001, dport: 53, more: true, packetID: 9, payload: make([]byte, 16)}
		rest := made{src: far, dst: near, proto: UDP, offset: 24, packetID: 9, payload: make([]byte, 8)}
		old := made{src: far, dst: near, proto: UDP, sport: 1002, dport: 53}
		a.expect(FromPeer, old, Pass)
		a.now += 40 * time.Second // longer than that lasts
		for _, m := range []made{web, dns, ping, first} {
			a.expect(FromPeer, m, Pass)
		}
		a.expect(ToPeer, web.back(), Pass)
		a.expect(FromPeer, ack, Pass) // established

		for range 3 { // from hand to hand
			a = a.handOver(webAndDNS)
			if got := a.Status(a.now).Flows; got != 4 {
				t.Errorf("%d flows", got)
			}
		}
		a.expect(FromPeer, rest, Pass)
		a.expect(ToPeer, old.back(), Denied)
		a.expect(ToPeer, ack.back(), Pass)
		a.expect(ToPeer, dns.back(), Pass)
		a.expect(ToPeer, ping.back(), Pass)
		a.expect(ToPeer, dns, Denied)
		a.now += 3 * time.Second
		a.expect(FromPeer, rest, Denied)
		a.now += 4 * 24 * time.Hour
		a.expect(ToPeer, dns.back(), Denied)
		a.expect(ToPeer, ack.back(), Pass)

		// Where the successor's policy is another, it decides.
		less := webAndDNS
		less.Rules = less.Rules[1:]
		b := a.handOver(less)
		b.expect(ToPeer, ack.back(), Denied)
		b.expect(FromPeer, ack, Denied)
		c := a.handOver(Spec{Default: Allow})
		c.expect(ToPeer, ack.back(), Pass)
		if c.Keep(c.now) != nil {
			t.Error("what allows everything keeps flows")
		}
	})
}

// A full table has room for all of its flows in another process, where each has another place; and one that may have less has no more.
func TestKeptFlowsHaveRoom(t *testing.T) {
	a := newAsked(t, webAndDNS)
	flow := func(i int) made { return made{src: peer4, dst: near4, proto: UDP, sport: uint16(i), dport: 53} }
	for i := range 1000 {
		a.expect(FromPeer, flow(i), Pass)
		a.Grow(1024, a.now)
	}
	kept := len(a.Keep(a.now).Flows) / keptSize
	b := a.handOver(webAndDNS)
	if got := b.Status(b.now).Flows; got != kept || kept <= 512 || b.Room() != 2048 {
		t.Errorf("%d of %d flows in %d places", got, kept, b.Room())
	}
	for _, most := range []int{-5, 0, 64, 100, 500} {
		c := NewState(compile(t, webAndDNS), someday)
		if err := c.Resume(a.Keep(a.now), most, a.now); err != nil || c.Room() > max(most, MinFlows) {
			t.Errorf("room for %d where there may be %d: %v", c.Room(), most, err)
		}
	}
}

func TestKeptIsChecked(t *testing.T) {
	a := newAsked(t, webAndDNS)
	a.expect(FromPeer, made{src: peer4, dst: near4, proto: UDP, sport: 1000, dport: 53}, Pass)
	good := a.Keep(a.now)
	with := func(at int, b byte) *Kept {
		flows := bytes.Clone(good.Flows)
		flows[at] = b
		return &Kept{good.Room, flows}
	}
	for name, k := range map[string]*Kept{
		"cut":         {good.Room, good.Flows[1:]},
		"no room":     {0, nil},
		"small":       {32, nil},
		"odd":         {100, nil},
		"huge":        {2 * MaxFlows, nil},
		"more":        {64, bytes.Repeat(good.Flows, 65)},
		"reserved":    with(36, 1),
		"unused":      with(39, 0),
		"kind":        with(39, 0x11),
		"fragment":    with(39, kindUsed|kindFragment),
		"opener":      with(44, 2),
		"phase":       with(45, byte(fragments)+1),
		"no fragment": with(45, byte(fragments)),
	} {
		s := NewState(compile(t, webAndDNS), someday)
		if err := s.Resume(k, MaxFlows, a.now); !errors.Is(err, ErrKept) || s.Status(a.now).Flows != 0 {
			t.Errorf("%s: %v, %d flows", name, err, s.Status(a.now).Flows)
		}
	}
	// One that says that it never ends has as long as any.
	b := &asked{NewState(compile(t, webAndDNS), someday), t, a.now}
	if err := b.Resume(with(40, 0xff), MaxFlows, b.now); err != nil {
		t.Fatal(err)
	}
	answer := made{src: near4, dst: peer4, proto: UDP, sport: 53, dport: 1000}
	c := *b
	c.now += udpOpened*time.Second - time.Millisecond
	if got := c.Check(ToPeer, answer.bytes(), c.now+2*time.Millisecond); got != Denied {
		t.Errorf("after its time: %v", got)
	}
	c.expect(ToPeer, answer, Pass)
}

// Whatever is kept, nothing but what can be kept again is taken.
func FuzzKept(f *testing.F) {
	a := newAsked(f, webAndDNS)
	for i := range 5 {
		a.expect(FromPeer, made{src: peer4, dst: near4, proto: []uint8{UDP, TCP, ICMP}[i%3], sport: uint16(rand.N(1 << 16)), dport: []uint16{53, 443, 0}[i%3],
			flags: flagSYN, icmp: 8}, Pass)
	}
	f.Add(a.Room(), a.Keep(a.now).Flows)
	f.Fuzz(func(t *testing.T, room int, flows []byte) {
		b := NewState(compile(t, webAndDNS), someday)
		if b.Resume(&Kept{room, flows}, 1024, a.now) != nil {
			return
		}
		k := b.Keep(a.now)
		c := NewState(compile(t, webAndDNS), someday)
		if err := c.Resume(k, 1024, a.now); err != nil || b.Room() > 1024 {
			t.Error(fmt.Errorf("%d places, %d flows: %w", b.Room(), len(k.Flows)/keptSize, err))
		}
	})
}
