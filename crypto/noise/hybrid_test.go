package noise

import (
	"bytes"
	"testing"

	"culvert/crypto"
)

func TestHybridHandshake(t *testing.T) {
	for seed := range uint64(6) {
		s := newScene(seed)
		e := s.ends(t)
		prefix := []byte("prefix")
		offer := Parameters{Suites: crypto.AllSuites, Layer: LayerEthernet}
		out, i, err := e.toResponder.InitiateHybrid(bytes.Clone(prefix), s.initiatorIndex, s.timestamp, offer, Randomness{})
		if err != nil || len(out) != len(prefix)+HybridInitiationSize+KEMSize || !bytes.HasPrefix(out, prefix) {
			t.Fatalf("InitiateHybrid: %d bytes, %v", len(out), err)
		}
		initiation, kem := out[len(prefix):][:HybridInitiationSize], out[len(prefix)+HybridInitiationSize:]
		for typ, msg := range map[uint8][]byte{TypeHybridInitiation: initiation, TypeKEM: kem} {
			if got, ok := MessageType(msg); !ok || got != typ || SenderIndex(msg) != s.initiatorIndex || i.LocalIndex() != s.initiatorIndex {
				t.Errorf("the header of type %d is wrong", typ)
			}
		}
		r, err := e.responder.ReadHybridInitiation(initiation)
		if err != nil {
			t.Fatal(err)
		}
		if r.Static() != e.initiator.Public() || r.RemoteIndex() != s.initiatorIndex {
			t.Error("static key or index got lost")
		}
		if ts, got, err := r.Verify(e.toInitiator); err != nil || ts != s.timestamp || got != offer {
			t.Fatalf("Verify: %x, %v, %v", ts, got, err)
		}
		if err := r.ReadKEM(kem); err != nil {
			t.Fatal(err)
		}
		choice := Parameters{Suites: crypto.SuitesOf(crypto.Suite(seed & 1)), Layer: LayerIP}
		out, theirs, err := r.Respond(bytes.Clone(prefix), s.responderIndex, s.psk, choice, Randomness{})
		if err != nil || len(out) != len(prefix)+HybridResponseSize || !bytes.HasPrefix(out, prefix) {
			t.Fatalf("Respond: %d bytes, %v", len(out), err)
		}
		response := out[len(prefix):]
		if typ, ok := MessageType(response); !ok || typ != TypeHybridResponse || SenderIndex(response) != s.responderIndex || ReceiverIndex(response) != s.initiatorIndex {
			t.Error("the response's header is wrong")
		}
		ours, chosen, index, err := i.Consume(response, s.psk)
		if err != nil || index != s.responderIndex || chosen != choice {
			t.Fatalf("Consume: %d, %v, %v", index, chosen, err)
		}
		if ours.Send != theirs.Receive || ours.Receive != theirs.Send || ours.Send == ours.Receive || ours.Send == [32]byte{} {
			t.Error("the ends have other keys")
		}
		for _, macs := range [][]byte{initiation[HybridInitiationSize-2*MACSize:], kem[KEMSize-MACSize:], response[HybridResponseSize-2*MACSize:]} {
			if !bytes.Equal(macs, make([]byte, len(macs))) {
				t.Error("the macs are not left zero")
			}
		}
	}
}
