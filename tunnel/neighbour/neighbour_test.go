package neighbour

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"culvert/tunnel/ethernet"
)

func TestSnoop(t *testing.T) {
	none := Binding{}
	for _, c := range []struct {
		name  string
		frame []byte
		want  Binding
	}{
		{"ARP request", arpAsks, Binding{IP: a4, MAC: macA}},
		{"ARP reply", arpAnswers, Binding{IP: b4, MAC: macB}},
		{"ARP request to one", arpAsksOne, Binding{IP: b4, MAC: macB}},
		{"ARP, padded", append(slices.Clone(arpAsks), make([]byte, 18)...), Binding{IP: a4, MAC: macA}},
		{"ARP, tagged", tagged(arpAsks, 0x81, 0, 0, 7), Binding{IP: a4, MAC: macA}},
		{"ARP, tagged twice", tagged(arpAsks, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 7), Binding{IP: a4, MAC: macA}},
		{"ARP, tagged three times", tagged(arpAsks, 0x81, 0, 0, 7, 0x81, 0, 0, 7, 0x81, 0, 0, 7), none},
		{"ARP announcement", edited(arpAsks, 38, 10, 9, 0, 1), Binding{IP: a4, MAC: macA}},
		{"ARP probe", edited(arpAsks, 28, 0, 0, 0, 0), none},
		{"ARP of another's hardware address", edited(arpAsks, 22, 0x52, 0x54, 0, 0, 0, 0xb), none},
		{"ARP from a group", edited(edited(arpAsks, 6, 0x53), 22, 0x53), none},
		{"ARP for multicast", edited(arpAsks, 28, 224, 0, 0, 1), none},
		{"ARP for broadcast", edited(arpAsks, 28, 255, 255, 255, 255), none},
		{"ARP for loopback", edited(arpAsks, 28, 127, 0, 0, 1), none},
		{"ARP, other hardware", edited(arpAsks, 15, 6), none},
		{"ARP, other protocol", edited(arpAsks, 16, 0x86, 0xdd), none},
		{"ARP, other lengths", edited(arpAsks, 18, 8), none},
		{"RARP", edited(arpAsks, 21, 3), none},
		{"ARP, short", arpAsks[:41], none},

		{"solicitation", solicits, Binding{IP: a6, MAC: macA}},
		{"solicitation to one", solicitsOne, Binding{IP: bLocal, MAC: macB}},
		{"solicitation, tagged", tagged(solicits, 0x81, 0, 0, 7), Binding{IP: a6, MAC: macA}},
		{"solicitation, padded", append(slices.Clone(solicits), 1, 2, 3), Binding{IP: a6, MAC: macA}},
		{"duplicate address detection", probesDAD, none},
		{"solicitation of two hardware addresses", checksummed(append(edited(solicits, 19, 40), 1, 1, 0x52, 0x54, 0, 0, 0, 0xc)),
			Binding{IP: a6, MAC: macA}},
		{"solicitation of another's hardware address", edited(solicits, 85, 0xc), none},
		{"solicitation with unknown option", edited(solicits, 78, 14), none},
		{"solicitation from multicast", edited(solicits, 22, 0xff, 2), none},
		{"solicitation to another's group", edited(solicits, 53, 0xc), none},
		{"solicitation for multicast", edited(solicits, 62, 0xff), none},
		{"advertisement of a router", advertises, Binding{IP: b6, MAC: macB, Role: Router}},
		{"advertisement of a host", edited(advertises, 58, 0x60), Binding{IP: b6, MAC: macB, Role: Host}},
		{"weak advertisement", edited(advertises, 58, 0x40), Binding{IP: b6, MAC: macB, Role: Host, Weak: true}},
		{"unsolicited advertisement", edited(edited(advertises, 38, 0xff, 2), 58, 0x20), Binding{IP: b6, MAC: macB, Role: Host}},
		{"advertisement to a group but solicited", edited(advertises, 38, 0xff, 2), none},
		{"advertisement without hardware address", withoutMAC, none},
		{"advertisement with the wrong option", edited(advertises, 78, 1), none},
		{"advertisement of two hardware addresses", checksummed(append(edited(advertises, 19, 40), 2, 1, 0x52, 0x54, 0, 0, 0, 0xc)),
			Binding{IP: b6, MAC: macB, Role: Router}},
		{"advertisement for loopback", edited(advertises, 62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), none},
		{"advertisement for a mapped address", edited(advertises, 62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1), none},
		{"router advertisement", routerAdvertises, Binding{IP: bLocal, MAC: macB, Role: Router}},
		{"router advertisement from afar", edited(routerAdvertises, 22, 0x20), none},
		{"router solicitation", asksRouters, none},
		{"hop limit", edited(advertises, 21, 254), none},
		{"code", edited(advertises, 55, 1), none},
		{"checksum", func() []byte { f := slices.Clone(advertises); f[57]++; return f }(), none},
		{"option of length 0", edited(advertises, 79, 0), none},
		{"option longer than the packet", edited(advertises, 79, 2), none},
		{"packet longer than the frame", edited(advertises, 19, 40), none},
		{"packet without its options", edited(advertises, 19, 24), none},
		{"packet cut in its options", edited(advertises, 19, 30), none},
		{"packet cut in its target", edited(advertises, 19, 20), none},
		{"extension header", edited(advertises, 20, 0), none},
		{"IPv4", edited(advertises, 12, 8, 0), none},
		{"short", advertises[:13], none},
		{"empty", nil, none},
	} {
		got, ok := Snoop(c.frame)
		if got != c.want || ok != (c.want != none) {
			t.Errorf("%s: %+v, %t; want %+v", c.name, got, ok, c.want)
		}
	}
	for _, frame := range [][]byte{arpAsks, advertises, routerAdvertises} {
		for n := range frame {
			if b, ok := Snoop(frame[:n]); ok {
				t.Errorf("%v from %d of %d bytes", b, n, len(frame))
			}
		}
	}
}

