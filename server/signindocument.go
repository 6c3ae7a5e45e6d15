package server

import (
	"time"

	"culvert/server/terminal"
)

// SubjectSignIn is the subject under which a server says how a client's user is to sign in, a [SignInState]; SubjectSignInAnswer that of
// what the client sends for it, a [SignInAnswer].
const (
	SubjectSignIn       = "sign-in"
	SubjectSignInAnswer = "sign-in-answer"
)

// SignInStep is how far a sign-in has come.
type SignInStep uint8

// The steps, as in a document.
const (
	SignInCode  SignInStep = 1 // a code is waited for
	SignInBegin SignInStep = 2 // the client is to say that it begins: the user will be sent to a page
	SignInVisit SignInStep = 3 // the user is to open URL and enter Code there
	SignInDone  SignInStep = 4 // for as long as Lasts
)

// SignInState is what a client is told of its sign-in.
type SignInState struct {
	Step     SignInStep
	URL      string        // of SignInVisit: printable, at most MaxURL bytes
	UserCode string        // of SignInVisit: printable, at most MaxUserCode bytes
	Complete string        // of SignInVisit: a URL that has the code in it; as URL, may be empty
	Lasts    time.Duration // of SignInVisit and SignInDone: whole seconds from now on, at most MaxSignIn
	Note     string        // why it has not come further; printable, at most MaxReason bytes, may be empty
}

// SignInAnswer is what a client sends: a code, or none where it only begins.
type SignInAnswer struct {
	Code string // printable, at most MaxCode bytes
}

type signInStateFields struct {
	Version  uint64 `cbor:"1,keyasint"`
	Step     uint64 `cbor:"2,keyasint"`
	URL      string `cbor:"3,keyasint,omitempty"`
	UserCode string `cbor:"4,keyasint,omitempty"`
	Complete string `cbor:"5,keyasint,omitempty"`
	Lasts    uint64 `cbor:"6,keyasint,omitempty"` // seconds
	Note     string `cbor:"7,keyasint,omitempty"`
}

type signInAnswerFields struct {
	Version uint64 `cbor:"1,keyasint"`
	Code    string `cbor:"2,keyasint,omitempty"`
}

func (s *SignInState) valid() bool {
	visit, timed := s.Step == SignInVisit, s.Step == SignInVisit || s.Step == SignInDone
	return s.Step >= SignInCode && s.Step <= SignInDone &&
		len(s.URL) <= MaxURL && terminal.Printable(s.URL) && visit == (s.URL != "") &&
		len(s.UserCode) <= MaxUserCode && terminal.Printable(s.UserCode) && visit == (s.UserCode != "") &&
		len(s.Complete) <= MaxURL && terminal.Printable(s.Complete) && (visit || s.Complete == "") &&
		s.Lasts >= 0 && s.Lasts <= MaxSignIn && s.Lasts%time.Second == 0 && (timed || s.Lasts == 0) &&
		len(s.Note) <= MaxReason && terminal.Printable(s.Note)
}

// Check is ErrMalformed where the state is not as described.
func (s *SignInState) Check() error {
	if !s.valid() {
		return ErrMalformed
	}
	return nil
}

// Encode writes the state. ErrMalformed where it is not as described.
func (s *SignInState) Encode() ([]byte, error) {
	if !s.valid() {
		return nil, ErrMalformed
	}
	return encoding.Marshal(signInStateFields{1, uint64(s.Step), s.URL, s.UserCode, s.Complete, uint64(s.Lasts / time.Second), s.Note})
}

// DecodeSignInState reads what [SignInState.Encode] writes, and nothing else.
func DecodeSignInState(b []byte) (SignInState, error) {
	var f signInStateFields
	if err := decode(b, &f); err != nil {
		return SignInState{}, err
	}
	if f.Step > uint64(SignInDone) || f.Lasts > uint64(MaxSignIn/time.Second) {
		return SignInState{}, ErrMalformed
	}
	s := SignInState{SignInStep(f.Step), f.URL, f.UserCode, f.Complete, time.Duration(f.Lasts) * time.Second, f.Note}
	if !s.valid() {
		return SignInState{}, ErrMalformed
	}
	return s, nil
}

// Encode writes the answer. ErrMalformed where it is not as described.
func (a *SignInAnswer) Encode() ([]byte, error) {
	if len(a.Code) > MaxCode || !terminal.Printable(a.Code) {
		return nil, ErrMalformed
	}
	return encoding.Marshal(signInAnswerFields{1, a.Code})
}

// DecodeSignInAnswer reads what [SignInAnswer.Encode] writes, and nothing else.
func DecodeSignInAnswer(b []byte) (SignInAnswer, error) {
	var f signInAnswerFields
	if err := decode(b, &f); err != nil {
		return SignInAnswer{}, err
	}
	if len(f.Code) > MaxCode || !terminal.Printable(f.Code) {
		return SignInAnswer{}, ErrMalformed
	}
	return SignInAnswer{f.Code}, nil
}
