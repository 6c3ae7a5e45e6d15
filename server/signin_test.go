package server

import (
	"bytes"
	"crypto/sha1"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/server/totp"
)

// guarded is a world with groups that need a second factor.
func guarded(t *testing.T) *world {
	w := newWorld(t)
	w.config.Groups = map[string]Settings{"codes": {}, "provider": {}, "free": {}}
	w.config.SignIns = map[string]SignIn{"codes": {Lasts: time.Hour, Codes: true}, "provider": {Lasts: time.Hour, Provider: "https://id.example.net"}}
	w.configure()
	return w
}

func (w *world) configure() {
	w.t.Helper()
	if err := w.server.Configure(w.config, w.now); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) member(name, group string) crypto.PublicKey {
	w.t.Helper()
	key := newKey(w.t)
	if _, err := w.server.Add(name, group, key, false, w.now); err != nil {
		w.t.Fatal(err)
	}
	return key
}

// enrolled returns the secret that an authenticator gets.
func (w *world) enrolled(name string) []byte {
	w.t.Helper()
	link, err := w.server.EnrolCodes(name, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil {
		w.t.Fatal(err)
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

func (w *world) code(secret []byte, ahead int) string {
	return totp.Code(sha1.New, secret, totp.Step(w.now)+uint64(ahead), totp.Digits)
}

// is checks whether a client is let in, and what it is told.
func (w *world) is(key crypto.PublicKey, step SignInStep) {
	w.t.Helper()
	state, asked := w.server.SignInOf(key, w.now)
	if !asked || state.Step != step || w.server.Admitted(key, w.now) != (step == SignInDone) {
		w.t.Fatalf("%+v, asked %v, admitted %v; want %d", state, asked, w.server.Admitted(key, w.now), step)
	}
	if _, err := state.Encode(); err != nil {
		w.t.Fatalf("%+v cannot be told: %v", state, err)
	}
}

// What is over is over, though the disk is full: there is nothing left that is due, and a restart finds it over as well.
func TestOverThoughNothingIsKept(t *testing.T) {
	w := guarded(t)
	alice := w.member("alice", "codes")
	if err := w.server.TryCode(alice, w.code(w.enrolled("alice"), 0), w.now); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.server.Invite("bob", "free", time.Minute, w.now); err != nil {
		t.Fatal(err)
	}
	w.is(alice, SignInDone)
	w.server.store = failing{w.store}
	w.now = w.now.Add(2 * time.Hour)
	if over, err := w.server.SignOut(w.now); err == nil || len(over) != 1 {
		t.Errorf("sign-ins over: %v, %v", over, err)
	}
	if over, err := w.server.Expire(w.now); err == nil || !over {
		t.Errorf("invitations over: %v, %v", over, err)
	}
	if next := w.server.Next(); !next.IsZero() {
		t.Errorf("something is due at %v", next)
	}
	w.is(alice, SignInCode)
	w.open()
	w.is(alice, SignInCode)
	if list := w.server.Peers(w.now); len(list) != 1 {
		t.Errorf("peers after a restart: %+v", list)
	}
}

// Taking a group out of the file lets nobody in who needed a second factor in it.
func TestGroupGone(t *testing.T) {
	w := guarded(t)
	alice, none := w.member("alice", "codes"), w.member("carol", "")
	w.config.Groups, w.config.SignIns = map[string]Settings{"free": {}}, nil
	w.configure()
	if w.server.Admitted(alice, w.now) || !w.server.Strayed("alice") {
		t.Error("a client of a group that is gone is let in")
	}
	if _, asked := w.server.SignInOf(alice, w.now); asked {
		t.Error("it is asked to sign in")
	}
	if !w.server.Admitted(none, w.now) || w.server.Strayed("carol") || w.server.Strayed("nobody") {
		t.Error("a client without a group is held")
	}
	w.config.Clients = map[string]ClientConfig{"alice": {Group: "free"}}
	w.configure()
	if !w.server.Admitted(alice, w.now) || w.server.Strayed("alice") {
		t.Error("a client that was given another group is held")
	}
}

func TestSignInByCodes(t *testing.T) {
	w := guarded(t)
	alice, free := w.member("alice", "codes"), w.member("bob", "free")
	if _, asked := w.server.SignInOf(free, w.now); asked || !w.server.Admitted(free, w.now) || !w.server.Admitted(newKey(t), w.now) {
		t.Error("a client of another group, or somebody else, is asked")
	}
	w.is(alice, SignInCode)
	if err := w.server.TryCode(alice, "000000", w.now); !errors.Is(err, errNoSecret) {
		t.Errorf("without a secret: %v", err)
	}
	secret := w.enrolled("alice")
	if e := w.last(); !reflect.DeepEqual(e, Event{Time: w.now, Event: EventEnrolled, Tunnel: "office", Client: "alice"}) {
		t.Errorf("%+v", e)
	}
	w.server.Connected(alice, netip.MustParseAddrPort("192.0.2.7:1"), w.now)
	code := w.code(secret, 0)
	if err := w.server.TryCode(alice, code[:3]+" "+code[3:], w.now); err != nil {
		t.Fatal(err)
	}
	w.is(alice, SignInDone)
	if e := w.last(); e.Event != EventSignedIn || e.From != "192.0.2.7:1" || e.By != "totp" || !e.Expires.Equal(w.now.Add(time.Hour)) {
		t.Errorf("%+v", e)
	}
	// It is the same in another process, and so is that the code is used up.
	w.open()
	w.is(alice, SignInDone)
	if err := w.server.TryCode(alice, code, w.now); !errors.Is(err, errWrongCode) && (err == nil || err.Error() != errWrongCode.Error()) {
		t.Errorf("a code again: %v", err)
	}
	w.is(alice, SignInDone)
	if next := w.server.Next(); !next.Equal(w.now.Add(time.Hour)) {
		t.Errorf("next is %v", next)
	}
	w.now = w.now.Add(time.Hour - time.Nanosecond)
	if over, err := w.server.SignOut(w.now); over != nil || err != nil {
		t.Errorf("signed out early: %v, %v", over, err)
	}
	w.now = w.now.Add(time.Nanosecond)
	w.is(alice, SignInCode)
	if over, err := w.server.SignOut(w.now); !slices.Equal(over, []crypto.PublicKey{alice}) || err != nil || w.last().Event != EventSignedOut {
		t.Errorf("%v, %v, %+v", over, err, w.last())
	}
	if over, _ := w.server.SignOut(w.now); over != nil {
		t.Error("signed out twice")
	}
}

// What ends a sign-in before its time.
func TestSignInEnds(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"a shorter time": func(w *world) { w.config.SignIns["codes"] = SignIn{Lasts: time.Minute, Codes: true}; w.configure() },
		"a new secret":   func(w *world) { w.enrolled("alice") },
		"another factor": func(w *world) {
			w.config.SignIns["codes"] = SignIn{Lasts: time.Hour, Provider: "https://x"}
			w.configure()
		},
		"the clock is set": func(w *world) { w.now = w.now.Add(-time.Hour) },
		"revoked and back": func(w *world) {
			key := w.server.Clients()[0].Key
			if err := w.server.Revoke("alice", w.now); err != nil {
				t.Fatal(err)
			}
			if _, err := w.server.Add("alice", "codes", key, false, w.now); err != nil {
				t.Fatal(err)
			}
			if err := w.server.TryCode(key, "000000", w.now); !errors.Is(err, errNoSecret) {
				t.Errorf("the secret outlives the client: %v", err)
			}
		},
	} {
		w := guarded(t)
		alice := w.member("alice", "codes")
		secret := w.enrolled("alice")
		if err := w.server.TryCode(alice, w.code(secret, 0), w.now); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(2 * time.Minute)
		w.is(alice, SignInDone)
		change(w)
		if w.server.Admitted(alice, w.now) {
			t.Errorf("%s: it is still let in", name)
		}
		w.open()
		if w.server.Admitted(alice, w.now) {
			t.Errorf("%s, and a restart: it is let in", name)
		}
	}
}

// Guesses: they are counted over restarts, and looked at so seldom that a flood gains nothing.
func TestGuessesAreLimited(t *testing.T) {
	w := guarded(t)
	alice, other := w.member("alice", "codes"), w.member("bob", "codes")
	secret, theirs := w.enrolled("alice"), w.enrolled("bob")
	before := len(w.events)
	for range 1000 {
		if err := w.server.TryCode(alice, "12345x", w.now); err == nil {
			t.Fatal("a wrong code is taken")
		}
	}
	if n := len(w.events) - before; n != totp.Free {
		t.Errorf("%d lines in the audit log, want %d", n, totp.Free)
	}
	w.open()
	if err := w.server.TryCode(alice, w.code(secret, 0), w.now); err == nil || !strings.Contains(err.Error(), "too many wrong codes: wait for 30s") {
		t.Errorf("a right code amid a flood, after a restart: %v", err)
	}
	w.is(alice, SignInCode)
	if err := w.server.TryCode(other, w.code(theirs, 0), w.now); err != nil {
		t.Errorf("another client is held up: %v", err)
	}
	w.now = w.now.Add(totp.FirstWait)
	if err := w.server.TryCode(alice, w.code(secret, 0), w.now); err != nil {
		t.Errorf("when the wait is over: %v", err)
	}
	w.is(alice, SignInDone)
	if err := w.server.TryCode(alice, w.code(theirs, 1), w.now); err == nil {
		t.Error("another client's code is taken")
	}
}

func TestSignInByProvider(t *testing.T) {
	w := guarded(t)
	key := w.member("alice", "provider")
	w.is(key, SignInBegin)
	if err := w.server.TryCode(key, "000000", w.now); !errors.Is(err, ErrNoCodes) {
		t.Errorf("a code: %v", err)
	}
	if _, err := w.server.EnrolCodes("alice", w.now); !errors.Is(err, ErrNoCodes) {
		t.Errorf("a secret: %v", err)
	}
	if err := w.server.SignedIn(key, "https://other.example.net", "alice", w.now); err == nil {
		t.Error("another provider's word counts")
	}
	w.is(key, SignInBegin)
	if err := w.server.SignedIn(key, "https://id.example.net", "alice@example.net", w.now); err != nil {
		t.Fatal(err)
	}
	w.is(key, SignInDone)
	if end, by, as, asked := w.server.SignInEnds("alice", w.now); !asked || !end.Equal(w.now.Add(time.Hour)) || by != "oidc https://id.example.net" || as != "alice@example.net" {
		t.Error(end, by, as, asked)
	}
	if e := w.last(); e.Event != EventSignedIn || e.By != "oidc https://id.example.net alice@example.net" {
		t.Errorf("%+v", e)
	}
}

// Who cannot sign in is not let into such a group, whichever way.
func TestWireGuardCannotSignIn(t *testing.T) {
	w := guarded(t)
	if _, err := w.server.Add("phone", "codes", newKey(t), true, w.now); !errors.Is(err, ErrCannotSignIn) {
		t.Errorf("added: %v", err)
	}
	if _, err := w.server.Add("phone", "free", newKey(t), true, w.now); err != nil {
		t.Fatal(err)
	}
	w.config.SignIns["free"] = SignIn{Lasts: time.Hour, Codes: true}
	if err := w.server.Configure(w.config, w.now); !errors.Is(err, ErrCannotSignIn) || !strings.Contains(err.Error(), "client phone") || !strings.Contains(err.Error(), "group free") {
		t.Errorf("its group demands it: %v", err)
	}
	if _, err := Open(w.store, w.config, w.now, nil); !errors.Is(err, ErrCannotSignIn) {
		t.Errorf("at a start: %v", err)
	}
	delete(w.config.SignIns, "free")
	w.config.Clients = map[string]ClientConfig{"phone": {Group: "provider"}}
	if err := w.server.Configure(w.config, w.now); !errors.Is(err, ErrCannotSignIn) {
		t.Errorf("it is put into such a group: %v", err)
	}
}

func TestSecretsOfInvitations(t *testing.T) {
	w := guarded(t)
	if _, err := w.server.EnrolCodes("alice", w.now); !errors.Is(err, ErrNoClient) {
		t.Errorf("for nobody: %v", err)
	}
	invitation := w.invited("alice", "codes")
	secret := w.enrolled("alice")
	key := newKey(t)
	if answer, ok := w.enrol(invitation, key); !ok || !answer.Accepted {
		t.Fatal(answer, ok)
	}
	if err := w.server.TryCode(key, w.code(secret, 0), w.now); err != nil {
		t.Errorf("a secret made before joining: %v", err)
	}
	// It goes with an invitation that nobody used.
	w.invited("bob", "codes")
	w.enrolled("bob")
	w.now = w.now.Add(2 * time.Hour)
	if _, err := w.server.Expire(w.now); err != nil {
		t.Fatal(err)
	}
	w.open()
	bob := w.member("bob", "codes")
	if err := w.server.TryCode(bob, "000000", w.now); !errors.Is(err, errNoSecret) {
		t.Errorf("a secret outlives its invitation: %v", err)
	}
}

func TestSignInConfig(t *testing.T) {
	for name, s := range map[string]SignIn{
		"neither": {Lasts: time.Hour}, "both": {Lasts: time.Hour, Codes: true, Provider: "x"}, "short": {Lasts: time.Second, Codes: true},
		"long": {Lasts: 2 * MaxSignIn, Codes: true},
	} {
		c := office(t)
		c.SignIns = map[string]SignIn{"staff": s}
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), "staff") {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := office(t)
	c.SignIns = map[string]SignIn{"nobody": {Lasts: time.Hour, Codes: true}}
	if err := c.Check(); err == nil {
		t.Error("a group that is none")
	}
}

func TestSignInDocuments(t *testing.T) {
	for _, s := range []SignInState{
		{Step: SignInCode}, {Step: SignInCode, Note: "why"}, {Step: SignInBegin}, {Step: SignInDone, Lasts: time.Hour},
		{Step: SignInVisit, URL: "https://id.example.net/device", UserCode: "ABCD-EFGH", Complete: "https://id.example.net/device?c=ABCD-EFGH", Lasts: time.Minute},
	} {
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeSignInState(b); err != nil || got != s {
			t.Errorf("%+v came back as %+v, %v", s, got, err)
		}
	}
	for _, s := range []SignInState{
		{}, {Step: 5}, {Step: SignInCode, URL: "x"}, {Step: SignInVisit}, {Step: SignInVisit, URL: "https://x"}, {Step: SignInVisit, URL: "https://x", UserCode: "\x1b[2J"},
		{Step: SignInVisit, URL: strings.Repeat("x", MaxURL+1), UserCode: "x"}, {Step: SignInCode, Lasts: time.Second}, {Step: SignInDone, Lasts: time.Millisecond},
		{Step: SignInDone, Lasts: -time.Second}, {Step: SignInDone, Lasts: MaxSignIn + time.Second}, {Step: SignInCode, Note: "a\nb"}, {Step: SignInDone, Complete: "x"},
	} {
		if b, err := s.Encode(); err == nil {
			t.Errorf("%+v is written as %x", s, b)
		}
	}
	for _, text := range []string{"", "00", "a10101", "a201010200", "a201010205", "a20101021901ff", "a3010102040600", "a3010102041bffffffffffffffff", "a201020201"} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := DecodeSignInState(b); err == nil {
			t.Errorf("%s is read as %+v", text, s)
		}
	}
	for _, a := range []SignInAnswer{{}, {"123456"}} {
		b, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeSignInAnswer(b); err != nil || got != a {
			t.Errorf("%+v came back as %+v, %v", a, got, err)
		}
	}
	for _, code := range []string{strings.Repeat("1", MaxCode+1), "1\n"} {
		if _, err := (&SignInAnswer{code}).Encode(); err == nil {
			t.Errorf("%q is taken", code)
		}
	}
}

func FuzzSignIn(f *testing.F) {
	for _, s := range []SignInState{{Step: SignInCode, Note: "why"}, {Step: SignInDone, Lasts: time.Hour}, {Step: SignInVisit, URL: "https://x", UserCode: "A", Complete: "https://x?A", Lasts: time.Minute}} {
		b, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	b, err := (&SignInAnswer{"123456"}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSignInState(b); err == nil {
			if again, err := s.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%x is read, and written as %x, %v", b, again, err)
			}
		}
		if a, err := DecodeSignInAnswer(b); err == nil {
			if again, err := a.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%x is read, and written as %x, %v", b, again, err)
			}
		}
	})
}
