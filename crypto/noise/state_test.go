package noise

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"culvert/crypto"
	"culvert/crypto/tai64n"
)

func TestInitiatorStates(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	initiation, i := s.initiate(t, e)
	response, _ := s.respond(t, e, initiation)

	wrongPSK := s.psk
	wrongPSK[0] ^= 1
	for _, psk := range []crypto.PresharedKey{wrongPSK, {}} {
		if _, _, err := i.Consume(response, psk); !errors.Is(err, ErrDecrypt) {
			t.Errorf("another PSK: %v", err)
		}
	}
	if _, _, err := i.Consume(response, s.psk); err != nil {
		t.Fatal(err)
	}
	if _, _, err := i.Consume(response, s.psk); !errors.Is(err, ErrState) {
		t.Errorf("the response again: %v", err)
	}
	if i.state != (symmetric{}) || i.ephemeral != nil || i.remote != nil {
		t.Error("secrets left after the handshake")
	}
	if i.LocalIndex() != s.initiatorIndex {
		t.Error("the index got lost")
	}

	_, i = s.initiate(t, e)
	i.Erase()
	if i.state != (symmetric{}) || i.ephemeral != nil || i.remote != nil {
		t.Error("secrets left after Erase")
	}
	if _, _, err := i.Consume(response, s.psk); !errors.Is(err, ErrState) {
		t.Errorf("after Erase: %v", err)
	}
}

