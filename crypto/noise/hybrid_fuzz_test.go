package noise

import (
	"bytes"
	"errors"
	"testing"

	"culvert/crypto"
)

// FuzzHybridResponder gives a responder arbitrary bytes as an initiation and as a KEM part: nothing but what the peer made verifies, and
// no KEM part keeps it from taking the genuine one, unless that is authentic.
func FuzzHybridResponder(f *testing.F) {
	s := newHybridScene(1)
	e := s.ends(f)
	initiation, kem, _ := s.initiateHybrid(f, e)
	tr := s.reference(f, hostility{key: bytes.Repeat([]byte{0xff}, kemMAC1-kemKey-TagSize)})
	f.Add(initiation, kem)
	f.Add(initiation, tr.kem)
	f.Add(initiation, kem[:KEMSize-1])
	f.Add(kem, initiation)
	f.Add(flipped(initiation, 8*hybridHello), flipped(kem, 8*kemKey))
	f.Add(make([]byte, HybridInitiationSize), make([]byte, KEMSize))
	f.Add([]byte{5, 0, 0, 0}, []byte{6, 0, 0, 0})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		firstBefore, secondBefore := bytes.Clone(first), bytes.Clone(second)
		r, err := e.responder.ReadHybridInitiation(first)
		if err != nil && r != nil {
			t.Error("a responder beside an error")
		}
		if err == nil {
			if _, _, err := r.Verify(NewRemote(e.responder, r.Static())); err == nil && !bytes.Equal(first[:hybridMAC1], initiation[:hybridMAC1]) {
				t.Errorf("verified a message the peer did not make: %x", first)
			}
		}

		r = s.verified(t, e, initiation)
		waiting := *r
		switch err := r.ReadKEM(second); {
		case err == nil:
			if !bytes.Equal(second[:kemMAC1], kem[:kemMAC1]) {
				t.Errorf("took a KEM part the peer did not make: %x", second)
			}
		case errors.Is(err, ErrEncapsulationKey):
			if !bytes.Equal(second[:kemMAC1], tr.kem[:kemMAC1]) || !r.erased() {
				t.Errorf("an authentic part the peer did not make: %x", second)
			}
		case *r != waiting:
			t.Error("a refused KEM part left a trace")
		default:
			if err := r.ReadKEM(kem); err != nil {
				t.Errorf("the genuine part afterwards: %v", err)
			}
		}
		if !bytes.Equal(first, firstBefore) || !bytes.Equal(second, secondBefore) {
			t.Fatal("a message was changed")
		}
	})
}

// FuzzHybridInitiator gives an initiator arbitrary bytes: nothing but the response it waits for makes keys, and nothing keeps it from taking
// that one.
func FuzzHybridInitiator(f *testing.F) {
	s := newHybridScene(1)
	e := s.ends(f)
	initiation, kem, i := s.initiateHybrid(f, e)
	genuine, theirs := s.respondHybrid(f, e, initiation, kem)
	waiting := *i
	f.Add(genuine, s.psk[:])
	f.Add(genuine, []byte{})
	f.Add(flipped(genuine, 8*hybridResponseCiphertext), s.psk[:])
	f.Add(flipped(genuine, 8*hybridResponseParameters), s.psk[:])
	f.Add(s.reference(f, hostility{ciphertext: make([]byte, hybridResponseParameters-hybridResponseCiphertext-TagSize)}).response, s.psk[:])
	f.Add(genuine[:HybridResponseSize-1], s.psk[:])
	f.Add(kem, s.psk[:])
	f.Add([]byte{7, 0, 0, 0}, []byte{1})
	f.Fuzz(func(t *testing.T, msg, pskBytes []byte) {
		var psk crypto.PresharedKey
		copy(psk[:], pskBytes)
		i := waiting
		keys, chosen, _, err := i.Consume(msg, psk)
		if err == nil {
			if psk != s.psk || !bytes.Equal(msg[:hybridResponseMAC1], genuine[:hybridResponseMAC1]) {
				t.Errorf("took a message the peer did not make: %x", msg)
			}
			return
		}
		if keys != (Keys{}) || chosen != (Parameters{}) || i != waiting {
			t.Error("a refused message left a trace")
		}
		s.expect(t, &i, genuine, theirs)
	})
}
