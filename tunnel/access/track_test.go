package access

import (
	"fmt"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// asked is a state with a time of its own.
type asked struct {
	*State
	t   testing.TB
	now time.Duration
}

func newAsked(t testing.TB, s Spec) *asked {
	return &asked{NewState(compile(t, s), someday), t, time.Second}
}

func (a *asked) expect(d Direction, m made, want Verdict) {
	a.t.Helper()
	if got := a.Check(d, m.bytes(), a.now); got != want {
		a.t.Fatalf("direction %d, %+v: %v, want %v", d, m, got, want)
	}
}

// webAndDNS is what most tests are about: from the peer to anywhere near.
var webAndDNS = Spec{Rules: []Rule{
	{Action: Allow, Addresses: prefixes("192.0.2.0/24", "2001:db8::/32"), Protocols: []uint8{TCP}, Ports: []Ports{{443, 443}}},
	{Action: Allow, Addresses: prefixes("192.0.2.0/24", "2001:db8::/32"), Protocols: []uint8{UDP}, Ports: []Ports{{53, 53}}},
	{Action: Allow, Addresses: prefixes("192.0.2.0/24", "2001:db8::/32"), Protocols: []uint8{ICMP, 50}},
}}

// both runs a test over either family.
func both(t *testing.T, f func(t *testing.T, far, near string, v6 bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, peer4, near4, false) })
	t.Run("IPv6", func(t *testing.T) { f(t, peer6, near6, true) })
}

func TestTCP(t *testing.T) {
	both(t, func(t *testing.T, far, near string, _ bool) {
		a := newAsked(t, webAndDNS)
		syn := made{src: far, dst: near, proto: TCP, sport: 1000, dport: 443, flags: flagSYN}
		packet := func(m made, flags uint8) made { m.flags = flags; return m }
		a.expect(ToPeer, syn.back(), Denied) // answers nothing
		a.expect(FromPeer, packet(syn, flagACK), Denied)
		a.expect(FromPeer, packet(syn, flagSYN|flagACK), Denied)
		a.expect(FromPeer, packet(syn, flagSYN|flagFIN), Denied)
		a.expect(FromPeer, syn, Pass)
		a.expect(FromPeer, syn, Pass) // again
		other := syn
		other.dport = 80
		a.expect(FromPeer, other, Denied)
		a.expect(ToPeer, syn.back(), Pass)
		a.expect(ToPeer, packet(other.back(), flagSYN|flagACK), Denied)
		a.expect(FromPeer, packet(syn, flagACK), Pass)
		a.now += 5*24*time.Hour - time.Minute // established
		a.expect(ToPeer, packet(syn.back(), flagACK), Pass)
		a.expect(ToPeer, packet(syn.back(), flagSYN), Denied) // a connection of its own
		a.expect(FromPeer, packet(syn, flagACK), Pass)
		a.expect(ToPeer, packet(syn.back(), flagACK|flagFIN), Pass)
		a.now += 100 * time.Second
		a.expect(FromPeer, packet(syn, flagACK|flagFIN), Pass)
		a.now += 100 * time.Second
		a.expect(ToPeer, packet(syn.back(), flagACK), Pass)
		a.now += 121 * time.Second
		a.expect(ToPeer, packet(syn.back(), flagACK), Denied)
		a.expect(FromPeer, syn, Pass)
		a.expect(ToPeer, packet(syn.back(), flagRST|flagACK), Pass)
		a.now += 11 * time.Second
		a.expect(ToPeer, packet(syn.back(), flagACK), Denied)
		// The same ports again while the old connection is closing.
		a.expect(FromPeer, syn, Pass)
		a.expect(FromPeer, packet(syn, flagRST), Pass)
		a.expect(FromPeer, syn, Pass)
		a.now += 60 * time.Second
		a.expect(ToPeer, syn.back(), Pass)
		a.now += 61 * time.Second // half open
		a.expect(FromPeer, packet(syn, flagACK), Denied)
	})
}

