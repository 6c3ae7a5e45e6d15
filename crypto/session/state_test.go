package session

import (
	"errors"
	"testing"

	"culvert/crypto/noise"
)

// A session goes on from its state: what was sealed before and after is opened once, and no counter is used twice.
func TestExportImport(t *testing.T) {
	eachSuite(t, func(t *testing.T, a, b *Session) {
		var n Nonce
		seal := func() []byte {
			counter, ok := a.Reserve(1, noise.TagSize+2)
			if !ok {
				t.Fatal("refused")
			}
			msg := make([]byte, 2+Overhead)
			a.Seal(msg, counter, []byte("hi"), &n)
			return msg
		}
		opens := func(msg []byte, want error) {
			t.Helper()
			if _, err := b.Open(make([]byte, 2), msg, &n); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		again := func(s *Session) *Session {
			state, ok := s.Export()
			s.Erase()
			if !ok {
				t.Fatal("not exported")
			}
			made, err := Import(&state)
			if err != nil {
				t.Fatal(err)
			}
			if state.Send != [32]byte{} || state.Receive != [32]byte{} {
				t.Error("the state still holds keys")
			}
			return made
		}
		first, late := seal(), seal()
		opens(first, nil)
		sent, bytes := a.Sent(), a.bytes.Load()
		a, b = again(a), again(b)
		if a.Sent() != sent+CounterJump || a.bytes.Load() != bytes || a.Initiator == b.Initiator {
			t.Errorf("%d sent, %d bytes; before %d and %d", a.Sent(), a.bytes.Load(), sent, bytes)
		}
		opens(first, ErrReplay)
		opens(seal(), nil)
		opens(late, nil)
		opens(late, ErrReplay)
		b.Erase()
		if _, ok := b.Export(); ok {
			t.Error("an erased session was exported")
		}
	})
}

// Near its end a session keeps to it.
func TestImportAtTheEnd(t *testing.T) {
	a, _ := pair(t)
	a.next.Store(RejectAfterMessages - 3)
	state, _ := a.Export()
	made, err := Import(&state)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := made.Reserve(1, 0); ok || made.Sent() != RejectAfterMessages {
		t.Errorf("%d sent", made.Sent())
	}
}
