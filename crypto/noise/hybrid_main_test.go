package noise

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"testing"
	"unsafe"
)

func (s hybridScene) offered() Parameters { return decodeParameters(&s.offer) }
func (s hybridScene) chosen() Parameters  { return decodeParameters(&s.choice) }

func (s hybridScene) initiatorRandomness() Randomness {
	return Randomness{Ephemeral: fixed(s.initiatorEphemeral), Decapsulation: func() (*mlkem.DecapsulationKey768, error) {
		return mlkem.NewDecapsulationKey768(s.decapsulationSeed[:])
	}}
}

func (s hybridScene) responderRandomness() Randomness {
	return Randomness{Ephemeral: fixed(s.responderEphemeral), Encapsulate: func(key *mlkem.EncapsulationKey768) (secret, ciphertext []byte) {
		secret, ciphertext, err := mlkemtest.Encapsulate768(key, s.encapsulationRandomness[:])
		if err != nil {
			panic(err)
		}
		return secret, ciphertext
	}}
}

// initiateHybrid returns the scene's initiation and KEM part.
func (s hybridScene) initiateHybrid(t testing.TB, e ends) (initiation, kem []byte, i *HybridInitiator) {
	t.Helper()
	msgs, i, err := e.toResponder.InitiateHybrid(nil, s.initiatorIndex, s.timestamp, s.offered(), s.initiatorRandomness())
	if err != nil {
		t.Fatal(err)
	}
	return msgs[:HybridInitiationSize], msgs[HybridInitiationSize:], i
}

// verified returns a responder that awaits the KEM part.
func (s hybridScene) verified(t testing.TB, e ends, initiation []byte) *HybridResponder {
	t.Helper()
	r, err := e.responder.ReadHybridInitiation(initiation)
	if err != nil {
		t.Fatal(err)
	}
	if ts, offer, err := r.Verify(e.toInitiator); err != nil || ts != s.timestamp || offer != s.offered() {
		t.Fatalf("Verify: %x, %v, %v", ts, offer, err)
	}
	return r
}

func (s hybridScene) respondHybrid(t testing.TB, e ends, initiation, kem []byte) ([]byte, Keys) {
	t.Helper()
	r := s.verified(t, e, initiation)
	if err := r.ReadKEM(kem); err != nil {
		t.Fatal(err)
	}
	msg, keys, err := r.Respond(nil, s.responderIndex, s.psk, s.chosen(), s.responderRandomness())
	if err != nil {
		t.Fatal(err)
	}
	return msg, keys
}

// expect has i take the genuine response, whatever it was given before.
func (s hybridScene) expect(t testing.TB, i *HybridInitiator, response []byte, theirs Keys) {
	t.Helper()
	ours, chosen, index, err := i.Consume(response, s.psk)
	if err != nil || index != s.responderIndex || chosen != s.chosen() || ours.Send != theirs.Receive || ours.Receive != theirs.Send {
		t.Errorf("the genuine response: index %d, %v, %v", index, chosen, err)
	}
}

func TestHybridHandshake(t *testing.T) {
	for seed := range uint64(6) {
		s := newHybridScene(seed)
		e := s.ends(t)
		prefix := []byte("prefix")
		out, i, err := e.toResponder.InitiateHybrid(bytes.Clone(prefix), s.initiatorIndex, s.timestamp, s.offered(), Randomness{})
		if err != nil || len(out) != len(prefix)+HybridInitiationSize+KEMSize || !bytes.HasPrefix(out, prefix) {
			t.Fatalf("InitiateHybrid: %d bytes, %v", len(out), err)
		}
		initiation, kem := out[len(prefix):][:HybridInitiationSize], out[len(prefix)+HybridInitiationSize:]
		for typ, msg := range map[uint8][]byte{TypeHybridInitiation: initiation, TypeKEM: kem} {
			if got, ok := MessageType(msg); !ok || got != typ || SenderIndex(msg) != s.initiatorIndex || i.LocalIndex() != s.initiatorIndex {
				t.Errorf("the header of type %d is wrong", typ)
			}
		}
		r := s.verified(t, e, initiation)
		if r.Static() != e.initiator.Public() || r.RemoteIndex() != s.initiatorIndex {
			t.Error("static key or index got lost")
		}
		if err := r.ReadKEM(kem); err != nil {
			t.Fatal(err)
		}
		out, theirs, err := r.Respond(bytes.Clone(prefix), s.responderIndex, s.psk, s.chosen(), Randomness{})
		if err != nil || len(out) != len(prefix)+HybridResponseSize || !bytes.HasPrefix(out, prefix) {
			t.Fatalf("Respond: %d bytes, %v", len(out), err)
		}
		response := out[len(prefix):]
		if typ, ok := MessageType(response); !ok || typ != TypeHybridResponse || SenderIndex(response) != s.responderIndex || ReceiverIndex(response) != s.initiatorIndex {
			t.Error("the response's header is wrong")
		}
		s.expect(t, i, response, theirs)
		if theirs.Send == theirs.Receive || theirs.Send == [32]byte{} || theirs.Receive == [32]byte{} {
			t.Error("keys that are none")
		}
		for _, macs := range [][]byte{initiation[HybridInitiationSize-2*MACSize:], kem[KEMSize-MACSize:], response[HybridResponseSize-2*MACSize:]} {
			if !bytes.Equal(macs, make([]byte, len(macs))) {
				t.Error("the macs are not left zero")
			}
		}
	}
}

