package loopguard

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"
	"time"

	"culvert/tunnel/ethernet"
)

// TestLayout holds the bytes of a probe.
func TestLayout(t *testing.T) {
	p := probe{tags: 0x88a8_0005_8100_e007, tagBytes: 8, bounced: true, origin: 0x0102030405060708, nonce: 0x1112131415161718,
		length: 2, path: [MaxPath]hop{{0x21, true}, {0xfedcba9876543210, false}}}
	want, err := hex.DecodeString("0363756c7674" + "02630404040c" + "88a800058100e007" + "88b5" + "63766c70" + "01" + "01" + "02" + "00" +
		"0102030405060708" + "1112131415161718" + "0000000000000021" + "01" + "fedcba9876543210" + "00")
	if err != nil {
		t.Fatal(err)
	}
	got := p.put(new([MaxFrame]byte), sourceOf(p.origin))
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	var back probe
	if !back.read(want) || back != p {
		t.Errorf("read back as %+v", back)
	}
}

func TestSizes(t *testing.T) {
	p := probe{origin: 1}
	if n := len(p.put(new([MaxFrame]byte), sourceOf(1))); n != 60 {
		t.Errorf("the shortest is %d bytes, want 60", n)
	}
	p.length, p.tagBytes, p.tags = MaxPath, 8, 0x8100_0000_8100_0000
	for i := range p.path {
		p.path[i].id = 1
	}
	if n := len(p.put(new([MaxFrame]byte), sourceOf(1))); MaxFrame != 190 || n != MaxFrame {
		t.Errorf("the longest is %d bytes, want %d", n, MaxFrame)
	}
}

// TestSource: a station's address, locally administered, that IsProbe knows.
func TestSource(t *testing.T) {
	for range 100 {
		a := sourceOf(rand.Uint64())
		if a.Group() || a>>40&2 == 0 || a>>48 != 0 || a>>32 != sourcePrefix {
			t.Errorf("source %v", a)
		}
	}
	if !Destination.Group() || Destination>>40&2 == 0 || Destination.LinkLocal() {
		t.Errorf("destination %v", Destination)
	}
}

// TestStrict: every field that could be something else, being it.
func TestStrict(t *testing.T) {
	p := probe{origin: 1, nonce: 2, length: 1, path: [MaxPath]hop{{3, true}}}
	good := bytes.Clone(p.put(new([MaxFrame]byte), sourceOf(1)))
	if !new(probe).read(good) {
		t.Fatal("a good one is refused")
	}
	for _, c := range []struct {
		name  string
		at    int
		to    byte
		probe bool // still one, if bad
	}{
		{"destination", 5, 0, false}, {"source", 7, 0, false}, {"EtherType", 13, 0xb6, false}, {"magic", 17, 0, false},
		{"version", 18, 2, true}, {"flags", 19, 2, true}, {"length", 20, 17, true}, {"longer than the frame", 20, 9, true}, {"reserved", 21, 1, true},
		{"no origin", 29, 0, true}, {"no id", 45, 0, true}, {"hop's flags", 46, 3, true},
	} {
		bad := bytes.Clone(good)
		bad[c.at] = c.to
		if bytes.Equal(bad, good) {
			t.Fatalf("%s: nothing changed", c.name)
		}
		if new(probe).read(bad) || IsProbe(bad) != c.probe {
			t.Errorf("%s: read, or a probe %t", c.name, IsProbe(bad))
		}
	}
	for n := range 14 + fixedSize + hopSize {
		if new(probe).read(good[:n]) {
			t.Errorf("read from %d bytes", n)
		}
	}
	three := append(bytes.Clone(good[:12]), bytes.Repeat([]byte{0x81, 0, 0, 0}, 3)...)
	if IsProbe(append(three, good[12:]...)) {
		t.Error("behind three tags")
	}
}

