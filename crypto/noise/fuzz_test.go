package noise

import (
	"bytes"
	"testing"

	"culvert/crypto"
)

// FuzzInitiation gives a responder arbitrary bytes: nothing but what the peer made verifies.
func FuzzInitiation(f *testing.F) {
	s := newScene(1)
	e := s.ends(f)
	genuine, _ := s.initiate(f, e)
	f.Add(genuine)
	f.Add(genuine[:InitiationSize-1])
	f.Add(flipped(genuine, 8*initiationTimestamp))
	f.Add(make([]byte, InitiationSize))
	f.Add([]byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		r, err := e.responder.ReadInitiation(msg)
		if !bytes.Equal(msg, before) {
			t.Fatal("the message was changed")
		}
		if err != nil {
			if r != nil {
				t.Error("a Responder beside an error")
			}
			return
		}
		if r.Static() != e.initiator.Public() {
			// Anybody can claim a key to a responder, so the fuzzer may get here in theory.
			if _, err := r.Verify(NewRemote(e.responder, r.Static())); err == nil {
				t.Error("verified somebody unknown")
			}
			return
		}
		if _, err := r.Verify(e.toInitiator); err == nil && !bytes.Equal(msg[initiationEphemeral:initiationMAC1], genuine[initiationEphemeral:initiationMAC1]) {
			t.Errorf("verified a message the peer did not make: %x", msg)
		}
	})
}

// FuzzConsume gives an initiator arbitrary bytes: nothing but the response it waits for makes keys, and nothing keeps it from
// taking that one.
func FuzzConsume(f *testing.F) {
	s := newScene(1)
	e := s.ends(f)
	initiation, _ := s.initiate(f, e)
	genuine, _ := s.respond(f, e, initiation)
	f.Add(genuine, s.psk[:])
	f.Add(genuine, []byte{})
	f.Add(flipped(genuine, 8*responseEmpty), s.psk[:])
	f.Add(genuine[:ResponseSize-1], s.psk[:])
	f.Add(initiation, s.psk[:])
	f.Add([]byte{2, 0, 0, 0}, []byte{1})
	f.Fuzz(func(t *testing.T, msg, pskBytes []byte) {
		var psk crypto.PresharedKey
		copy(psk[:], pskBytes)
		_, i := s.initiate(t, e)
		waiting := *i
		keys, _, err := i.Consume(msg, psk)
		if err == nil {
			if psk != s.psk || !bytes.Equal(msg[responseReceiver:responseMAC1], genuine[responseReceiver:responseMAC1]) {
				t.Errorf("took a message the peer did not make: %x", msg)
			}
			return
		}
		if keys != (Keys{}) || *i != waiting {
			t.Error("a refused message left a trace")
		}
		if _, _, err := i.Consume(genuine, s.psk); err != nil {
			t.Errorf("the genuine response afterwards: %v", err)
		}
	})
}

// FuzzMessageType checks the header functions on what they are given in production: any datagram.
func FuzzMessageType(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{4, 0, 0, 0})
	f.Add(append([]byte{4, 0, 0, 0}, make([]byte, 28)...))
	f.Add(append([]byte{2, 0, 0, 0}, make([]byte, 88)...))
	f.Fuzz(func(t *testing.T, msg []byte) {
		typ, ok := MessageType(msg)
		if !ok {
			return
		}
		if typ != msg[0] || typ < TypeInitiation || typ > TypeHybridResponse {
			t.Errorf("type %d of %x", typ, msg[:4])
		}
		// Whatever passed must be long enough for these.
		_, _ = SenderIndex(msg), ReceiverIndex(msg)
	})
}

func BenchmarkHandshake(b *testing.B) {
	s := newScene(1)
	e := s.ends(b)
	b.Run("Initiate", func(b *testing.B) {
		for b.Loop() {
			s.initiate(b, e)
		}
	})
	initiation, i := s.initiate(b, e)
	b.Run("ReadInitiation, Verify", func(b *testing.B) {
		for b.Loop() {
			r, err := e.responder.ReadInitiation(initiation)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.Verify(e.toInitiator); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("whole answer", func(b *testing.B) {
		for b.Loop() {
			s.respond(b, e, initiation)
		}
	})
	response, _ := s.respond(b, e, initiation)
	b.Run("Consume", func(b *testing.B) {
		waiting := *i
		for b.Loop() {
			*i = waiting
			if _, _, err := i.Consume(response, s.psk); err != nil {
				b.Fatal(err)
			}
		}
	})
}
