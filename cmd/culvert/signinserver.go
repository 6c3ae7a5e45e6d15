package main

import (
	"context"
	"time"

	"culvert/config"
	"culvert/crypto"
	"culvert/server"
	"culvert/tunnel"
)

// signInsOf are the second factors of a server's groups.
func signInsOf(s *config.Server) map[string]server.SignIn {
	out := make(map[string]server.SignIn)
	for i := range s.Groups {
		g := &s.Groups[i]
		if g.SignIn == nil {
			continue
		}
		factor := server.SignIn{Lasts: g.SignIn.Lasts, Codes: g.SignIn.TOTP}
		if factor.Lasts == 0 {
			factor.Lasts = config.DefaultSignIn
		}
		if g.SignIn.OIDC != nil {
			factor.Provider = g.SignIn.OIDC.Issuer
		}
		out[g.Name] = factor
	}
	return out
}

// hold says of each client in a change whether it is held, so that none is let in by a change that is about something else. The tunnel's
// changing is locked, or it is not up yet.
func (t *liveTunnel) hold(change *tunnel.Change) {
	if t.role.server == nil {
		return
	}
	now := time.Now()
	for i := range change.Peers {
		p := &change.Peers[i]
		held := !t.role.server.server.Admitted(p.PublicKey, now)
		p.Held = &held
	}
}

// holdOne has the engine hold a client, or let it go, as the server says. The tunnel's changing is locked.
func (t *liveTunnel) holdOne(client crypto.PublicKey) {
	change := tunnel.Change{Peers: []tunnel.PeerChange{{PublicKey: client, UpdateOnly: true}}}
	t.hold(&change)
	if err := t.engine.Configure(change); err != nil {
		t.log.Error("a client cannot be held until it has signed in, or let go", "client", client, "error", err)
	}
}

// tellSignIn pushes to a client how far its sign-in is, and reports whether it has not to sign in first. With again it is told though nothing
// has changed. The tunnel's changing is locked.
func (t *liveTunnel) tellSignIn(client crypto.PublicKey, again bool, now time.Time) (admitted bool) {
	s := t.role.server
	state, asked := s.server.SignInOf(client, now)
	if !asked {
		return true
	}
	if state.Step == server.SignInDone {
		if again || s.told[client] == nil {
			t.pushSignIn(client, state)
		}
		return true
	}
	s.told[client] = nil
	if v := s.visits[client]; v != nil && state.Step == server.SignInBegin {
		state = v.state(now)
	}
	t.pushSignIn(client, state)
	return false
}

func (t *liveTunnel) pushSignIn(client crypto.PublicKey, state server.SignInState) {
	b, err := state.Encode()
	if err == nil {
		err = t.engine.Push(client, server.SubjectSignIn, b)
	}
	if err != nil {
		t.log.Warn("a client cannot be told to sign in", "client", client, "error", err)
	}
}

// tellNamed tells a client by its name. The tunnel's changing is locked.
func (t *liveTunnel) tellNamed(name string) {
	for _, c := range t.role.server.server.Clients() {
		if c.Name == name {
			t.tell(c.Key, true)
		}
	}
}

// answered works off what a client has sent to sign in. The tunnel's changing is locked.
func (t *liveTunnel) answered(ctx context.Context, m *roleMail, now time.Time) {
	s := t.role.server.server
	answer, err := server.DecodeSignInAnswer(m.document)
	if err != nil {
		t.log.Debug("a client's sign-in is refused", "client", m.peer, "error", err)
		return
	}
	state, asked := s.SignInOf(m.peer, now)
	if !asked || answer.Code == "" {
		if asked && state.Step == server.SignInBegin {
			t.beginVisit(ctx, m.peer, now)
		}
		if t.role.server.mayAsk(m.peer, now) {
			t.tell(m.peer, true)
		}
		return
	}
	if err := s.TryCode(m.peer, answer.Code, now); err != nil {
		state, _ = s.SignInOf(m.peer, now)
		state.Note = err.Error()
		t.pushSignIn(m.peer, state)
		return
	}
	t.holdOne(m.peer)
	t.tell(m.peer, true)
}

// signOut holds clients whose sign-in is over, and asks for it again. The tunnel's changing is locked.
func (t *liveTunnel) signOut(now time.Time) {
	over, err := t.role.server.server.SignOut(now)
	if err != nil {
		t.log.Error("cannot keep that sign-ins are over", "error", err)
	}
	for _, client := range over {
		t.holdOne(client)
		t.tell(client, true)
	}
	t.forgetVisits()
}
