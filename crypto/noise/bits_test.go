package noise

import (
	"bytes"
	"errors"
	"testing"
)

// flipped returns msg with one bit flipped.
func flipped(msg []byte, bit int) []byte {
	bad := bytes.Clone(msg)
	bad[bit/8] ^= 1 << (bit % 8)
	return bad
}

// The parts of a message this package does not verify, because the caller checks them (mac1, mac2) or because the protocol leaves
// them out of the transcript (the sender index).
func unverified(msg []byte, bit int) bool {
	at := bit / 8
	return at >= 4 && at < 8 || at >= len(msg)-2*MACSize
}

// TestEveryBitOfInitiation flips each bit: never a verified initiator, save where this package does not look. With another sender
// index the response goes astray, and the initiator takes nothing from it.
func TestEveryBitOfInitiation(t *testing.T) {
	for seed := range uint64(2) {
		s := newScene(seed)
		e := s.ends(t)
		initiation, i := s.initiate(t, e)
		for bit := range len(initiation) * 8 {
			bad := flipped(initiation, bit)
			if !unverified(bad, bit) {
				r, err := e.responder.ReadInitiation(bad)
				if err != nil {
					continue
				}
				if _, err := r.Verify(NewRemote(e.responder, r.Static())); err == nil {
					t.Errorf("bit %d flipped and verified", bit)
				}
				if _, _, err := r.Respond(nil, 1, s.psk, fixed(s.responderEphemeral)); !errors.Is(err, ErrState) {
					t.Errorf("bit %d flipped and answered: %v", bit, err)
				}
				continue
			}
			if at := bit / 8; at < 8 {
				response, _ := s.respond(t, e, bad)
				if _, _, err := i.Consume(response, s.psk); !errors.Is(err, ErrMessage) {
					t.Errorf("bit %d of the sender index flipped and the response taken: %v", bit, err)
				}
			}
		}
		response, theirs := s.respond(t, e, initiation)
		ours, _, err := i.Consume(response, s.psk)
		if err != nil || ours.Send != theirs.Receive {
			t.Errorf("the genuine handshake failed afterwards: %v", err)
		}
	}
}

// TestEveryBitOfResponse flips each bit of a response to one initiator that waits. None makes keys, save in the sender index, which
// is tried on initiators of its own: the keys are then the genuine ones, and the index nobody's. After all of them the initiator
// is what it was and takes the genuine response.
func TestEveryBitOfResponse(t *testing.T) {
	for seed := range uint64(2) {
		s := newScene(seed)
		e := s.ends(t)
		initiation, i := s.initiate(t, e)
		response, theirs := s.respond(t, e, initiation)
		before := *i
		for bit := range len(response) * 8 {
			bad := flipped(response, bit)
			if unverified(bad, bit) {
				_, other := s.initiate(t, e)
				keys, index, err := other.Consume(bad, s.psk)
				if err != nil || keys.Send != theirs.Receive || keys.Receive != theirs.Send {
					t.Errorf("bit %d, which is not verified: %v", bit, err)
				}
				if at := bit / 8; at < 8 && index == s.responderIndex {
					t.Errorf("bit %d of the index flipped and not seen", bit)
				}
				continue
			}
			keys, index, err := i.Consume(bad, s.psk)
			if err == nil || keys != (Keys{}) || index != 0 {
				t.Errorf("bit %d flipped and accepted", bit)
			}
			if *i != before {
				t.Fatalf("bit %d flipped: the initiator changed", bit)
			}
		}
		ours, index, err := i.Consume(response, s.psk)
		if err != nil || index != s.responderIndex || ours.Send != theirs.Receive || ours.Receive != theirs.Send {
			t.Errorf("the genuine response afterwards: %v", err)
		}
	}
}

// TestOtherLengths gives every length but the right one.
func TestOtherLengths(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	initiation, i := s.initiate(t, e)
	response, _ := s.respond(t, e, initiation)
	for length := range 200 {
		if length != InitiationSize {
			bad := append(bytes.Clone(initiation), make([]byte, 200)...)[:length]
			if _, err := e.responder.ReadInitiation(bad); !errors.Is(err, ErrMessage) {
				t.Errorf("initiation of %d bytes: %v", length, err)
			}
		}
		if length != ResponseSize {
			bad := append(bytes.Clone(response), make([]byte, 200)...)[:length]
			if _, _, err := i.Consume(bad, s.psk); !errors.Is(err, ErrMessage) {
				t.Errorf("response of %d bytes: %v", length, err)
			}
		}
	}
	if _, err := e.responder.ReadInitiation(response); !errors.Is(err, ErrMessage) {
		t.Errorf("a response as an initiation: %v", err)
	}
	if _, _, err := i.Consume(initiation, s.psk); !errors.Is(err, ErrMessage) {
		t.Errorf("an initiation as a response: %v", err)
	}
}
