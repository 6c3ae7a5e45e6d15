package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/server"
)

// signInView is what a client knows of its sign-in.
type signInView struct {
	mu      sync.Mutex
	state   *server.SignInState // nil where no server has asked for any
	by      crypto.PublicKey    // the server that has: of several, the last that waits for one
	until   time.Time           // of state.Lasts
	pulled  bool                // the server has said what to set up
	begun   bool                // it has begun at a provider by itself since it was last signed in
	changed chan struct{}       // closed when the server says something; nil where nobody waits
}

// take notes what the server says, and reports whether the client is to begin at a provider. It does so by itself once: a code that nobody
// enters is not asked for again and again.
func (v *signInView) take(by crypto.PublicKey, state server.SignInState, now time.Time) (begin bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by != by {
		if state.Step == server.SignInDone && v.state != nil && v.state.Step != server.SignInDone {
			return false // another one still waits
		}
		v.by, v.begun = by, false
	}
	v.state, v.until = &state, time.Time{}
	if state.Lasts > 0 {
		v.until = now.Add(state.Lasts)
	}
	switch {
	case state.Step == server.SignInDone:
		v.begun = false
	case state.Step == server.SignInBegin && !v.begun:
		v.begun, begin = true, true
	}
	if v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
	return begin
}

// configured notes that the server has said what to set up, which it does when there is nothing to wait for.
func (v *signInView) configured(by crypto.PublicKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pulled = true
	if v.state != nil && v.by == by && v.state.Step != server.SignInDone {
		v.state = nil
	}
}

// status is how the control protocol shows it.
func (v *signInView) status() (s *control.SignIn, pulled bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state == nil {
		return nil, v.pulled
	}
	return &control.SignIn{
		State: map[server.SignInStep]string{server.SignInCode: control.SignInCode, server.SignInBegin: control.SignInBegin,
			server.SignInVisit: control.SignInVisit, server.SignInDone: control.SignInDone}[v.state.Step],
		URL: v.state.URL, Code: v.state.UserCode, Complete: v.state.Complete, Until: second(v.until), Note: v.state.Note,
	}, v.pulled
}

// next is closed when the server says something.
func (v *signInView) next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.changed
}

// server is who the user's answers are for.
func (v *signInView) server() crypto.PublicKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.by
}

// signInTold takes what a server says of the sign-in.
func (t *liveTunnel) signInTold(m *roleMail) {
	t.role.changing.Lock()
	ours := slices.Contains(serversOf(&t.conf), m.peer)
	t.role.changing.Unlock()
	if !ours {
		return
	}
	state, err := server.DecodeSignInState(m.document)
	if err != nil {
		t.log.Warn("what the server says of signing in is refused", "error", err)
		return
	}
	begin := t.role.signIn.take(m.peer, state, time.Now())
	if state.Step == server.SignInDone {
		t.log.Info("signed in", "for", state.Lasts)
	} else {
		t.linkMu.Lock()
		instance := t.file.Instance
		t.linkMu.Unlock()
		t.log.Info("the server waits for a sign-in: culvert signin " + instance)
	}
	if begin {
		if err := t.answerSignIn(server.SignInAnswer{}); err != nil {
			t.log.Warn("cannot begin to sign in", "error", err)
		}
	}
}

// answerSignIn sends the server what the user has said.
func (t *liveTunnel) answerSignIn(a server.SignInAnswer) error {
	t.role.changing.Lock()
	defer t.role.changing.Unlock()
	to := t.role.signIn.server()
	if !slices.Contains(serversOf(&t.conf), to) {
		return errors.New("no server has asked for a sign-in")
	}
	b, err := a.Encode()
	if err != nil {
		return errors.New("this cannot be a code")
	}
	return t.engine.Push(to, server.SubjectSignInAnswer, b)
}

// SignIn implements [control.Signer].
func (d *daemon) SignIn(ctx context.Context, r control.SignInRequest) (*control.SignIn, error) {
	in, ok := d.body.(*instance)
	if !ok {
		return nil, fmt.Errorf("%s has no tunnel to a server that is signed in to", d.name)
	}
	t, err := in.pulling(r.Tunnel)
	if err != nil {
		return nil, err
	}
	return t.signIn(ctx, r)
}

// pulling is the tunnel, of that name or the only one, that is the client of a server.
func (in *instance) pulling(name string) (found *liveTunnel, err error) {
	var names []string
	for _, t := range in.live() {
		t.linkMu.Lock()
		pulls := pulledFrom(&t.conf) >= 0
		t.linkMu.Unlock()
		if pulls && (name == "" || t.hooks.ifname == name) {
			found = t
			names = append(names, t.hooks.ifname)
		}
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("%s has no such tunnel to a server that is signed in to: it needs \"pull: true\"", in.file.Instance)
	case len(names) > 1:
		return nil, fmt.Errorf("%s has several tunnels to servers: name one of %s with --tunnel", in.file.Instance, strings.Join(names, ", "))
	}
	return found, nil
}

// signIn does what a user asks for, and waits for what the server says to it.
func (t *liveTunnel) signIn(ctx context.Context, r control.SignInRequest) (*control.SignIn, error) {
	v := &t.role.signIn
	if r.Code == "" && !r.Begin {
		s, _ := v.status()
		return s, nil
	}
	next := v.next()
	if err := t.answerSignIn(server.SignInAnswer{Code: r.Code}); err != nil {
		return nil, fmt.Errorf("the server cannot be told: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil, errors.New("the server has not answered; culvert status shows whether it is reached")
		case <-t.engine.Done():
			return nil, errors.New("the tunnel has ended")
		case <-next:
		}
		next = v.next()
		s, _ := v.status()
		if s == nil || s.State == control.SignInDone || s.Note != "" || r.Begin && s.State != control.SignInBegin {
			return s, nil
		}
	}
}
