package cookie

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
)

var hybridTypes = []byte{noise.TypeHybridInitiation, noise.TypeHybridResponse}

// TestKEM: a KEM part has mac1 as its last 16 bytes, each bit of it counts, and it takes no part in cookies.
func TestKEM(t *testing.T) {
	s, c := NewStamper(responder), NewChecker(responder)
	msg := message(noise.TypeKEM)
	before := bytes.Clone(msg)
	s.StampKEM(msg)
	if !bytes.Equal(msg[:len(msg)-16], before[:len(msg)-16]) || bytes.Equal(msg, before) {
		t.Error("something else than mac1 was stamped")
	}
	if s.awaiting || s.last != (mac{}) || s.index != 0 {
		t.Error("a KEM part awaits a cookie")
	}
	if !c.CheckMAC1(msg) || NewChecker(stranger).CheckMAC1(msg) {
		t.Error("mac1 is wrong, or right for everybody")
	}
	for bit := range len(msg) * 8 {
		bad := bytes.Clone(msg)
		bad[bit/8] ^= 1 << (bit % 8)
		if c.CheckMAC1(bad) {
			t.Errorf("accepted with bit %d flipped", bit)
		}
	}
	clear(msg[len(msg)-32:]) // where others have their macs
	s.StampKEM(msg)
	if out, err := c.Reply([]byte("ab"), msg, home, 0); !errors.Is(err, noise.ErrMessage) || string(out) != "ab" {
		t.Errorf("Reply: %q, %v", out, err)
	}
	if c.CheckMAC2(msg, home, 0) || c.AcceptsMAC2(msg, home, 0) {
		t.Error("a KEM part has a mac2")
	}
	for _, msg := range [][]byte{nil, message(noise.TypeInitiation), message(noise.TypeHybridInitiation), message(noise.TypeKEM)[:noise.KEMSize-1]} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bytes stamped", len(msg))
				}
			}()
			s.StampKEM(msg)
		}()
	}
}

// TestReplyAnswersTheInitiation: a KEM part stamped in between does not stand between an initiation and its cookie.
func TestReplyAnswersTheInitiation(t *testing.T) {
	s, c := NewStamper(responder), NewChecker(responder)
	msg := message(noise.TypeHybridInitiation)
	s.Stamp(msg, 0)
	s.StampKEM(message(noise.TypeKEM))
	if err := s.ConsumeReply(reply(t, c, msg, home, 0), 0); err != nil {
		t.Fatal(err)
	}
	s.StampKEM(message(noise.TypeKEM))
	s.Stamp(msg, 0)
	if !c.CheckMAC2(msg, home, 0) {
		t.Error("mac2 refused")
	}
}

// TestAcceptsMAC2: zero, or right in every bit, from the right source.
func TestAcceptsMAC2(t *testing.T) {
	for _, typ := range hybridTypes {
		s, c := held(t, home, 0)
		msg := message(typ)
		NewStamper(responder).Stamp(msg, 0)
		if !isZero(mac2Of(msg)) || !c.AcceptsMAC2(msg, home, 0) || !NewChecker(responder).AcceptsMAC2(msg, home, 0) {
			t.Errorf("type %d: no mac2 refused", typ)
		}
		for bit := range 128 {
			bad := bytes.Clone(msg)
			mac2Of(bad)[bit/8] ^= 1 << (bit % 8)
			if c.AcceptsMAC2(bad, home, 0) || NewChecker(responder).AcceptsMAC2(bad, home, 0) {
				t.Errorf("type %d: accepted with bit %d of no mac2 flipped", typ, bit)
			}
		}
		s.Stamp(msg, 0)
		if isZero(mac2Of(msg)) || !c.AcceptsMAC2(msg, home, 0) {
			t.Errorf("type %d: right mac2 refused", typ)
		}
		if NewChecker(responder).AcceptsMAC2(msg, home, 0) {
			t.Errorf("type %d: accepted by one that made no cookie", typ)
		}
		for _, src := range []string{"192.0.2.2:51820", "192.0.2.1:51821", "[2001:db8::1]:51820"} {
			if c.AcceptsMAC2(msg, netip.MustParseAddrPort(src), 0) {
				t.Errorf("type %d: accepted from %s", typ, src)
			}
		}
		for bit := range len(msg) * 8 {
			bad := bytes.Clone(msg)
			bad[bit/8] ^= 1 << (bit % 8)
			if c.AcceptsMAC2(bad, home, 0) {
				t.Errorf("type %d: accepted with bit %d flipped", typ, bit)
			}
		}
		for length := range len(msg) {
			if c.AcceptsMAC2(msg[:length], home, 0) {
				t.Errorf("type %d: accepted with length %d", typ, length)
			}
		}
	}
	for _, typ := range []byte{noise.TypeInitiation, noise.TypeResponse} {
		s, c := held(t, home, 0)
		msg := message(typ)
		s.Stamp(msg, 0)
		if c.AcceptsMAC2(msg, home, 0) {
			t.Errorf("type %d, whose mac2 counts under load only, is judged", typ)
		}
	}
}

