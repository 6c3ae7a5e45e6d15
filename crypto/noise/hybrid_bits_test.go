package noise

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// These tests leave out the macs, which are package cookie's. With them, and with mac1 made anew, every bit is tried in package crypto.

// TestEveryBitOfHybridInitiation flips each bit: never verified.
func TestEveryBitOfHybridInitiation(t *testing.T) {
	for seed := range uint64(2) {
		s := newHybridScene(seed)
		e := s.ends(t)
		initiation, kem, i := s.initiateHybrid(t, e)
		for bit := range hybridMAC1 * 8 {
			r, err := e.responder.ReadHybridInitiation(flipped(initiation, bit))
			if err != nil {
				continue
			}
			if _, _, err := r.Verify(NewRemote(e.responder, r.Static())); err == nil {
				t.Errorf("bit %d flipped and verified", bit)
			}
			if err := r.ReadKEM(kem); !errors.Is(err, ErrState) {
				t.Errorf("bit %d flipped and the KEM part read: %v", bit, err)
			}
			if _, _, err := r.Respond(nil, 1, s.psk, s.chosen(), s.responderRandomness()); !errors.Is(err, ErrState) {
				t.Errorf("bit %d flipped and answered: %v", bit, err)
			}
		}
		response, theirs := s.respondHybrid(t, e, initiation, kem)
		s.expect(t, i, response, theirs)
	}
}

// TestEveryBitOfKEM flips each bit of the KEM part before one responder, which then takes the genuine one.
func TestEveryBitOfKEM(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	r := s.verified(t, e, initiation)
	for bit := range kemMAC1 * 8 {
		want := ErrDecrypt
		if bit < kemKey*8 {
			want = ErrMessage
		}
		refusesKEM(t, fmt.Sprintf("bit %d", bit), r, flipped(kem, bit), want)
	}
	if err := r.ReadKEM(kem); err != nil {
		t.Fatalf("the genuine part afterwards: %v", err)
	}
	response, theirs, err := r.Respond(nil, s.responderIndex, s.psk, s.chosen(), s.responderRandomness())
	if err != nil {
		t.Fatal(err)
	}
	s.expect(t, i, response, theirs)
}

// TestEveryBitOfHybridResponse flips each bit of a response to one initiator, which then takes the genuine one. Unlike on WireGuard's wire the
// sender index counts.
func TestEveryBitOfHybridResponse(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	response, theirs := s.respondHybrid(t, e, initiation, kem)
	before := *i
	for bit := range hybridResponseMAC1 * 8 {
		keys, chosen, index, err := i.Consume(flipped(response, bit), s.psk)
		if err == nil || keys != (Keys{}) || chosen != (Parameters{}) || index != 0 {
			t.Errorf("bit %d flipped and accepted", bit)
		}
		if *i != before {
			t.Fatalf("bit %d flipped: the initiator changed", bit)
		}
	}
	s.expect(t, i, response, theirs)
}

// TestHybridOtherLengths gives every length but the right one.
func TestHybridOtherLengths(t *testing.T) {
	s := newHybridScene(1)
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	response, theirs := s.respondHybrid(t, e, initiation, kem)
	r := s.verified(t, e, initiation)
	cut := func(msg []byte, length int) []byte { return append(bytes.Clone(msg), make([]byte, 1300)...)[:length] }
	for length := range 1300 {
		if _, err := e.responder.ReadHybridInitiation(cut(initiation, length)); length != HybridInitiationSize && !errors.Is(err, ErrMessage) {
			t.Errorf("initiation of %d bytes: %v", length, err)
		}
		if length != KEMSize {
			refusesKEM(t, fmt.Sprint("KEM part of length ", length), r, cut(kem, length), ErrMessage)
		}
		if length != HybridResponseSize {
			s.refuses(t, fmt.Sprint("response of length ", length), i, cut(response, length), s.psk, ErrMessage)
		}
	}
	s.expect(t, i, response, theirs)
}