func TestResponderStates(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	initiation, _ := s.initiate(t, e)
	begin := func() *Responder {
		t.Helper()
		r, err := e.responder.ReadInitiation(initiation)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	verify := func(r *Responder, remote *Remote, want error) {
		t.Helper()
		if ts, err := r.Verify(remote); !errors.Is(err, want) || want != nil && ts != (tai64n.Timestamp{}) {
			t.Errorf("Verify: %v, want %v", err, want)
		}
	}
	respond := func(r *Responder, want error) {
		t.Helper()
		msg, keys, err := r.Respond([]byte("ab"), 1, s.psk, fixed(s.responderEphemeral))
		if !errors.Is(err, want) || want != nil && (string(msg) != "ab" || keys != (Keys{})) {
			t.Errorf("Respond: %v, want %v", err, want)
		}
		if r.state != (symmetric{}) || r.phase != spent {
			t.Error("secrets left after Respond")
		}
	}

	respond(begin(), ErrState) // not verified

	r := begin()
	verify(r, e.toInitiator, nil)
	respond(r, nil)
	respond(r, ErrState)
	verify(r, e.toInitiator, ErrState)

	r = begin()
	verify(r, e.toInitiator, nil)
	verify(r, e.toInitiator, ErrState) // twice
	respond(r, ErrState)

	other := newScene(3).ends(t)
	for name, remote := range map[string]*Remote{
		"another peer":     NewRemote(e.responder, other.initiator.Public()),
		"another identity": NewRemote(other.responder, e.initiator.Public()),
	} {
		t.Run(name, func(t *testing.T) {
			r := begin()
			verify(r, remote, ErrState)
			respond(r, ErrState)
		})
	}

	r = begin()
	verify(r, e.toInitiator, nil)
	r.Erase()
	respond(r, ErrState)
	if r.Static() != e.initiator.Public() || r.RemoteIndex() != s.initiatorIndex {
		t.Error("static key or index got lost")
	}
	r = begin()
	r.Erase()
	verify(r, e.toInitiator, ErrState)

	// Another responder than the one addressed.
	if _, err := other.responder.ReadInitiation(initiation); !errors.Is(err, ErrDecrypt) {
		t.Errorf("read by another: %v", err)
	}
}

func TestEphemeralFails(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	broken := errors.New("no randomness")
	for name, c := range map[string]struct {
		eph  Ephemeral
		want error
	}{
		"error":    {func() (crypto.PrivateKey, error) { return crypto.PrivateKey{}, broken }, broken},
		"zero key": {fixed(crypto.PrivateKey{}), crypto.ErrZeroKey},
	} {
		t.Run(name, func(t *testing.T) {
			msg, i, err := e.toResponder.Initiate([]byte("ab"), 1, s.timestamp, c.eph)
			if !errors.Is(err, c.want) || i != nil || string(msg) != "ab" {
				t.Errorf("Initiate: %q, %v", msg, err)
			}
			initiation, _ := s.initiate(t, e)
			r, err := e.responder.ReadInitiation(initiation)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Verify(e.toInitiator); err != nil {
				t.Fatal(err)
			}
			msg, keys, err := r.Respond([]byte("ab"), 1, s.psk, c.eph)
			if !errors.Is(err, c.want) || keys != (Keys{}) || string(msg) != "ab" || r.phase != spent {
				t.Errorf("Respond: %q, %v", msg, err)
			}
		})
	}
}

// lowOrder are the points whose multiples are few, with what their encodings allow (https://cr.yp.to/ecdh.html#validate).
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

// TestLowOrder puts each low-order point into each of the four places a public key comes from.
func TestLowOrder(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	initiation, i := s.initiate(t, e)
	response, _ := s.respond(t, e, initiation)
	for _, text := range lowOrder {
		point := crypto.PublicKey(key(t, text))

		remote := NewRemote(e.responder, point)
		if remote.Public() != point {
			t.Error("another key")
		}
		if msg, i, err := remote.Initiate(nil, 1, s.timestamp, crypto.GeneratePrivateKey); !errors.Is(err, ErrLowOrder) || i != nil || len(msg) != 0 {
			t.Errorf("%v: initiation to it: %v", point, err)
		}

		bad := bytes.Clone(initiation)
		copy(bad[initiationEphemeral:], point[:])
		if _, err := e.responder.ReadInitiation(bad); !errors.Is(err, ErrLowOrder) {
			t.Errorf("%v: as the initiation's ephemeral: %v", point, err)
		}

		bad = bytes.Clone(response)
		copy(bad[responseEphemeral:], point[:])
		if _, _, err := i.Consume(bad, s.psk); !errors.Is(err, ErrLowOrder) {
			t.Errorf("%v: as the response's ephemeral: %v", point, err)
		}

		// Somebody who claims the point as its static key knows every shared secret with it: zero.
		forged := forgeInitiation(t, s, e, point)
		r, err := e.responder.ReadInitiation(forged)
		if err != nil || r.Static() != point {
			t.Fatalf("%v: the forgery does not reach Verify: %v", point, err)
		}
		if _, err := r.Verify(remote); !errors.Is(err, ErrLowOrder) {
			t.Errorf("%v: as the initiator's static key: %v", point, err)
		}
		if _, _, err := r.Respond(nil, 1, s.psk, crypto.GeneratePrivateKey); !errors.Is(err, ErrState) {
			t.Errorf("%v: answered: %v", point, err)
		}
	}
	if _, _, err := i.Consume(response, s.psk); err != nil {
		t.Errorf("the genuine response afterwards: %v", err)
	}
}

// forgeInitiation is the initiation of one who takes "ss" to be zero.
func forgeInitiation(t *testing.T, s scene, e ends, static crypto.PublicKey) []byte {
	t.Helper()
	state := wireguard.towards(e.responder.Public())
	public := s.initiatorEphemeral.Public()
	msg := binary.LittleEndian.AppendUint32([]byte{TypeInitiation, 0, 0, 0}, 1)
	msg = append(msg, public[:]...)
	state.mixEphemeral(public)
	es, err := s.initiatorEphemeral.DH(e.responder.Public())
	if err != nil {
		t.Fatal(err)
	}
	k := state.mixSecret(&es)
	msg = state.seal(msg, &k, static[:])
	k = state.mixSecret(new([crypto.KeySize]byte))
	msg = state.seal(msg, &k, s.timestamp[:])
	return append(msg, make([]byte, 2*MACSize)...)
}

// TestForgery is the forger of TestLowOrder with an honest key, to show that the forgery is well made: only the secret is missing.
func TestForgery(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	r, err := e.responder.ReadInitiation(forgeInitiation(t, s, e, e.initiator.Public()))
	if err != nil {
		t.Fatal(err)
	}
	guessed := *e.toInitiator
	guessed.secret = [crypto.KeySize]byte{}
	copied := *r
	if ts, err := copied.Verify(&guessed); err != nil || ts != s.timestamp {
		t.Errorf("with a zero secret: %v", err)
	}
	if _, err := r.Verify(e.toInitiator); !errors.Is(err, ErrDecrypt) {
		t.Errorf("with the secret: %v", err)
	}
}

func TestZeroIdentity(t *testing.T) {
	if id, err := NewIdentity(crypto.PrivateKey{}); !errors.Is(err, crypto.ErrZeroKey) || id != nil {
		t.Errorf("%v", err)
	}
}

func TestRemoteErase(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	e.toResponder.Erase()
	if e.toResponder.secret != [crypto.KeySize]byte{} {
		t.Error("the secret is left")
	}
	if _, _, err := e.toResponder.Initiate(nil, 1, s.timestamp, crypto.GeneratePrivateKey); !errors.Is(err, ErrState) {
		t.Errorf("Initiate: %v", err)
	}
}

func TestMessageType(t *testing.T) {
	for _, c := range []struct {
		typ    byte
		length int
		want   bool
	}{
		{0, 148, false}, {5, 148, false}, {255, 148, false},
		{1, 147, false}, {1, 148, true}, {1, 149, false}, {2, 91, false}, {2, 92, true}, {2, 93, false},
		{3, 63, false}, {3, 64, true}, {3, 65, false},
		{4, 31, false}, {4, 32, true}, {4, 33, true}, {4, 1452, true}, {4, 65535, true},
		{5, 155, false}, {5, 156, true}, {5, 157, false}, {6, 1223, false}, {6, 1224, true}, {6, 1225, false},
		{7, 1203, false}, {7, 1204, true}, {7, 1205, false}, {6, 156, false}, {6, 1204, false}, {7, 1224, false}, {8, 156, false},
		{1, 0, false}, {1, 1, false}, {4, 3, false}, {4, 4, false},
	} {
		msg := make([]byte, c.length)
		if c.length > 0 {
			msg[0] = c.typ
		}
		got, ok := MessageType(msg)
		if ok != c.want || ok && got != c.typ || !ok && got != 0 {
			t.Errorf("type %d, %d bytes: %d, %v", c.typ, c.length, got, ok)
		}
		for at := 1; at < 4 && c.want; at++ {
			bad := bytes.Clone(msg)
			bad[at] = 0x80
			if _, ok := MessageType(bad); ok {
				t.Errorf("type %d with reserved byte %d set", c.typ, at)
			}
		}
	}
	if _, ok := MessageType(nil); ok {
		t.Error("nil has a type")
	}
}

// TestHidden prints what holds secrets.
func TestHidden(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	initiation, i := s.initiate(t, e)
	r, err := e.responder.ReadInitiation(initiation)
	if err != nil {
		t.Fatal(err)
	}
	keys := Keys{Send: [32]byte{0xde, 0xad, 0xbe, 0xef}}
	for _, v := range []any{e.initiator, *e.initiator, e.toResponder, *e.toResponder, i, *i, r, *r, &keys, keys} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%c", "%U", "%o", "%b", "%t", "%e", "%20.3v"} {
			if got := fmt.Sprintf(verb, v); got != "(hidden)" {
				t.Errorf("%T with %s: %q", v, verb, got)
			}
		}
		if text, err := json.Marshal(v); err != nil || string(text) != `"(hidden)"` {
			t.Errorf("%T as JSON: %s, %v", v, text, err)
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "k", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "k", v)
		if strings.Count(log.String(), "(hidden)") != 2 {
			t.Errorf("%T in slog: %s", v, log.String())
		}
	}
	keys.Erase()
	if keys != (Keys{}) {
		t.Error("keys left after Erase")
	}
}
