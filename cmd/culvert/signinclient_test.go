package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/server"
)

func TestSignInView(t *testing.T) {
	v := &signInView{}
	if s, pulled := v.status(); s != nil || pulled {
		t.Error(s, pulled)
	}
	is := func(state, text string) {
		t.Helper()
		s, _ := v.status()
		if s == nil || s.State != state || signInText("vpn", s) != text {
			t.Errorf("%+v, %q", s, signInText("vpn", s))
		}
	}
	begin := server.SignInState{Step: server.SignInBegin}
	next := v.next()
	if !v.take(crypto.PublicKey{1}, begin, goldenNow) {
		t.Error("it does not begin by itself")
	}
	select {
	case <-next:
	default:
		t.Error("whoever waits is not told")
	}
	is(control.SignInBegin, "waits for sign-in (culvert signin vpn)")
	v.take(crypto.PublicKey{1}, server.SignInState{Step: server.SignInVisit, URL: "https://x", UserCode: "AB", Complete: "https://x?AB", Lasts: time.Minute}, goldenNow)
	is(control.SignInVisit, "waits for sign-in (open https://x and enter AB, or open https://x?AB)")
	if s, _ := v.status(); !s.Until.Equal(second(goldenNow.Add(time.Minute))) {
		t.Error(s.Until)
	}
	begin.Note = "nobody came"
	if v.take(crypto.PublicKey{1}, begin, goldenNow) {
		t.Error("it begins by itself again though nobody came")
	}
	is(control.SignInBegin, "waits for sign-in (culvert signin vpn); nobody came")
	v.take(crypto.PublicKey{1}, server.SignInState{Step: server.SignInDone, Lasts: time.Hour}, goldenNow)
	v.configured(crypto.PublicKey{1})
	is(control.SignInDone, "done, until "+goldenNow.Add(time.Hour).Local().Format(time.DateTime))
	if !v.take(crypto.PublicKey{1}, server.SignInState{Step: server.SignInBegin}, goldenNow) {
		t.Error("when it is asked for again it does not begin by itself")
	}
	// Of several servers the one that waits is shown, and another's word does not end that.
	if v.take(crypto.PublicKey{2}, server.SignInState{Step: server.SignInDone, Lasts: time.Hour}, goldenNow); v.server() != (crypto.PublicKey{1}) {
		t.Error("another server's is shown")
	}
	v.configured(crypto.PublicKey{2})
	is(control.SignInBegin, "waits for sign-in (culvert signin vpn)")
	v.configured(crypto.PublicKey{1}) // the server asks for none any more
	if s, pulled := v.status(); s != nil || !pulled {
		t.Error(s, pulled)
	}
}

func TestReadCode(t *testing.T) {
	for in, want := range map[string]string{"123456\n": "123456", " 123 456 \nmore\n": "123456", "123456": "123456", "": "", "\n123456": "", strings.Repeat("1", 200): "", "12345678901234567\n": ""} {
		p := newProgram(strings.NewReader(in), &bytes.Buffer{}, &bytes.Buffer{})
		got, err := p.readCode("-")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is read as %q, %v", in, got, err)
		}
		if err != nil && in != "" && strings.Contains(err.Error(), strings.TrimSpace(in)) {
			t.Errorf("the error holds what was read: %v", err)
		}
	}
	p := newProgram(errorReader{}, &bytes.Buffer{}, &bytes.Buffer{})
	if _, err := p.readCode("-"); !errors.Is(err, errInjected) {
		t.Error(err)
	}
	if _, err := p.readCode("/nonexistent"); err == nil {
		t.Error("a file that is not there")
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errInjected }