// FuzzProbe: what is read is written as it was, and a node given it from anywhere sends on only valid probes one hop longer.
func FuzzProbe(f *testing.F) {
	for _, p := range []probe{
		{origin: 0x7000, nonce: 1},
		{origin: 0x9000, nonce: 1, length: 1, path: [MaxPath]hop{{3, true}}},
		{origin: 0x9000, nonce: 1, length: 2, path: [MaxPath]hop{{3, true}, {4, false}}, bounced: true},
		{origin: nodeID, nonce: 3, length: 1, path: [MaxPath]hop{{3, true}}, tags: 0x8100_0007, tagBytes: 4},
	} {
		f.Add(bytes.Clone(p.put(new([MaxFrame]byte), sourceOf(p.origin))), false)
	}
	f.Fuzz(func(t *testing.T, frame []byte, spoke bool) {
		var p, again probe
		ok := p.read(frame)
		if ok && !IsProbe(frame) {
			t.Fatal("read, but no probe")
		}
		if ok {
			written := p.put(new([MaxFrame]byte), ethernet.AddressAt(frame[6:]))
			if n := headerSize + p.tagBytes + fixedSize + p.length*hopSize; !bytes.Equal(written[:n], frame[:n]) {
				t.Fatalf("%x written as %x", frame, written)
			}
			// Values of another probe must not show through.
			again = probe{path: [MaxPath]hop{{9, true}, {9, true}, {9, true}}, bounced: true, tagBytes: 8, tags: ^uint64(0)}
			if !again.read(written) || !equal(&p, &again) {
				t.Fatalf("%+v read back as %+v", p, again)
			}
		}
		g := New(nodeID, rand.New(rand.NewPCG(1, 2)).Uint64)
		g.SetReached(true, 1)
		d := g.FromDevice(frame, 1)
		relayed := bytes.Clone(d.Relay)
		v := g.FromPeer(frame, spoke, 1)
		for _, out := range [][]byte{relayed, v.Relay, v.Bounce, v.Write} {
			if len(out) == 0 {
				continue
			}
			if !ok || !again.read(out) || again.length != p.length+1 || again.origin != p.origin || again.path[p.length].id != nodeID {
				t.Fatalf("%x passed on as %x", frame, out)
			}
		}
		if g.Blocked() {
			t.Fatal("blocked before it sent a probe")
		}
	})
}

func equal(a, b *probe) bool {
	if a.length != b.length {
		return false
	}
	x, y := *a, *b
	clear(x.path[x.length:])
	clear(y.path[y.length:])
	return x == y
}

// FuzzGuard drives a node with any sequence of calls: it never panics, and nothing of what it has not sent blocks it.
func FuzzGuard(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x00"), uint64(1))
	f.Fuzz(func(t *testing.T, steps []byte, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		g := New(nodeID, rng.Uint64)
		now := time.Duration(1)
		var recorded [][]byte
		for _, step := range steps {
			now += time.Duration(step) * 7 * time.Millisecond
			pick := func() []byte {
				if len(recorded) == 0 {
					return nil
				}
				return recorded[int(seed>>8+uint64(step))%len(recorded)]
			}
			returns := false
			blocked := g.Blocked()
			switch step & 7 {
			case 0:
				g.SetReached(step&8 != 0, now)
			case 1, 2:
				if frame, ok := g.Next(now); ok {
					if !g.reached || !g.enabled {
						t.Fatal("a probe nobody asked for")
					}
					recorded = append(recorded, bytes.Clone(frame))
				}
			case 3:
				g.Suspect(now)
			case 4:
				g.FromDevice(pick(), now)
			case 5:
				var p probe
				if frame := pick(); p.read(frame) {
					p.path[0], p.length = hop{uint64(step) + 1, true}, 1
					returns = true
					g.FromPeer(p.put(new([MaxFrame]byte), sourceOf(1)), step&16 != 0, now)
				}
			case 6:
				g.SetEnabled(step&8 != 0, now)
			case 7:
				p := probe{origin: nodeID, nonce: rng.Uint64(), length: 1, path: [MaxPath]hop{{1, true}}}
				g.FromPeer(p.put(new([MaxFrame]byte), sourceOf(1)), false, now)
			}
			if g.Blocked() && !blocked && !returns {
				t.Fatalf("blocked by step %#x", step)
			}
			if g.Blocked() && g.until > now+Hold {
				t.Fatalf("blocked for %v", g.until-now)
			}
			if d := g.Deadline(); (d != 0) != (g.reached && g.enabled) {
				t.Fatalf("deadline %v", d)
			}
		}
	})
}