// TestAcceptsMAC2Ages: a cookie is accepted for as long as its receiver may use it, to the nanosecond, whether or not another secret has
// come meanwhile; under load only the current secret's count.
func TestAcceptsMAC2Ages(t *testing.T) {
	const born = 1000 * time.Second
	for _, renewed := range []bool{false, true} {
		s, c := held(t, home, born)
		msg := message(noise.TypeHybridInitiation)
		s.Stamp(msg, born)
		for _, step := range []struct {
			at             time.Duration
			accepts, loads bool
		}{
			{0, true, true}, {Lifetime - 1, true, true}, {Lifetime, true, false}, {2*Lifetime - 1, true, false}, {2 * Lifetime, false, false},
		} {
			now := born + step.at
			if renewed && step.at >= Lifetime {
				if _, err := c.Reply(nil, msg, home, now); err != nil {
					t.Fatal(err)
				}
			}
			if got := c.AcceptsMAC2(msg, home, now); got != step.accepts {
				t.Errorf("renewed %v, %v after the secret's birth: accepted %v", renewed, step.at, got)
			}
			if got := c.CheckMAC2(msg, home, now); got != step.loads {
				t.Errorf("renewed %v, %v after the secret's birth: under load %v", renewed, step.at, got)
			}
		}
	}
	// The honest worst case: a cookie of a secret's last moment, used up to its own last moment.
	s, c := held(t, home, born)
	msg := message(noise.TypeHybridInitiation)
	s.Stamp(msg, born)
	handed := born + Lifetime - 1
	if err := s.ConsumeReply(reply(t, c, msg, home, handed), handed); err != nil {
		t.Fatal(err)
	}
	used := handed + Lifetime - 1
	if _, err := c.Reply(nil, msg, home, used); err != nil { // to somebody else
		t.Fatal(err)
	}
	s.Stamp(msg, used)
	if isZero(mac2Of(msg)) || !c.AcceptsMAC2(msg, home, used) {
		t.Error("an honest cookie refused")
	}
	// After two renewals it is gone, whatever the clock says.
	if _, err := c.Reply(nil, msg, home, used+Lifetime); err != nil {
		t.Fatal(err)
	}
	if c.AcceptsMAC2(msg, home, born) {
		t.Error("accepted under a secret that was replaced twice")
	}
}

// TestHybridVectors: mac1 of the hybrid handshake's vectors.
func TestHybridVectors(t *testing.T) {
	text, err := os.ReadFile("../noise/testdata/hybrid.json")
	if err != nil {
		t.Fatal(err)
	}
	type message struct{ Message, MAC1 string }
	var vectors []struct {
		Inputs struct {
			InitiatorStatic string `json:"initiator_static"`
			ResponderStatic string `json:"responder_static"`
		}
		Initiation, KEM, Response message
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 4 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for n, v := range vectors {
		check := func(m message, private string, stamp func(*Stamper, []byte)) {
			t.Helper()
			owner, err := crypto.ParsePrivateKeyHex(private)
			if err != nil {
				t.Fatal(err)
			}
			msg, err := hex.DecodeString(m.Message)
			if err != nil {
				t.Fatal(err)
			}
			stamp(NewStamper(owner.Public()), msg)
			_, mac1, ok := splitMAC1(msg)
			if !ok || hex.EncodeToString(mac1) != m.MAC1 || !NewChecker(owner.Public()).CheckMAC1(msg) {
				t.Errorf("vector %d, type %d: mac1 %x", n, msg[0], mac1)
			}
		}
		both := func(s *Stamper, msg []byte) { s.Stamp(msg, 0) }
		check(v.Initiation, v.Inputs.ResponderStatic, both)
		check(v.KEM, v.Inputs.ResponderStatic, (*Stamper).StampKEM)
		check(v.Response, v.Inputs.InitiatorStatic, both)
	}
}