func TestAsked(t *testing.T) {
	var none netip.Addr
	for _, c := range []struct {
		name  string
		frame []byte
		want  netip.Addr
	}{
		{"ARP request", arpAsks, b4},
		{"ARP request, tagged", tagged(arpAsks, 0x81, 0, 0, 7), b4},
		{"ARP request to one", arpAsksOne, none},
		{"ARP reply", arpAnswers, none},
		{"ARP reply to all", edited(arpAnswers, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), none},
		{"ARP probe", edited(arpAsks, 28, 0, 0, 0, 0), none},
		{"ARP announcement", edited(arpAsks, 38, 10, 9, 0, 1), none},
		{"ARP for multicast", edited(arpAsks, 38, 224, 0, 0, 1), none},
		{"ARP for nobody", edited(arpAsks, 38, 0, 0, 0, 0), none},
		{"ARP for loopback", edited(arpAsks, 38, 127, 0, 0, 1), none},
		{"ARP for broadcast", edited(arpAsks, 38, 255, 255, 255, 255), none},
		{"ARP of another's hardware address", edited(arpAsks, 22, 0x52, 0x54, 0, 0, 0, 0xc), none},
		{"solicitation", solicits, b6},
		{"solicitation, tagged twice", tagged(solicits, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 7), b6},
		{"solicitation to one", solicitsOne, none},
		{"solicitation to one's hardware address", edited(solicits, 0, 0x52), none},
		{"solicitation to one in a frame to a group", edited(solicits, 38, solicits[62:78]...), none},
		{"duplicate address detection", probesDAD, none},
		{"solicitation of another's hardware address", edited(solicits, 85, 0xc), none},
		{"solicitation without hardware address", edited(solicits, 78, 14), none},
		{"solicitation for the sender", edited(solicits, 37, 0xb), none},
		{"advertisement", advertises, none},
		{"router advertisement", routerAdvertises, none},
	} {
		got, ok := Asked(c.frame)
		if got != c.want || ok != (c.want != none) {
			t.Errorf("%s: %v, %t; want %v", c.name, got, ok, c.want)
		}
	}
}

// TestAnswerAsTheStation: what Linux answers for itself is answered for it, but for the override flag.
func TestAnswerAsTheStation(t *testing.T) {
	buf := bytes.Repeat([]byte{0xee}, MaxAnswer)
	got, ok := Answer(arpAsks, Binding{IP: b4, MAC: macB}, buf)
	if want := append(slices.Clone(arpAnswers), make([]byte, 18)...); !ok || !bytes.Equal(got, want) {
		t.Errorf("ARP:\n%x, want\n%x", got, want)
	}
	got, ok = Answer(solicits, Binding{IP: b6, MAC: macB, Role: Router}, buf)
	if want := edited(advertises, 58, 0xc0); !ok || !bytes.Equal(got, want) {
		t.Errorf("router:\n%x, want\n%x", got, want)
	}
	got, ok = Answer(solicits, Binding{IP: b6, MAC: macB, Role: Host}, buf)
	if want := edited(advertises, 58, 0x40); !ok || !bytes.Equal(got, want) {
		t.Errorf("host:\n%x, want\n%x", got, want)
	}
}

