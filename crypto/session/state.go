package session

import (
	"errors"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/replay"
)

// CounterJump is how many send counters a session leaves out that goes on in another process. None of those before has been sealed twice in
// any case, since the first process has stopped when it exports; this is for what nobody has thought of. It is small against the far end's
// replay window, so that messages still under way are not too old.
const CounterJump = replay.Size / 8

// State is all of a session, with its keys, for another process to go on with.
type State struct {
	Local     uint32               `cbor:"1,keyasint"`
	Remote    uint32               `cbor:"2,keyasint"`
	Initiator bool                 `cbor:"3,keyasint,omitempty"`
	Created   time.Duration        `cbor:"4,keyasint"`
	Suite     crypto.Suite         `cbor:"5,keyasint"`
	Send      [crypto.KeySize]byte `cbor:"6,keyasint"`
	Receive   [crypto.KeySize]byte `cbor:"7,keyasint"`
	Next      uint64               `cbor:"8,keyasint,omitempty"`
	Bytes     uint64               `cbor:"9,keyasint,omitempty"`
	Window    replay.State         `cbor:"10,keyasint"`
}

// Erase overwrites the keys.
func (s *State) Erase() {
	clear(s.Send[:])
	clear(s.Receive[:])
}

// ErrState refuses a state that no session can have.
var ErrState = errors.New("session: not the state of a session")

// Export returns the session's state; ok is false where it is erased. Nothing may be reserved or opened any more once it is called, or the
// same counters would be used twice.
func (s *Session) Export() (state State, ok bool) {
	c := s.ciphers.Load()
	if c == nil {
		return State{}, false
	}
	return State{Local: s.LocalIndex, Remote: s.RemoteIndex, Initiator: s.Initiator, Created: s.Created, Suite: s.suite,
		Send: c.keys.Send, Receive: c.keys.Receive, Next: s.next.Load(), Bytes: s.bytes.Load(), Window: s.window.Export()}, true
}

// Import makes a session of a state, and erases the state's keys. Its send counters begin [CounterJump] above those that were reserved.
// Errors: ErrState, and those of [New].
func Import(state *State) (*Session, error) {
	defer state.Erase()
	if state.Next > RejectAfterMessages || state.Bytes > RejectAfterBytes {
		return nil, ErrState
	}
	var k noise.Keys
	k.Send, k.Receive = state.Send, state.Receive
	defer k.Erase()
	s, err := New(&k, state.Suite, state.Initiator, state.Local, state.Remote, state.Created)
	if err != nil {
		return nil, err
	}
	if !s.window.Import(state.Window) {
		s.Erase()
		return nil, ErrState
	}
	s.next.Store(state.Next + min(CounterJump, RejectAfterMessages-state.Next))
	s.bytes.Store(state.Bytes)
	return s, nil
}
