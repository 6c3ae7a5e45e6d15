package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/server"
	"culvert/server/totp"
)

// A client that is revoked is gone, and one that has not signed in is let in by nothing, though the rest of the change fails. It is tried again.
func TestRevokeWhileNothingApplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "totp")
		held, other := g.join(2), g.join(3)
		other.authenticator()
		if s := other.sends(other.code()); s.Step != server.SignInDone {
			t.Fatalf("%+v", s)
		}
		held.passes(false)
		g.broken.Store(true)
		for _, name := range []string{"c2", "c3"} {
			err := g.live.keepClients(&control.ClientsRequest{Do: control.DoRevoke, Name: name}, &control.ClientsAnswer{})
			if err == nil || !strings.Contains(err.Error(), "tried again") {
				t.Errorf("revoking %s: %v", name, err)
			}
			held.passes(false)
		}
		other.passes(false)
		for _, p := range g.live.engine.Status().Peers {
			if p.PublicKey == held.key || p.PublicKey == other.key {
				t.Error("who was revoked is a peer still")
			}
		}
		private, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		add := &control.ClientsRequest{Do: control.DoAdd, Name: "c4", Group: "field", Key: private.Public()}
		if err := g.live.keepClients(add, &control.ClientsAnswer{}); err == nil || !strings.Contains(err.Error(), "tried again") {
			t.Errorf("adding: %v", err)
		}
		if n := len(g.live.engine.Status().Peers); n != 0 {
			t.Errorf("%d peers", n)
		}
		g.broken.Store(false)
		time.Sleep(applyAgain + time.Second)
		if n := len(g.live.engine.Status().Peers); n != 1 {
			t.Errorf("%d peers after it was tried again, want one", n)
		}
	})
}

// A client that does as it likes: it sends data before it has signed in, malformed answers, floods of guesses, and codes again.
func TestHostileSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "totp")
		c := g.join(2)
		c.passes(false)
		for _, m := range []roleMail{
			{subject: server.SubjectPull}, {subject: server.SubjectSignInAnswer}, {subject: server.SubjectSignInAnswer, document: []byte{0xa1, 1, 2}},
			{subject: server.SubjectSignInAnswer, document: bytes.Repeat([]byte{0xff}, 4096)}, {subject: server.SubjectEnrol, document: []byte{0xa0}},
			{subject: server.SubjectConfig, document: []byte{0xa1, 1, 1}}, {subject: server.SubjectSignIn, document: []byte{0xa2, 1, 1, 2, 4}},
		} {
			c.push(m.subject, m.document)
			time.Sleep(100 * time.Millisecond)
		}
		c.passes(false)
		if s := c.last(); s.Step != server.SignInCode || !strings.Contains(s.Note, "no authenticator is enrolled") {
			t.Errorf("told %+v", s)
		}
		if got := c.subjects(); got != server.SubjectSignIn {
			t.Errorf("before the sign-in it is told of %q", got)
		}

		// Codes of all sorts, as fast as they are taken.
		c.authenticator()
		before := strings.Count(g.audit.String(), "\n")
		tried := 0
		for i := range 3000 {
			b, err := (&server.SignInAnswer{Code: fmt.Sprintf("%06dx", i)}).Encode()
			if err != nil {
				t.Fatal(err)
			}
			if c.engine.Push(g.live.conf.PrivateKey.Public(), server.SubjectSignInAnswer, b) == nil {
				tried++
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if tried < 100 {
			t.Fatalf("%d guesses: no flood", tried)
		}
		if lines := strings.Count(g.audit.String(), "\n") - before; lines != totp.Free {
			t.Errorf("a flood of %d guesses makes %d lines in the audit log, want %d", tried, lines, totp.Free)
		}
		if s := c.sends(c.code()); s.Step != server.SignInCode || !strings.Contains(s.Note, "too many wrong codes") {
			t.Errorf("a right code amid the flood: %+v", s)
		}
		c.passes(false)
		c.subjects()

		time.Sleep(totp.FirstWait)
		used := c.code()
		if s := c.sends(used); s.Step != server.SignInDone || s.Lasts <= time.Hour-10*time.Second || s.Lasts > time.Hour {
			t.Fatalf("a right code: %+v", s)
		}
		signedIn := time.Now()
		if got := c.subjects(); got != server.SubjectConfig+" "+server.SubjectSignIn {
			t.Errorf("signed in it is told of %q", got)
		}
		c.passes(true)
		if s := c.sends(used); s.Step != server.SignInDone || !strings.Contains(s.Note, "used before") {
			t.Errorf("the code again: %+v", s)
		}

		// The time is up: at once, and a code from before is of no use.
		time.Sleep(time.Hour - time.Since(signedIn) - 10*time.Second)
		c.passes(true)
		c.subjects()
		for range 15 * 25 { // whatever it asks meanwhile, and however often
			_ = c.engine.Push(g.live.conf.PrivateKey.Public(), server.SubjectPull, nil)
			time.Sleep(40 * time.Millisecond)
		}
		c.passes(false)
		if s := c.last(); s.Step != server.SignInCode {
			t.Errorf("when the time is up: %+v", s)
		}
		c.subjects()
		c.push(server.SubjectPull, nil)
		time.Sleep(time.Second)
		if got := c.subjects(); got != server.SubjectSignIn {
			t.Errorf("when the time is up it is told of %q", got)
		}
		if s := c.sends(used); s.Step != server.SignInCode {
			t.Errorf("a code from an hour ago: %+v", s)
		}
		c.passes(false)

		// A change about something else lets nobody in; somebody else's sign-in neither.
		other := g.join(3)
		other.authenticator()
		c.passes(false)
		if s := other.sends(c.code()); s.Step != server.SignInCode {
			t.Errorf("another client's code: %+v", s)
		}
		if s := other.sends(other.code()); s.Step != server.SignInDone {
			t.Errorf("its own: %+v", s)
		}
		other.passes(true)
		c.passes(false)
		if _, err := g.live.reload(t.Context(), g.live.file, g.live.conf); err != nil {
			t.Fatal(err)
		}
		c.passes(false)
		other.passes(true)
	})
}
