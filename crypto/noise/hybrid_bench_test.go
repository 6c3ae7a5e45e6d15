package noise

import (
	"testing"

	"culvert/crypto"
)

// The benchmarks compare the two wires: what a handshake costs both ends, and each, with production's randomness where an end draws any
// and everything that is kept for a peer prepared.

func BenchmarkHandshakeBothEnds(b *testing.B) {
	s := newHybridScene(1)
	e := s.ends(b)
	b.Run("wireguard", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			initiation, i, err := e.toResponder.Initiate(nil, 1, s.timestamp, crypto.GeneratePrivateKey)
			if err != nil {
				b.Fatal(err)
			}
			response := answer(b, s, e, initiation)
			if _, _, err := i.Consume(response, s.psk); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("culvert", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			msgs, i, err := e.toResponder.InitiateHybrid(nil, 1, s.timestamp, s.offered(), Randomness{})
			if err != nil {
				b.Fatal(err)
			}
			response := answerHybrid(b, s, e, msgs[:HybridInitiationSize], msgs[HybridInitiationSize:])
			if _, _, _, err := i.Consume(response, s.psk); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkHandshakeInitiator(b *testing.B) {
	s := newHybridScene(1)
	e := s.ends(b)
	b.Run("wireguard", func(b *testing.B) {
		initiation, _ := s.initiate(b, e)
		response, _ := s.respond(b, e, initiation)
		for b.Loop() {
			_, i := s.initiate(b, e)
			if _, _, err := i.Consume(response, s.psk); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("culvert", func(b *testing.B) {
		initiation, kem, _ := s.initiateHybrid(b, e)
		response, _ := s.respondHybrid(b, e, initiation, kem)
		for b.Loop() {
			_, _, i := s.initiateHybrid(b, e)
			if _, _, _, err := i.Consume(response, s.psk); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkHandshakeResponder(b *testing.B) {
	s := newHybridScene(1)
	e := s.ends(b)
	b.Run("wireguard", func(b *testing.B) {
		initiation, _ := s.initiate(b, e)
		for b.Loop() {
			answer(b, s, e, initiation)
		}
	})
	initiation, kem, _ := s.initiateHybrid(b, e)
	b.Run("culvert", func(b *testing.B) {
		for b.Loop() {
			answerHybrid(b, s, e, initiation, kem)
		}
	})
	// The steps a flood can reach: without a peer's key, with it, and with a KEM part that is none.
	b.Run("culvert, read", func(b *testing.B) {
		for b.Loop() {
			if _, err := e.responder.ReadHybridInitiation(initiation); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("culvert, read and verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.verified(b, e, initiation)
		}
	})
	b.Run("culvert, bad KEM part", func(b *testing.B) {
		r, bad := s.verified(b, e, initiation), flipped(kem, 8*kemKey)
		for b.Loop() {
			if err := r.ReadKEM(bad); err == nil {
				b.Fatal("taken")
			}
		}
	})
}

func answer(b *testing.B, s hybridScene, e ends, initiation []byte) []byte {
	r, err := e.responder.ReadInitiation(initiation)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := r.Verify(e.toInitiator); err != nil {
		b.Fatal(err)
	}
	response, _, err := r.Respond(nil, 2, s.psk, crypto.GeneratePrivateKey)
	if err != nil {
		b.Fatal(err)
	}
	return response
}

func answerHybrid(b *testing.B, s hybridScene, e ends, initiation, kem []byte) []byte {
	r := s.verified(b, e, initiation)
	if err := r.ReadKEM(kem); err != nil {
		b.Fatal(err)
	}
	response, _, err := r.Respond(nil, 2, s.psk, s.chosen(), Randomness{})
	if err != nil {
		b.Fatal(err)
	}
	return response
}
