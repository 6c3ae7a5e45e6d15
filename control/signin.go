package control

import (
	"context"
	"errors"
	"time"
)

// SignIn is what a server asks of the user of a client, before anything passes.
type SignIn struct {
	// "code" (a code is waited for), "begin" (at a provider, which has not begun), "visit" (URL is to be opened, and Code
	// entered there) or "done".
	State    string    `json:"state"`
	URL      string    `json:"url,omitempty"`          // to be opened
	Code     string    `json:"user_code,omitempty"`    // to be entered at URL; no secret of the user's
	Complete string    `json:"url_complete,omitempty"` // has the code in it
	Until    time.Time `json:"until,omitzero"`         // of "visit": it can be entered; of "done": it is asked for again
	Note     string    `json:"note,omitempty"`         // why it has not come further, as the server says
}

// States of a [SignIn].
const (
	SignInCode  = "code"
	SignInBegin = "begin"
	SignInVisit = "visit"
	SignInDone  = "done"
)

// SignInRequest is about the sign-in of a tunnel that is a client. Without Code and Begin it only asks how far it is.
type SignInRequest struct {
	Tunnel string `json:"tunnel,omitempty"` // may be left out where one tunnel of the instance is a client
	Code   string `json:"code,omitempty"`   // what the user has typed: a secret, which is kept nowhere
	Begin  bool   `json:"begin,omitempty"`  // at a provider
}

// A Signer is a [Service] with tunnels that users sign in for.
type Signer interface {
	SignIn(context.Context, SignInRequest) (*SignIn, error)
}

// signInTime bounds the server's answer.
const signInTime = 30 * time.Second

func signIn(ctx context.Context, s Service, r *SignInRequest) (*SignIn, error) {
	signer, ok := s.(Signer)
	if !ok || r == nil {
		return nil, errors.New("nobody signs in here")
	}
	ctx, cancel := context.WithTimeout(ctx, signInTime)
	defer cancel()
	return signer.SignIn(ctx, *r)
}