// TestRoundTrip: whoever snoops an answer learns what it was made of, in the VLAN of the question.
func TestRoundTrip(t *testing.T) {
	for _, tags := range [][]byte{nil, {0x81, 0, 0xe0, 7}, {0x88, 0xa8, 0, 5, 0x81, 0, 0, 7}} {
		for _, c := range []struct {
			question []byte
			b        Binding
		}{
			{arpAsks, Binding{IP: b4, MAC: macB}},
			{solicits, Binding{IP: b6, MAC: macB, Role: Router, Weak: true}},
			{solicits, Binding{IP: b6, MAC: 0x0200_0000_0001, Role: Host, Weak: true}},
		} {
			question := tagged(c.question, tags...)
			answer, ok := Answer(question, c.b, make([]byte, MaxAnswer))
			if !ok || len(answer) < minFrame || !bytes.Equal(answer[12:12+len(tags)], tags) || destination(answer) != source(question) {
				t.Errorf("%+v in tags %x: %x, %t", c.b, tags, answer, ok)
				continue
			}
			if got, ok := Snoop(answer); !ok || got != c.b {
				t.Errorf("snooped %+v, want %+v", got, c.b)
			}
			if _, ok := Asked(answer); ok {
				t.Error("an answer asks")
			}
		}
	}
}

func TestNoAnswer(t *testing.T) {
	buf := make([]byte, MaxAnswer)
	for name, c := range map[string]struct {
		frame []byte
		b     Binding
	}{
		"another address":           {arpAsks, Binding{IP: a4, MAC: macB}},
		"the asker's own, ARP":      {arpAsks, Binding{IP: b4, MAC: macA}},
		"the asker's own, ND":       {solicits, Binding{IP: b6, MAC: macA, Role: Host}},
		"role not known":            {solicits, Binding{IP: b6, MAC: macB}},
		"group":                     {arpAsks, Binding{IP: b4, MAC: ethernet.Broadcast}},
		"no hardware address":       {arpAsks, Binding{IP: b4}},
		"no question":               {arpAnswers, Binding{IP: a4, MAC: macB}},
		"probe":                     {edited(arpAsks, 28, 0, 0, 0, 0), Binding{IP: b4, MAC: macB}},
		"announcement":              {edited(arpAsks, 38, 10, 9, 0, 1), Binding{IP: a4, MAC: macB}},
		"duplicate address":         {probesDAD, Binding{IP: b6, MAC: macA, Role: Host}},
		"test of one, ARP":          {arpAsksOne, Binding{IP: a4, MAC: macA}},
		"test of one, solicitation": {solicitsOne, Binding{IP: a6, MAC: macA, Role: Host}},
	} {
		if answer, ok := Answer(c.frame, c.b, buf); ok || answer != nil {
			t.Errorf("%s: %x", name, answer)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	buf := make([]byte, MaxAnswer)
	table := NewTable(0, 0, 0)
	if n := testing.AllocsPerRun(100, func() {
		for _, frame := range kernelFrames {
			if b, ok := Snoop(frame); ok {
				table.Learn(b, 0, 1, 1)
			}
			if target, ok := Asked(frame); ok {
				if b, _, ok := table.Lookup(target, 0, 1); ok {
					Answer(frame, b, buf)
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if table.Len() != 5 {
		t.Errorf("%d bindings learned, want 5", table.Len())
	}
}

// FuzzFrame: what is claimed and answered keeps its promises whatever the frame. fix puts the checksum right, so that there is
// something behind it.
func FuzzFrame(f *testing.F) {
	for _, frame := range append(kernelFrames, routerAdvertises, tagged(solicits, 0x81, 0, 0, 7)) {
		f.Add(frame, false)
		f.Add(frame, true)
	}
	f.Fuzz(func(t *testing.T, frame []byte, fix bool) {
		if fix {
			frame = checksummed(frame)
		}
		if b, ok := Snoop(frame); ok {
			if b.MAC != source(frame) || !station(b.MAC) || !host(b.IP) || b.IP.Zone() != "" {
				t.Fatalf("%+v of %x", b, frame)
			}
		} else if b != (Binding{}) {
			t.Fatal("a binding although not ok")
		}
		target, ok := Asked(frame)
		buf := make([]byte, MaxAnswer)
		b := Binding{IP: target, MAC: macB, Role: Router, Weak: target.Is6()}
		if target.Is4() {
			b.Role = Unknown
		}
		answer, answered := Answer(frame, b, buf)
		if answered != (ok && source(frame) != macB) {
			t.Fatalf("asked %t, answered %t", ok, answered)
		}
		if !answered {
			return
		}
		if !host(target) || destination(answer) != source(frame) || destination(answer).Group() || !destination(frame).Group() {
			t.Fatalf("%x answers %x", answer, frame)
		}
		if got, ok := Snoop(answer); !ok || got != b {
			t.Fatalf("%x says %+v, want %+v", answer, got, b)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	buf := make([]byte, MaxAnswer)
	for b.Loop() {
		if _, ok := Answer(solicits, Binding{IP: b6, MAC: macB, Role: Host}, buf); !ok {
			b.Fatal("no answer")
		}
	}
}