func TestUDPAndEcho(t *testing.T) {
	both(t, func(t *testing.T, far, near string, v6 bool) {
		a := newAsked(t, webAndDNS)
		query := made{src: far, dst: near, proto: UDP, sport: 1000, dport: 53}
		a.expect(ToPeer, query.back(), Denied)
		a.expect(FromPeer, query, Pass)
		a.now += 29 * time.Second
		a.expect(ToPeer, query.back(), Pass)
		a.now += 179 * time.Second
		a.expect(ToPeer, query.back(), Pass)
		a.now += 181 * time.Second
		a.expect(ToPeer, query.back(), Denied)
		a.expect(FromPeer, query, Pass)
		a.now += 31 * time.Second // never answered
		a.expect(ToPeer, query.back(), Denied)

		echo := made{src: far, dst: near, proto: ICMP, icmp: 8, id: 77}
		if v6 {
			echo.icmp = 128
		}
		a.expect(ToPeer, echo.back(), Denied)
		a.expect(FromPeer, echo, Pass)
		a.expect(ToPeer, echo.back(), Pass)
		mine := echo
		mine.src, mine.dst = echo.dst, echo.src
		a.expect(ToPeer, mine, Denied) // a question is no answer, whatever its identifier
		another := echo.back()
		another.id++
		a.expect(ToPeer, another, Denied)
		a.now += 31 * time.Second
		a.expect(ToPeer, echo.back(), Denied)

		esp := made{src: far, dst: near, proto: 50}
		a.expect(ToPeer, esp.back(), Denied)
		a.expect(FromPeer, esp, Pass)
		a.expect(ToPeer, esp.back(), Pass)
	})
}

func TestICMPErrors(t *testing.T) {
	both(t, func(t *testing.T, far, near string, v6 bool) {
		a := newAsked(t, webAndDNS)
		unreachable, redirect, router := uint8(3), uint8(5), "203.0.113.1"
		if v6 {
			unreachable, redirect, router = 1, 137, "2001:db9::1"
		}
		query := made{src: far, dst: near, proto: UDP, sport: 1000, dport: 53}
		a.expect(ToPeer, query.quoted(router, unreachable), Denied)
		a.expect(FromPeer, query, Pass)
		a.expect(ToPeer, query.quoted(router, unreachable), Pass)
		a.expect(ToPeer, query.quoted(router, redirect), Denied)
		forged := query
		forged.dport = 54
		a.expect(ToPeer, forged.quoted(router, unreachable), Denied)
		// To another host than the one that sent the packet.
		astray := query.quoted(router, unreachable)
		astray.dst = map[bool]string{false: "10.0.0.3", true: "fd00::3"}[v6]
		a.expect(ToPeer, astray, Denied)
		// The other way: the peer tells of an answer.
		answer := query.back()
		toNear := answer.quoted(far, unreachable)
		a.expect(FromPeer, toNear, Pass)
		// An error about an error is none.
		about := query.quoted(router, unreachable).quoted(near, unreachable)
		about.src, about.dst = near, far
		a.expect(ToPeer, about, Denied)
		for n := range 60 { // whatever is cut off
			cut := query.quoted(router, unreachable)
			cut.payload = cut.payload[:n]
			got, quotes := a.Check(ToPeer, cut.bytes(), a.now), n >= 28
			if v6 {
				quotes = n >= 48
			}
			if (got == Pass) != quotes {
				t.Errorf("%d bytes quoted: %v", n, got)
			}
		}
	})
}

func TestFragments(t *testing.T) {
	both(t, func(t *testing.T, far, near string, v6 bool) {
		a := newAsked(t, webAndDNS)
		first := made{src: far, dst: near, proto: UDP, sport: 1000, dport: 53, more: true, packetID: 4711, payload: make([]byte, 1000)}
		later := made{src: far, dst: near, proto: UDP, offset: 1008, packetID: 4711, payload: make([]byte, 500)}
		a.expect(FromPeer, later, Denied)
		a.expect(FromPeer, first, Pass)
		a.expect(FromPeer, later, Pass)
		middle := later
		middle.more, middle.offset = true, 504
		a.expect(FromPeer, middle, Pass)
		a.expect(ToPeer, later, Denied) // another direction is another packet
		other := later
		other.packetID++
		a.expect(FromPeer, other, Denied)
		denied := first
		denied.dport, denied.packetID = 54, 5000
		a.expect(FromPeer, denied, Denied)
		other.packetID = 5000
		a.expect(FromPeer, other, Denied)
		// Answers.
		back, rest := first.back(), later
		rest.src, rest.dst = near, far
		a.expect(ToPeer, rest, Denied)
		a.expect(ToPeer, back, Pass)
		a.expect(ToPeer, rest, Pass)
		a.now += 3 * time.Second
		a.expect(FromPeer, later, Denied)
		// A first one without its whole header, and one that overlaps it.
		tiny := made{src: far, dst: near, proto: ICMP, icmp: 8, more: true, packetID: 9}
		b := tiny.bytes()
		b = b[:len(b)-1]
		if v6 {
			b[5]--
		} else {
			b[3]--
		}
		if got := a.Check(FromPeer, b, a.now); got != Denied {
			t.Errorf("a first fragment that ends within its header: %v", got)
		}
		if !v6 {
			syn := made{src: far, dst: near, proto: TCP, sport: 1, dport: 443, flags: flagSYN, more: true, packetID: 10}
			a.expect(FromPeer, syn, Pass)
			a.expect(FromPeer, made{src: far, dst: near, proto: TCP, offset: 8, packetID: 10, payload: make([]byte, 12)}, Denied)
		}
	})
}

