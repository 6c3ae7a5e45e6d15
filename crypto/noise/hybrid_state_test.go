package noise

import (
	"bytes"
	"crypto/mlkem"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"culvert/crypto"
	"culvert/crypto/tai64n"
)

func (i *HybridInitiator) erased() bool {
	return i.state == (symmetric{}) && i.remote == nil && i.ephemeral == nil && i.decapsulation == nil
}

func (r *HybridResponder) erased() bool {
	return r.state == (symmetric{}) && r.key == [crypto.KeySize]byte{} && r.encapsulation == nil && r.phase == spent
}

// refuses gives i a message it must not take, and sees that nothing changed.
func (s hybridScene) refuses(t *testing.T, what string, i *HybridInitiator, msg []byte, psk crypto.PresharedKey, want error) {
	t.Helper()
	before := *i
	keys, chosen, index, err := i.Consume(msg, psk)
	if !errors.Is(err, want) || keys != (Keys{}) || chosen != (Parameters{}) || index != 0 {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
	if *i != before {
		t.Fatalf("%s: the initiator changed", what)
	}
}

// refusesKEM gives r a KEM part it must not take, and sees that nothing changed.
func refusesKEM(t *testing.T, what string, r *HybridResponder, msg []byte, want error) {
	t.Helper()
	before := *r
	if err := r.ReadKEM(msg); !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
	if *r != before {
		t.Fatalf("%s: the responder changed", what)
	}
}

func TestHybridInitiatorStates(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	response, theirs := s.respondHybrid(t, e, initiation, kem)

	wrongPSK := s.psk
	wrongPSK[0] ^= 1
	s.refuses(t, "another PSK", i, response, wrongPSK, ErrDecrypt)
	s.refuses(t, "no PSK", i, response, crypto.PresharedKey{}, ErrDecrypt)
	s.expect(t, i, response, theirs)
	if !i.erased() || i.LocalIndex() != s.initiatorIndex {
		t.Error("secrets left after the handshake, or the index is not")
	}
	s.refuses(t, "the response again", i, response, s.psk, ErrState)

	_, _, i = s.initiateHybrid(t, e)
	i.Erase()
	if !i.erased() {
		t.Error("secrets left after Erase")
	}
	s.refuses(t, "after Erase", i, response, s.psk, ErrState)
}

func TestHybridResponderStates(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, _ := s.initiateHybrid(t, e)
	begin := func() *HybridResponder {
		t.Helper()
		r, err := e.responder.ReadHybridInitiation(initiation)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	completed := func() *HybridResponder {
		t.Helper()
		r := s.verified(t, e, initiation)
		if err := r.ReadKEM(kem); err != nil {
			t.Fatal(err)
		}
		if r.key != [crypto.KeySize]byte{} {
			t.Error("the key of the KEM part is left")
		}
		return r
	}
	verifyFails := func(r *HybridResponder, remote *Remote) {
		t.Helper()
		if ts, offer, err := r.Verify(remote); !errors.Is(err, ErrState) || ts != (tai64n.Timestamp{}) || offer != (Parameters{}) || !r.erased() {
			t.Errorf("Verify: %v", err)
		}
	}
	respond := func(r *HybridResponder, choice Parameters, want error) {
		t.Helper()
		msg, keys, err := r.Respond([]byte("ab"), 1, s.psk, choice, s.responderRandomness())
		if !errors.Is(err, want) || want != nil && (string(msg) != "ab" || keys != (Keys{})) {
			t.Errorf("Respond: %v, want %v", err, want)
		}
		if !r.erased() {
			t.Error("secrets left after Respond")
		}
	}

	// read
	respond(begin(), s.chosen(), ErrState)
	r := begin()
	refusesKEM(t, "before Verify", r, kem, ErrState)
	if _, _, err := r.Verify(e.toInitiator); err != nil {
		t.Errorf("after a KEM part that came too early: %v", err)
	}

	// verified
	respond(r, s.chosen(), ErrState)
	r = s.verified(t, e, initiation)
	verifyFails(r, e.toInitiator)
	refusesKEM(t, "spent", r, kem, ErrState)

	// complete
	r = completed()
	refusesKEM(t, "the same again", r, kem, ErrState)
	respond(r, s.chosen(), nil)
	verifyFails(completed(), e.toInitiator)

	// spent
	respond(r, s.chosen(), ErrState)
	verifyFails(r, e.toInitiator)
	refusesKEM(t, "spent", r, kem, ErrState)
	if r.Static() != e.initiator.Public() || r.RemoteIndex() != s.initiatorIndex {
		t.Error("static key or index got lost")
	}
	for _, r := range []*HybridResponder{begin(), s.verified(t, e, initiation), completed()} {
		r.Erase()
		if !r.erased() {
			t.Error("secrets left after Erase")
		}
		respond(r, s.chosen(), ErrState)
	}

	// Another identity, another peer.
	other := newScene(3).ends(t)
	verifyFails(begin(), NewRemote(e.responder, other.initiator.Public()))
	verifyFails(begin(), NewRemote(other.responder, e.initiator.Public()))
	if r, err := other.responder.ReadHybridInitiation(initiation); !errors.Is(err, ErrDecrypt) || r != nil {
		t.Errorf("read by another: %v", err)
	}
}

// TestHybridOrder: what comes twice, late, or from another handshake of the same two ends with the same index.
func TestHybridOrder(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	again := newHybridScene(1)
	again.initiatorEphemeral[5] ^= 1
	again.decapsulationSeed[5] ^= 1
	initiation, kem, i := s.initiateHybrid(t, e)
	otherInitiation, otherKEM, otherI := again.initiateHybrid(t, e)

	r, other := s.verified(t, e, initiation), again.verified(t, e, otherInitiation)
	refusesKEM(t, "the other's KEM part", r, otherKEM, ErrDecrypt)
	refusesKEM(t, "the other's KEM part", other, kem, ErrDecrypt)
	refusesKEM(t, "an initiation", r, initiation, ErrMessage)
	moved := flipped(kem, 8*4)
	refusesKEM(t, "another sender index", r, moved, ErrMessage)
	r.index ^= 1 // as if somebody had moved the initiation as well, had it been possible
	refusesKEM(t, "another sender index, known to the responder", r, moved, ErrDecrypt)
	r.index ^= 1

	if err := r.ReadKEM(kem); err != nil {
		t.Fatalf("the genuine part afterwards: %v", err)
	}
	response, theirs, err := r.Respond(nil, s.responderIndex, s.psk, s.chosen(), Randomness{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.ReadKEM(otherKEM); err != nil {
		t.Fatalf("the genuine part afterwards: %v", err)
	}
	otherResponse, otherTheirs, err := other.Respond(nil, s.responderIndex, s.psk, s.chosen(), Randomness{})
	if err != nil {
		t.Fatal(err)
	}
	s.refuses(t, "the other's response", i, otherResponse, s.psk, ErrDecrypt)
	s.refuses(t, "the other's response", otherI, response, s.psk, ErrDecrypt)

	// A replayed initiation is verified again, with the timestamp that gives it away; its replayed KEM part as well. Their response is
	// another, and of no use to the initiator once it has the first.
	replayed, _ := s.respondHybrid(t, e, initiation, kem)
	s.expect(t, i, response, theirs)
	s.refuses(t, "a replay's response", i, replayed, s.psk, ErrState)
	s.expect(t, otherI, otherResponse, otherTheirs)
}

// TestHybridReflection sends an end its own messages.
func TestHybridReflection(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	response, theirs := s.respondHybrid(t, e, initiation, kem)
	for name, msg := range map[string][]byte{"initiation": initiation, "KEM part": kem} {
		s.refuses(t, "its own "+name, i, msg, s.psk, ErrMessage)
	}
	if _, err := e.initiator.ReadHybridInitiation(initiation); !errors.Is(err, ErrDecrypt) {
		t.Errorf("its own initiation: %v", err)
	}
	for name, msg := range map[string][]byte{"response": response, "KEM part": kem} {
		if _, err := e.responder.ReadHybridInitiation(msg); !errors.Is(err, ErrMessage) {
			t.Errorf("a %s as an initiation: %v", name, err)
		}
	}
	// The responder begins a handshake with the same index, and gets its own response back.
	toItself := s
	toItself.initiatorStatic, toItself.responderStatic = s.responderStatic, s.initiatorStatic
	toItself.initiatorEphemeral[9] ^= 1
	_, _, back := toItself.initiateHybrid(t, toItself.ends(t))
	s.refuses(t, "its own response", back, response, s.psk, ErrDecrypt)
	s.expect(t, i, response, theirs)
}

// TestWiresApart lays each wire's messages under the other's types.
func TestWiresApart(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	response, theirs := s.respondHybrid(t, e, initiation, kem)
	classic, classicI := s.initiate(t, e)
	classicResponse, _ := s.respond(t, e, classic)
	under := func(typ byte, msg []byte, size int) []byte {
		msg = append(bytes.Clone(msg), make([]byte, size)...)[:size]
		msg[0] = typ
		return msg
	}

	if _, err := e.responder.ReadHybridInitiation(under(TypeHybridInitiation, classic, HybridInitiationSize)); !errors.Is(err, ErrDecrypt) {
		t.Errorf("a classic initiation as a hybrid one: %v", err)
	}
	if _, err := e.responder.ReadInitiation(under(TypeInitiation, initiation, InitiationSize)); !errors.Is(err, ErrDecrypt) {
		t.Errorf("a hybrid initiation as a classic one: %v", err)
	}
	s.refuses(t, "a classic response as a hybrid one", i, under(TypeHybridResponse, classicResponse, HybridResponseSize), s.psk, ErrDecrypt)
	if _, _, err := classicI.Consume(under(TypeResponse, response, ResponseSize), s.psk); !errors.Is(err, ErrDecrypt) {
		t.Errorf("a hybrid response as a classic one: %v", err)
	}
	// As they are.
	if _, err := e.responder.ReadHybridInitiation(classic); !errors.Is(err, ErrMessage) {
		t.Errorf("a classic initiation: %v", err)
	}
	if _, err := e.responder.ReadInitiation(initiation); !errors.Is(err, ErrMessage) {
		t.Errorf("a hybrid initiation: %v", err)
	}
	s.refuses(t, "a classic response", i, classicResponse, s.psk, ErrMessage)
	if _, _, err := classicI.Consume(response, s.psk); !errors.Is(err, ErrMessage) {
		t.Errorf("a hybrid response: %v", err)
	}
	s.expect(t, i, response, theirs)
}

// TestHybridOffers has the reference offer every set of suites, with all reserved bytes alike, each value of them once: verified if and only if ChaCha20-Poly1305
// is among them, and only what is known comes out.
func TestHybridOffers(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	for bits := range 256 {
		s.offer = everyByte(bits)
		r, err := e.responder.ReadHybridInitiation(s.reference(t, hostility{}).initiation)
		if err != nil {
			t.Fatal(err)
		}
		ts, offer, err := r.Verify(e.toInitiator)
		if bits&1 == 0 {
			if !errors.Is(err, ErrParameters) || ts != (tai64n.Timestamp{}) || offer != (Parameters{}) || !r.erased() {
				t.Errorf("offer %#x: %v", bits, err)
			}
		} else if want := (Parameters{Suites: crypto.Suites(bits & 3), Layer: s.offer[1], Lanes: s.offer[2]}); err != nil || ts != s.timestamp || offer != want {
			t.Errorf("offer %#x: %v, %v", bits, offer, err)
		}
		// Our own initiator offers nothing the other end would refuse.
		out, i, err := e.toResponder.InitiateHybrid([]byte("ab"), 1, s.timestamp, Parameters{Suites: crypto.Suites(bits)}, s.initiatorRandomness())
		if offered := err == nil; offered != (bits&1 == 1) || !offered && (!errors.Is(err, ErrParameters) || i != nil || string(out) != "ab") {
			t.Errorf("offer %#x: %v", bits, err)
		}
	}
}

// everyByte are parameters whose suites are bits, and whose other bytes take each value as bits do.
func everyByte(bits int) [8]byte {
	layer, lanes, rest := byte(bits)^0x5a, byte(bits)^0xa5, byte(bits)*37
	return [8]byte{byte(bits), layer, lanes, rest, rest, rest, rest, rest}
}

// TestHybridChoices has the reference choose every set of suites, with all reserved bytes alike, from either offer: taken if and only if it
// is one suite that was offered. Our own responder chooses nothing else either.
func TestHybridChoices(t *testing.T) {
	for _, offer := range []byte{1, 3} {
		s := newHybridScene(1)
		s.offer[0] = offer
		e := s.ends(t)
		initiation, kem, i := s.initiateHybrid(t, e)
		complete := s.verified(t, e, initiation)
		if err := complete.ReadKEM(kem); err != nil {
			t.Fatal(err)
		}
		genuine, theirs := []byte(nil), Keys{}
		for bits := range 256 {
			allowed := bits == 1 || bits == 2 && offer == 3
			s.choice = everyByte(bits)
			if tr := s.reference(t, hostility{}); !allowed {
				s.refuses(t, fmt.Sprintf("offer %d, choice %#x", offer, bits), i, tr.response, s.psk, ErrParameters)
			} else {
				_, _, other := s.initiateHybrid(t, e)
				s.expect(t, other, tr.response, Keys{Send: [32]byte(tr.responderSends), Receive: [32]byte(tr.initiatorSends)})
			}
			r := *complete
			msg, keys, err := r.Respond([]byte{}, s.responderIndex, s.psk, s.chosen(), s.responderRandomness())
			if chosen := err == nil; chosen != allowed || !chosen && (!errors.Is(err, ErrParameters) || len(msg) != 0 || keys != (Keys{})) {
				t.Errorf("offer %d, choice %#x: Respond: %v", offer, bits, err)
			}
			if bits == 1 {
				genuine, theirs = msg, keys
			}
		}
		s.choice = everyByte(1)
		s.expect(t, i, genuine, theirs)
	}
}

// TestHybridBadKEM has the reference, which holds all keys, send what is no encapsulation key or not the ciphertext.
func TestHybridBadKEM(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	encapsulationKey, shared, ciphertext := s.kem(t)

	// Each of 768 coefficients takes 12 bits; all from 3329 on are no element of the field (FIPS 203 §7.2).
	for _, coefficient := range []int{0, 1, 2, 383, 766, 767} {
		bad := bytes.Clone(encapsulationKey)
		at := coefficient / 2 * 3
		value := 3329
		if coefficient%3 == 0 {
			value = 4095
		}
		if coefficient%2 == 0 {
			bad[at], bad[at+1] = byte(value), bad[at+1]&0xf0|byte(value>>8)
		} else {
			bad[at+1], bad[at+2] = bad[at+1]&0x0f|byte(value<<4), byte(value>>4)
		}
		r := s.verified(t, e, s.reference(t, hostility{}).initiation)
		if err := r.ReadKEM(s.reference(t, hostility{key: bad}).kem); !errors.Is(err, ErrEncapsulationKey) || !r.erased() {
			t.Errorf("coefficient %d is %d: %v", coefficient, value, err)
		}
		if _, _, err := r.Respond(nil, 1, s.psk, s.chosen(), s.responderRandomness()); !errors.Is(err, ErrState) {
			t.Errorf("answered: %v", err)
		}
	}

	_, _, i := s.initiateHybrid(t, e)
	for _, bit := range []int{0, 1000, 8*mlkem.CiphertextSize768 - 1} {
		s.refuses(t, "another ciphertext", i, s.reference(t, hostility{ciphertext: flipped(ciphertext, bit)}).response, s.psk, ErrDecrypt)
	}
	s.refuses(t, "no ciphertext", i, s.reference(t, hostility{ciphertext: make([]byte, len(ciphertext))}).response, s.psk, ErrDecrypt)
	s.refuses(t, "another secret", i, s.reference(t, hostility{shared: flipped(shared, 3)}).response, s.psk, ErrDecrypt)
	s.refuses(t, "a zero secret", i, s.reference(t, hostility{shared: make([]byte, 32)}).response, s.psk, ErrDecrypt)
	elsewhere := s.initiatorIndex ^ 1
	s.refuses(t, "for another index", i, s.reference(t, hostility{receiver: &elsewhere}).response, s.psk, ErrMessage)
	tr := s.reference(t, hostility{})
	s.expect(t, i, tr.response, Keys{Send: [32]byte(tr.responderSends), Receive: [32]byte(tr.initiatorSends)})
}

// TestHybridLowOrder puts each low-order point into each place a public key comes from.
func TestHybridLowOrder(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	response, theirs := s.respondHybrid(t, e, initiation, kem)
	for _, text := range lowOrder {
		point := crypto.PublicKey(key(t, text))
		remote := NewRemote(e.responder, point)
		if msg, i, err := remote.InitiateHybrid([]byte("ab"), 1, s.timestamp, s.offered(), Randomness{}); !errors.Is(err, ErrLowOrder) || i != nil || string(msg) != "ab" {
			t.Errorf("%v: initiation to it: %v", point, err)
		}
		bad := bytes.Clone(initiation)
		copy(bad[hybridEphemeral:], point[:])
		if _, err := e.responder.ReadHybridInitiation(bad); !errors.Is(err, ErrLowOrder) {
			t.Errorf("%v: as the initiation's ephemeral: %v", point, err)
		}
		bad = bytes.Clone(response)
		copy(bad[hybridResponseEphemeral:], point[:])
		s.refuses(t, "as the response's ephemeral", i, bad, s.psk, ErrLowOrder)

		// Somebody who claims the point as its static key knows every shared secret with it: zero.
		r, err := e.responder.ReadHybridInitiation(s.reference(t, hostility{static: point[:], ss: make([]byte, 32)}).initiation)
		if err != nil || r.Static() != point {
			t.Fatalf("%v: the forgery does not reach Verify: %v", point, err)
		}
		if _, _, err := r.Verify(remote); !errors.Is(err, ErrLowOrder) || !r.erased() {
			t.Errorf("%v: as the initiator's static key: %v", point, err)
		}
	}
	// The same forgery with an honest key fails for want of the secret.
	r, err := e.responder.ReadHybridInitiation(s.reference(t, hostility{ss: make([]byte, 32)}).initiation)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Verify(e.toInitiator); !errors.Is(err, ErrDecrypt) || !r.erased() {
		t.Errorf("with a guessed secret: %v", err)
	}
	s.expect(t, i, response, theirs)
}

func TestHybridRandomnessFails(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	broken := errors.New("no randomness")
	failing := func() (crypto.PrivateKey, error) { return crypto.PrivateKey{}, broken }
	initiate := func(rnd Randomness, want error) {
		t.Helper()
		msg, i, err := e.toResponder.InitiateHybrid([]byte("ab"), 1, s.timestamp, s.offered(), rnd)
		if !errors.Is(err, want) || i != nil || string(msg) != "ab" {
			t.Errorf("InitiateHybrid: %q, %v", msg, err)
		}
	}
	initiate(Randomness{Ephemeral: failing}, broken)
	initiate(Randomness{Ephemeral: fixed(crypto.PrivateKey{})}, crypto.ErrZeroKey)
	initiate(Randomness{Decapsulation: func() (*mlkem.DecapsulationKey768, error) { return nil, broken }}, broken)

	initiation, kem, _ := s.initiateHybrid(t, e)
	for want, eph := range map[error]Ephemeral{broken: failing, crypto.ErrZeroKey: fixed(crypto.PrivateKey{})} {
		r := s.verified(t, e, initiation)
		if err := r.ReadKEM(kem); err != nil {
			t.Fatal(err)
		}
		msg, keys, err := r.Respond([]byte("ab"), 1, s.psk, s.chosen(), Randomness{Ephemeral: eph})
		if !errors.Is(err, want) || keys != (Keys{}) || string(msg) != "ab" || !r.erased() {
			t.Errorf("Respond: %q, %v", msg, err)
		}
	}
}

func TestHybridRemoteErase(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, _, _ := s.initiateHybrid(t, e)
	e.toResponder.Erase()
	e.toInitiator.Erase()
	if _, _, err := e.toResponder.InitiateHybrid(nil, 1, s.timestamp, s.offered(), Randomness{}); !errors.Is(err, ErrState) {
		t.Errorf("InitiateHybrid: %v", err)
	}
	r, err := e.responder.ReadHybridInitiation(initiation)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Verify(e.toInitiator); !errors.Is(err, ErrState) || !r.erased() {
		t.Errorf("Verify: %v", err)
	}
}

// TestHybridHidden prints what holds secrets.
func TestHybridHidden(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	r := s.verified(t, e, initiation)
	complete := s.verified(t, e, initiation)
	if err := complete.ReadKEM(kem); err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{i, *i, r, *r, complete} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%20.3v"} {
			if got := fmt.Sprintf(verb, v); got != "(hidden)" {
				t.Errorf("%T with %s: %q", v, verb, got)
			}
		}
		if text, err := json.Marshal(v); err != nil || string(text) != `"(hidden)"` {
			t.Errorf("%T as JSON: %s, %v", v, text, err)
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "k", v)
		if strings.Count(log.String(), "(hidden)") != 1 {
			t.Errorf("%T in slog: %s", v, log.String())
		}
	}
}