// TestHybridSizes: no datagram is larger than IPv6's smallest link takes, and no answer larger than what was verified before it.
func TestHybridSizes(t *testing.T) {
	const largest = 1280 - 40 - 8
	if HybridInitiationSize > largest || KEMSize > largest || HybridResponseSize > largest {
		t.Error("a message that is too large")
	}
	if HybridResponseSize > HybridInitiationSize+KEMSize {
		t.Error("a response larger than what it answers")
	}
	if hybridMAC1+2*MACSize != HybridInitiationSize || kemMAC1+MACSize != KEMSize || hybridResponseMAC1+2*MACSize != HybridResponseSize {
		t.Error("the layouts do not add up")
	}
	if size := unsafe.Sizeof(HybridResponder{}); size > 256 {
		t.Errorf("a HybridResponder, of which each peer may hold one, takes %d bytes", size)
	}
}

// TestHybridFresh runs with production's randomness: no two handshakes share a key, an ephemeral or an encapsulation key.
func TestHybridFresh(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	seen := make(map[string]bool)
	for range 8 {
		msgs, i, err := e.toResponder.InitiateHybrid(nil, 1, s.timestamp, s.offered(), Randomness{})
		if err != nil {
			t.Fatal(err)
		}
		r := s.verified(t, e, msgs[:HybridInitiationSize])
		if err := r.ReadKEM(msgs[HybridInitiationSize:]); err != nil {
			t.Fatal(err)
		}
		seen[string(r.encapsulation.Bytes())] = true
		response, keys, err := r.Respond(nil, 2, s.psk, s.chosen(), Randomness{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := i.Consume(response, s.psk); err != nil {
			t.Fatal(err)
		}
		for _, part := range [][]byte{keys.Send[:], keys.Receive[:], msgs[hybridEphemeral:hybridStatic], response[hybridResponseEphemeral:hybridResponseCiphertext]} {
			seen[string(part)] = true
		}
	}
	if len(seen) != 8*5 {
		t.Errorf("%d different values of %d", len(seen), 8*5)
	}
}

// TestHybridReference: both ends agree with the reference on every byte and state.
func TestHybridReference(t *testing.T) {
	for seed := range uint64(20) {
		s := newHybridScene(seed)
		s.agree(t, s.reference(t, hostility{}))
	}
}

// agree compares both ends with what is wanted of the scene.
func (s hybridScene) agree(t *testing.T, want transcript) {
	t.Helper()
	e := s.ends(t)
	state := func(what string, got symmetric, after int) {
		t.Helper()
		if !bytes.Equal(got.hash[:], want.hash[after]) || !bytes.Equal(got.chain[:], want.chain[after]) {
			t.Errorf("%s: h %x, ck %x", what, got.hash, got.chain)
		}
	}
	message := func(what string, got, want []byte) {
		t.Helper()
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n%x, want\n%x", what, got, want)
		}
	}
	initiation, kem, i := s.initiateHybrid(t, e)
	message("initiation", initiation, want.initiation)
	message("KEM part", kem, want.kem)
	state("initiator", i.state, 1)

	r := s.verified(t, e, want.initiation)
	state("responder, verified", r.state, 0)
	if err := r.ReadKEM(want.kem); err != nil {
		t.Fatal(err)
	}
	state("responder, complete", r.state, 1)
	response, theirs, err := r.Respond(nil, s.responderIndex, s.psk, s.chosen(), s.responderRandomness())
	if err != nil {
		t.Fatal(err)
	}
	message("response", response, want.response)
	if !bytes.Equal(theirs.Receive[:], want.initiatorSends) || !bytes.Equal(theirs.Send[:], want.responderSends) {
		t.Error("the responder's keys differ")
	}
	s.expect(t, i, want.response, Keys{Send: [32]byte(want.responderSends), Receive: [32]byte(want.initiatorSends)})
}