// TestDisguises: what could be taken for something else is denied, by policies that allow everything else as well.
func TestDisguises(t *testing.T) {
	for _, otherwise := range []Action{Deny, Allow} {
		s := Spec{Default: otherwise, Rules: []Rule{{Action: Deny, Protocols: []uint8{TCP}, Ports: []Ports{{22, 22}}}, {Action: Allow}}}
		a := newAsked(t, s)
		four := made{src: peer4, dst: near4, proto: UDP, sport: 1, dport: 2}
		six := made{src: peer6, dst: near6, proto: UDP, sport: 1, dport: 2}
		a.expect(FromPeer, four, Pass)
		a.expect(FromPeer, six, Pass)
		for name, m := range map[string]struct {
			made
			want Verdict
		}{
			"router alert":       {with(four, []byte{148, 4, 0, 0}, nil), Pass},
			"loose source route": {with(four, []byte{1, 131, 7, 4, 10, 9, 9, 9}, nil), Denied},
			"strict":             {with(four, []byte{137, 7, 4, 10, 9, 9, 9, 0}, nil), Denied},
			"options cut off":    {with(four, []byte{148, 9, 0, 0}, nil), Denied},
			"option of 0 bytes":  {with(four, []byte{148, 0, 0, 0}, nil), Denied},
			"ICMPv6 over IPv4":   {made{src: peer4, dst: near4, proto: 58}, Denied},
			"hop-by-hop":         {with(six, nil, []byte{0, 0, 1, 4, 0, 0, 0, 0}), Pass},
			"destination":        {with(six, nil, []byte{60, 0, 1, 4, 0, 0, 0, 0}), Pass},
			"used routing":       {with(six, nil, []byte{43, 0, 0, 0, 0, 0, 0, 0}), Pass},
			"routing":            {with(six, nil, []byte{43, 0, 0, 1, 0, 0, 0, 0}), Denied},
			"too long extension": {with(six, nil, []byte{60, 200, 1, 4, 0, 0, 0, 0}), Denied},
			"short TCP":          {made{src: peer4, dst: near4, proto: 6, offset: 0}, Pass},
		} {
			if name == "short TCP" {
				b := m.made.bytes()[:header4+tcpSize-1]
				if got := a.Check(FromPeer, b, a.now); got != Denied {
					t.Errorf("%s: %v", name, got)
				}
				continue
			}
			if got := a.Check(FromPeer, m.bytes(), a.now); got != m.want {
				t.Errorf("%s: %v, want %v", name, got, m.want)
			}
		}
		hidden := made{src: peer6, dst: near6, proto: TCP, sport: 1, dport: 22, flags: flagSYN, extension: []byte{0, 0, 1, 4, 0, 0, 0, 0}}
		a.expect(FromPeer, hidden, Denied)
	}
}

func with(m made, options, extension []byte) made {
	m.options, m.extension = options, extension
	return m
}

// TestDefaultAllow: rules that only deny, and answers to what they deny.
func TestDefaultAllow(t *testing.T) {
	a := newAsked(t, Spec{Default: Allow, Rules: []Rule{{Action: Deny, Protocols: []uint8{TCP, UDP}}}})
	syn := made{src: near4, dst: peer4, proto: TCP, sport: 1, dport: 22, flags: flagSYN}
	reverse := made{src: peer4, dst: near4, proto: TCP, sport: 1, dport: 22, flags: flagSYN}
	a.expect(FromPeer, reverse, Denied)
	a.expect(FromPeer, syn.back(), Denied)
	a.expect(ToPeer, syn, Pass)
	a.expect(FromPeer, syn.back(), Pass)
	late := syn
	late.sport, late.flags = 2, flagACK
	a.expect(ToPeer, late, Pass) // a connection from before, and in this direction everything passes
	a.expect(FromPeer, late.back(), Denied)
}

