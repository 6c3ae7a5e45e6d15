package noise

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/crypto/tai64n"
)

// scene is everything two ends of a handshake begin with.
type scene struct {
	initiatorStatic, responderStatic       crypto.PrivateKey
	initiatorEphemeral, responderEphemeral crypto.PrivateKey
	psk                                    crypto.PresharedKey
	timestamp                              tai64n.Timestamp
	initiatorIndex, responderIndex         uint32
}

// newScene draws a scene from a seed. Even seeds have no PSK.
func newScene(seed uint64) scene {
	r := rand.New(rand.NewPCG(seed, 7))
	key := func() (k [crypto.KeySize]byte) {
		for i := range k {
			k[i] = byte(r.Uint32())
		}
		return k
	}
	s := scene{
		initiatorStatic: key(), responderStatic: key(), initiatorEphemeral: key(), responderEphemeral: key(),
		timestamp: tai64n.From(time.Unix(1_700_000_000+int64(seed), 123_456_789)), initiatorIndex: r.Uint32(), responderIndex: r.Uint32(),
	}
	if psk := key(); seed%2 == 1 {
		s.psk = psk
	}
	return s
}

// fixed is an Ephemeral that gives k.
func fixed(k crypto.PrivateKey) Ephemeral { return func() (crypto.PrivateKey, error) { return k, nil } }

func identity(t testing.TB, k crypto.PrivateKey) *Identity {
	t.Helper()
	id, err := NewIdentity(k)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ends are the two identities of a scene, and each as the other sees it.
type ends struct {
	initiator, responder     *Identity
	toResponder, toInitiator *Remote
}

func (s scene) ends(t testing.TB) ends {
	t.Helper()
	e := ends{initiator: identity(t, s.initiatorStatic), responder: identity(t, s.responderStatic)}
	e.toResponder = NewRemote(e.initiator, e.responder.Public())
	e.toInitiator = NewRemote(e.responder, e.initiator.Public())
	return e
}

func (s scene) initiate(t testing.TB, e ends) ([]byte, *Initiator) {
	t.Helper()
	msg, i, err := e.toResponder.Initiate(nil, s.initiatorIndex, s.timestamp, fixed(s.initiatorEphemeral))
	if err != nil {
		t.Fatal(err)
	}
	return msg, i
}

func (s scene) respond(t testing.TB, e ends, initiation []byte) ([]byte, Keys) {
	t.Helper()
	r, err := e.responder.ReadInitiation(initiation)
	if err != nil {
		t.Fatal(err)
	}
	if ts, err := r.Verify(e.toInitiator); err != nil || ts != s.timestamp {
		t.Fatalf("Verify: %x, %v", ts, err)
	}
	msg, keys, err := r.Respond(nil, s.responderIndex, s.psk, fixed(s.responderEphemeral))
	if err != nil {
		t.Fatal(err)
	}
	return msg, keys
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHandshake(t *testing.T) {
	for seed := range uint64(6) {
		s := newScene(seed)
		e := s.ends(t)
		prefix := []byte("prefix")
		msg, i, err := e.toResponder.Initiate(bytes.Clone(prefix), s.initiatorIndex, s.timestamp, fixed(s.initiatorEphemeral))
		if err != nil || len(msg) != len(prefix)+InitiationSize || !bytes.HasPrefix(msg, prefix) {
			t.Fatalf("Initiate: %d bytes, %v", len(msg), err)
		}
		initiation := msg[len(prefix):]
		if typ, ok := MessageType(initiation); !ok || typ != TypeInitiation || SenderIndex(initiation) != s.initiatorIndex || i.LocalIndex() != s.initiatorIndex {
			t.Error("the initiation's header is wrong")
		}
		r, err := e.responder.ReadInitiation(initiation)
		if err != nil {
			t.Fatal(err)
		}
		if r.Static() != e.initiator.Public() || r.RemoteIndex() != s.initiatorIndex {
			t.Error("static key or index got lost")
		}
		if ts, err := r.Verify(e.toInitiator); err != nil || ts != s.timestamp {
			t.Fatalf("Verify: %x, %v", ts, err)
		}
		msg, theirs, err := r.Respond(bytes.Clone(prefix), s.responderIndex, s.psk, fixed(s.responderEphemeral))
		if err != nil || len(msg) != len(prefix)+ResponseSize || !bytes.HasPrefix(msg, prefix) {
			t.Fatalf("Respond: %d bytes, %v", len(msg), err)
		}
		response := msg[len(prefix):]
		if typ, ok := MessageType(response); !ok || typ != TypeResponse || SenderIndex(response) != s.responderIndex || ReceiverIndex(response) != s.initiatorIndex {
			t.Error("the response's header is wrong")
		}
		ours, index, err := i.Consume(response, s.psk)
		if err != nil || index != s.responderIndex {
			t.Fatalf("Consume: %d, %v", index, err)
		}
		if ours.Send != theirs.Receive || ours.Receive != theirs.Send || ours.Send == ours.Receive || ours.Send == [32]byte{} {
			t.Error("the ends have other keys")
		}
		for _, m := range [][]byte{initiation, response} {
			if !bytes.Equal(m[len(m)-2*MACSize:], make([]byte, 2*MACSize)) {
				t.Error("the macs are not left zero")
			}
		}
	}
}

// TestFreshEphemerals runs with production's randomness: no two handshakes share a key.
func TestFreshEphemerals(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	seen := make(map[[32]byte]bool)
	for range 8 {
		initiation, i, err := e.toResponder.Initiate(nil, 1, s.timestamp, crypto.GeneratePrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		r, err := e.responder.ReadInitiation(initiation)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Verify(e.toInitiator); err != nil {
			t.Fatal(err)
		}
		response, keys, err := r.Respond(nil, 2, s.psk, crypto.GeneratePrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := i.Consume(response, s.psk); err != nil {
			t.Fatal(err)
		}
		seen[keys.Send], seen[keys.Receive] = true, true
	}
	if len(seen) != 16 {
		t.Errorf("%d different keys of 16", len(seen))
	}
}
