package access

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// A model is what admits packets as the documents say it, over maps and without thought for speed.
type model struct {
	spec  Spec
	flows map[string]*modelFlow
	at    int // seconds
}

type modelFlow struct {
	opener      Direction
	begin       made // the packet that opened it
	answered    bool
	established bool
	closing     bool
	closed      bool
	ends        int
}

func (m *model) rules(d Direction, p made) bool {
	near, port := p.dst, p.dport
	if d == ToPeer {
		near = p.src
	}
	if p.proto == ICMP {
		port = 0
	}
	return slow(&m.spec, d, netip.MustParseAddr(near), p.proto, port) == Allow
}

func (m *model) name(d Direction, p made) string {
	if p.proto == ICMP {
		asked := d
		if p.icmp == 0 || p.icmp == 129 {
			asked = 1 - d
		}
		return fmt.Sprint("echo ", asked, p.id, p.src < p.dst == (d == FromPeer), netip.MustParseAddr(p.src).Is6())
	}
	if d == ToPeer {
		return fmt.Sprint(p.proto, p.dst, p.dport, p.src, p.sport)
	}
	return fmt.Sprint(p.proto, p.src, p.sport, p.dst, p.dport)
}

func (m *model) admit(d Direction, p made) bool {
	name := m.name(d, p)
	flow := m.flows[name]
	if flow != nil && (flow.ends <= m.at || !m.rules(flow.opener, flow.begin)) {
		delete(m.flows, name)
		flow = nil
	}
	syn := p.proto == TCP && p.flags == flagSYN
	if flow != nil && (!syn || d == flow.opener && !flow.established && !flow.closing && !flow.closed) {
		m.pass(flow, d, p)
		return true
	}
	if p.proto == TCP && !syn && m.spec.Default == Deny || !m.rules(d, p) {
		return false
	}
	if p.proto == TCP && !syn || p.proto == ICMP && (p.icmp == 0 || p.icmp == 129) {
		return true
	}
	flow = &modelFlow{opener: d, begin: p}
	m.flows[name] = flow
	m.lasts(flow)
	return true
}

func (m *model) pass(f *modelFlow, d Direction, p made) {
	if p.proto != TCP {
		f.answered = f.answered || d != f.opener
	} else {
		switch {
		case p.flags&flagRST != 0:
			f.closed = true
		case f.closed || f.closing:
		case p.flags&flagFIN != 0:
			f.closing = true
		case !f.answered:
			f.answered = d != f.opener && p.flags&flagACK != 0
		case p.flags == flagACK && d == f.opener:
			f.established = true
		}
	}
	m.lasts(f)
}

func (m *model) lasts(f *modelFlow) {
	seconds := 30
	switch {
	case f.begin.proto == UDP && f.answered:
		seconds = 180
	case f.begin.proto != TCP:
	case f.closed:
		seconds = 10
	case f.closing || !f.answered:
		seconds = 120
	case f.established:
		seconds = 5 * 24 * 3600
	default:
		seconds = 60
	}
	f.ends = m.at + seconds
}

// play gives the state and the model the same packets and policies, chosen by b.
func play(t *testing.T, b []byte) {
	take := func(n byte) byte {
		if len(b) == 0 {
			return 0
		}
		x := b[0]
		b = b[1:]
		return x % n
	}
	specs := []Spec{
		webAndDNS,
		{Rules: append(webAndDNS.Rules[:2:2], Rule{Action: Allow, Direction: ToPeer, Protocols: []uint8{TCP, ICMP}})},
		{Default: Allow, Rules: []Rule{{Action: Deny, Protocols: []uint8{UDP, TCP}}}},
		{Default: Allow, Rules: []Rule{{Action: Deny, Direction: ToPeer}}},
	}
	m := &model{spec: specs[0], flows: make(map[string]*modelFlow)}
	s := NewState(compile(t, specs[0]), someday)
	s.flows.Store(newTable(4096)) // nothing gives way
	start := 1
	m.at = start
	for n := 0; len(b) > 0 && n < 500; n++ {
		switch take(8) {
		case 0:
			m.at += []int{1, 9, 25, 59, 61, 119, 121, 3 * 24 * 3600}[take(8)]
			continue
		case 1:
			m.spec = specs[take(byte(len(specs)))]
			s.SetPolicy(compile(t, m.spec), someday)
			continue
		}
		d := Direction(take(2))
		p := made{src: peer4, dst: near4, proto: []uint8{TCP, UDP, ICMP}[take(3)], sport: uint16(take(2)), dport: []uint16{443, 53, 80}[take(3)]}
		if take(4) == 0 {
			p.src, p.dst = peer6, near6
		}
		if d == ToPeer {
			p.src, p.dst, p.sport, p.dport = p.dst, p.src, p.dport, p.sport
		}
		switch p.proto {
		case TCP:
			p.flags = []uint8{flagSYN, flagSYN | flagACK, flagACK, flagACK, flagFIN | flagACK, flagRST}[take(6)]
		case ICMP:
			p.id, p.sport, p.dport = uint16(take(2)), 0, 0
			p.icmp = []uint8{8, 0}[take(2)]
			if p.src == peer6 || p.src == near6 {
				p.icmp = []uint8{128, 129}[p.icmp/8^1]
			}
		}
		want := Denied
		if m.admit(d, p) {
			want = Pass
		}
		if got := s.Check(d, p.bytes(), time.Duration(m.at)*time.Second); got != want {
			t.Fatalf("packet %d at %d s, direction %d, %+v: %v, the model says %v", n, m.at-start, d, p, got, want)
		}
	}
}

func TestAgainstModel(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 2000)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		play(t, b)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzAgainstModel(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 0, 1, 0, 3, 1, 0, 0, 0, 1, 1, 0, 7, 3, 0, 0, 0, 0, 1, 2, 1, 2, 4, 1, 0, 0, 0, 1, 2})
	f.Add([]byte{2, 0, 1, 0, 1, 1, 0, 2, 4, 1, 1, 0, 1, 1, 1, 2, 4, 1, 1, 0, 1, 1})
	f.Fuzz(play)
}