func TestPolicyChangesKeepFlows(t *testing.T) {
	a := newAsked(t, webAndDNS)
	web := made{src: peer4, dst: near4, proto: TCP, sport: 1, dport: 443, flags: flagSYN}
	dns := made{src: peer4, dst: near4, proto: UDP, sport: 1, dport: 53}
	echo := made{src: peer4, dst: near4, proto: ICMP, icmp: 8, id: 1}
	for _, m := range []made{web, dns, echo} {
		a.expect(FromPeer, m, Pass)
	}
	flows := func() int { return a.Status(a.now).Flows }
	if flows() != 3 {
		t.Fatalf("%d flows", flows())
	}
	a.SetPolicy(compile(t, Spec{Rules: []Rule{webAndDNS.Rules[0], webAndDNS.Rules[2]}, FromPeer: 1e9}), someday)
	a.expect(ToPeer, dns.back(), Denied)
	a.expect(ToPeer, web.back(), Pass)
	a.expect(ToPeer, echo.back(), Pass)
	if flows() != 2 {
		t.Errorf("%d flows", flows())
	}
	a.SetPolicy(compile(t, Spec{Rules: []Rule{{Action: Allow, Direction: ToPeer}}}), someday) // none of them from the peer
	a.expect(ToPeer, web.back(), Denied)
	a.SetPolicy(compile(t, Spec{Default: Allow}), someday)
	a.expect(FromPeer, made{src: peer4, dst: near4, proto: TCP, flags: flagACK}, Pass)
	if a.Room() != 0 {
		t.Error("flows are kept where no rules are")
	}
	// Flows end even where a policy is the 2^16th after theirs.
	a.SetPolicy(compile(t, webAndDNS), someday)
	a.expect(FromPeer, dns, Pass)
	p, q := compile(t, Spec{}), compile(t, Spec{FromPeer: 1e9})
	for range 1 << 15 {
		a.SetPolicy(p, someday)
		a.SetPolicy(q, someday)
	}
	a.expect(ToPeer, dns.back(), Denied)
}

func TestFlowsGrow(t *testing.T) {
	if unsafe.Sizeof(place{}) != FlowSize {
		t.Fatalf("a flow takes %d bytes", unsafe.Sizeof(place{}))
	}
	a := newAsked(t, webAndDNS)
	flow := func(i int) made {
		return made{src: peer4, dst: near4, proto: UDP, sport: uint16(i), dport: 53}
	}
	for i := range 4000 {
		a.expect(FromPeer, flow(i), Pass)
		if a.Attention() {
			a.Grow(MaxFlows, a.now)
		}
	}
	kept := 0
	for i := range 4000 {
		if a.Check(ToPeer, flow(i).back().bytes(), a.now) == Pass {
			kept++
		}
	}
	if kept < 3900 || a.Room() < 4096 || a.Room() > 1<<16 {
		t.Errorf("%d of 4000 flows are known, in a table of %d", kept, a.Room())
	}
	// No further than allowed, and it does not go on asking.
	b := newAsked(t, webAndDNS)
	asked := 0
	for i := range 4000 {
		b.expect(FromPeer, flow(i), Pass)
		if b.Attention() {
			asked++
			b.Grow(300, b.now)
		}
	}
	if b.Room() != 256 || asked > 3 {
		t.Errorf("a table of %d, asked %d times", b.Room(), asked)
	}
}

// TestFullTable: what has lasted longest is kept, and what is new finds a place all the same.
func TestFullTable(t *testing.T) {
	a := newAsked(t, webAndDNS)
	var all []made
	for i := range 8 {
		m := made{src: peer4, dst: near4, proto: TCP, sport: uint16(i), dport: 443, flags: flagSYN}
		a.expect(FromPeer, m, Pass)
		a.expect(ToPeer, m.back(), Pass)
		m.flags = flagACK
		a.expect(FromPeer, m, Pass)
		all = append(all, m)
	}
	for i := range 100000 { // a flood of its own
		m := made{src: peer4, dst: near4, proto: UDP, sport: uint16(i), dport: 53, payload: []byte{byte(i >> 16)}}
		a.expect(FromPeer, m, Pass)
		a.expect(ToPeer, m.back(), Pass)
	}
	for _, m := range all {
		a.expect(ToPeer, m.back(), Pass)
	}
	if a.Room() != MinFlows {
		t.Errorf("a table of %d", a.Room())
	}
}

func TestConcurrently(t *testing.T) {
	s := NewState(compile(t, webAndDNS), someday)
	now := time.Second
	var workers sync.WaitGroup
	lost := make([]int, 4)
	for w := range 4 {
		workers.Go(func() {
			for i := range 20000 {
				m := made{src: peer4, dst: near4, proto: UDP, sport: uint16(w%2*1000 + i%40), dport: 53}
				if s.Check(FromPeer, m.bytes(), now) != Pass {
					t.Error("denied")
				}
				if s.Check(ToPeer, m.back().bytes(), now) != Pass {
					lost[w]++
				}
				if s.Check(ToPeer, made{src: near4, dst: peer4, proto: UDP, sport: 53, dport: 9999}.bytes(), now) != Denied {
					t.Error("an answer to nothing passes")
				}
			}
		})
	}
	workers.Go(func() {
		with := compile(t, webAndDNS)
		with.spec.FromPeer = 1e12
		for i := range 200 {
			s.SetPolicy([]*Policy{with, compile(t, webAndDNS)}[i%2], someday)
			s.Status(now)
			s.Grow(1024, now)
		}
	})
	workers.Wait()
	// An answer may meet the moment in which its flow is moved; it must be rare.
	if n := lost[0] + lost[1] + lost[2] + lost[3]; n > 2000 {
		t.Errorf("%d of 80000 answers were denied", n)
	}
}

func TestChecksAllocateNothing(t *testing.T) {
	s := webAndDNS
	s.FromPeer, s.ToPeer, s.Quota = 1e12, 1e12, Quota{Bytes: 1 << 60}
	a := newAsked(t, s)
	n := 0
	packets := [][]byte{}
	for _, near := range []string{near4, near6} {
		far := map[string]string{near4: peer4, near6: peer6}[near]
		for _, m := range []made{
			{src: far, dst: near, proto: TCP, sport: 1, dport: 443, flags: flagSYN}, {src: far, dst: near, proto: UDP, sport: 1, dport: 53},
			{src: far, dst: near, proto: UDP, sport: 1, dport: 53, more: true, payload: make([]byte, 8)},
			{src: far, dst: near, proto: UDP, sport: 1, dport: 54}, {src: far, dst: near, proto: ICMP, icmp: 8},
		} {
			packets = append(packets, m.bytes())
		}
	}
	if got := testing.AllocsPerRun(1000, func() {
		for _, p := range packets {
			p[20]++ // ever new flows over IPv4
			a.Check(FromPeer, p, a.now)
			a.Check(ToPeer, p, a.now)
		}
		n++
		a.now += time.Millisecond
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkCheck(b *testing.B) {
	for _, flows := range []int{1, 1000, 50000} {
		b.Run(fmt.Sprintf("known flow of %d", flows), func(b *testing.B) {
			a := newAsked(b, webAndDNS)
			var packets [][]byte
			for i := range flows {
				p := made{src: peer4, dst: near4, proto: UDP, sport: uint16(i), dport: 53, payload: make([]byte, 1372)}.bytes()
				packets = append(packets, p)
				a.Check(FromPeer, p, a.now)
				if a.Attention() {
					a.Grow(MaxFlows, a.now)
				}
			}
			i := 0
			for b.Loop() {
				a.Check(FromPeer, packets[i], a.now)
				if i++; i == len(packets) {
					i = 0
				}
			}
		})
	}
	b.Run("denied", func(b *testing.B) {
		a := newAsked(b, webAndDNS)
		p := made{src: peer4, dst: near4, proto: UDP, sport: 1, dport: 54}.bytes()
		for b.Loop() {
			a.Check(FromPeer, p, a.now)
		}
	})
	b.Run("rate and quota alone", func(b *testing.B) {
		a := newAsked(b, Spec{Default: Allow, FromPeer: 1e12, Quota: Quota{Bytes: 1 << 60}})
		p := made{src: peer4, dst: near4, proto: UDP, sport: 1, dport: 54}.bytes()
		for b.Loop() {
			a.Check(FromPeer, p, a.now)
		}
	})
}
