package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/server"
	"culvert/server/oidc"
	"culvert/server/oidc/oidctest"
)

// inMemory is a provider that is asked without a network.
type inMemory struct{ http.Handler }

func (p inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	answer := httptest.NewRecorder()
	p.ServeHTTP(answer, r)
	return answer.Result(), nil
}

// The requests of a flow are done when they are due, and it ends with its context.
func TestDrive(t *testing.T) {
	const issuer = "https://id.example.net"
	begin := func(t *testing.T) (*oidctest.Provider, *oidc.Flow) {
		p, err := oidctest.New(issuer, "culvert", time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return p, oidc.Begin(&oidc.Config{Issuer: issuer, ClientID: "culvert"}, "n", time.Now())
	}
	run := func(ctx context.Context, p *oidctest.Provider, f *oidc.Flow) (lock *sync.Mutex, changes *int, ended chan struct{}) {
		lock, changes, ended = new(sync.Mutex), new(int), make(chan struct{})
		go func() {
			defer close(ended)
			drive(ctx, lock, f, func(ctx context.Context, r oidc.Request) (int, []byte, error) { return request(ctx, inMemory{p}, r) }, func() { *changes++ })
		}()
		return lock, changes, ended
	}
	t.Run("to the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, f := begin(t)
			lock, changes, ended := run(t.Context(), p, f)
			synctest.Wait()
			lock.Lock()
			v, ok := f.Visit()
			lock.Unlock()
			if !ok || *changes != 1 {
				t.Fatalf("nobody is told where to go: %d changes", *changes)
			}
			time.Sleep(12 * time.Second)
			if n := p.Requests(oidctest.Token); n != 2 {
				t.Errorf("asked %d times in 12 s", n)
			}
			p.Approve(v.UserCode, map[string]any{"sub": "1"})
			began := time.Now()
			<-ended
			who, err, over := f.Done()
			if !over || err != nil || who.Subject != "1" || time.Since(began) != 3*time.Second || *changes != 2 {
				t.Errorf("%+v, %v, after %v, %d changes", who, err, time.Since(began), *changes)
			}
		})
	})
	t.Run("nobody comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, f := begin(t)
			began := time.Now()
			_, _, ended := run(t.Context(), p, f)
			<-ended
			if _, err, _ := f.Done(); !errors.Is(err, oidc.ErrExpired) || time.Since(began) != 10*time.Minute || p.Requests(oidctest.Token) != 119 {
				t.Errorf("%v after %v and %d requests", err, time.Since(began), p.Requests(oidctest.Token))
			}
		})
	})
	t.Run("the tunnel ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, f := begin(t)
			ctx, cancel := context.WithCancel(t.Context())
			_, _, ended := run(ctx, p, f)
			time.Sleep(7 * time.Second)
			began := time.Now()
			cancel()
			<-ended
			if time.Since(began) != 0 {
				t.Errorf("it took %v", time.Since(began))
			}
		})
	})
}

// A user signs in at a provider: what becomes of it, and what a client gains that begins again and again.
func TestVisits(t *testing.T) {
	const issuer = "https://id.example.net"
	synctest.Test(t, func(t *testing.T) {
		provider, err := oidctest.New(issuer, "culvert", time.Now)
		if err != nil {
			t.Fatal(err)
		}
		g := newGuarded(t, issuer)
		g.live.role.changing.Lock()
		g.live.role.provider = func(*config.OIDC) http.RoundTripper { return inMemory{provider} }
		g.live.role.changing.Unlock()
		c := g.join(2)
		if s := c.last(); s.Step != server.SignInBegin || provider.Requests(oidctest.Discovery) != 0 {
			t.Fatalf("told %+v", s)
		}
		if s := c.sends("123456"); s.Step != server.SignInBegin || s.Note == "" {
			t.Errorf("a code where none is asked for: %+v", s)
		}
		s := c.sends("")
		if s.Step != server.SignInVisit || s.URL != issuer+"/device" || s.Lasts < 9*time.Minute || s.Lasts > 10*time.Minute {
			t.Fatalf("begun: %+v", s)
		}
		for range 200 {
			c.push(server.SubjectSignInAnswer, []byte{0xa1, 1, 1})
			time.Sleep(20 * time.Millisecond)
		}
		if n := provider.Requests(oidctest.Device); n != 1 {
			t.Errorf("a flood begins %d sign-ins", n)
		}
		c.passes(false)

		alice := map[string]any{"sub": "1", "email": "alice@example.net", "email_verified": true}
		wait := func(step server.SignInStep) server.SignInState {
			t.Helper()
			time.Sleep(30 * time.Second)
			s := c.last()
			if s.Step != step {
				t.Fatalf("told %+v, want %d", s, step)
			}
			c.passes(step == server.SignInDone)
			return s
		}
		// Denied; not known to be her address; of another domain; nobody comes.
		for want, how := range map[string]func(code string){
			oidc.ErrDenied.Error(): func(code string) { provider.Deny(code) },
			"may not sign in here": func(code string) {
				provider.Approve(code, map[string]any{"sub": "1", "email": "alice@example.net", "email_verified": false})
			},
			oidc.ErrNotAllowed.Error(): func(code string) {
				provider.Approve(code, map[string]any{"sub": "1", "email": "a@example.net.example.org", "email_verified": true})
			},
			"is for somebody else":  func(code string) { provider.Approve(code, map[string]any{"sub": "1", "aud": "other"}) },
			"its nonce is another":  func(code string) { provider.Approve(code, map[string]any{"sub": "1", "nonce": "of another sign-in"}) },
			oidc.ErrExpired.Error(): func(string) { time.Sleep(10 * time.Minute) },
		} {
			s := c.last()
			if s.Step == server.SignInBegin {
				s = c.sends("")
			}
			if s.Step != server.SignInVisit {
				t.Fatalf("told %+v", s)
			}
			how(s.UserCode)
			if s := wait(server.SignInBegin); !strings.Contains(s.Note, want) || !strings.Contains(g.audit.String(), `"why":"sign-in: `) {
				t.Errorf("told %+v, want %q", s, want)
			}
		}

		s = c.sends("")
		provider.Approve(s.UserCode, alice)
		if s := wait(server.SignInDone); s.Lasts < 59*time.Minute {
			t.Errorf("%+v", s)
		}
		if !strings.Contains(g.audit.String(), `"by":"oidc `+issuer+` alice@example.net"`) {
			t.Error(g.audit.String())
		}
		time.Sleep(time.Hour)
		c.passes(false)
		if s := c.last(); s.Step != server.SignInBegin || s.Note != "" {
			t.Errorf("when the time is up: %+v", s)
		}

		// The file changes while the user is at the provider: what holds at the end counts.
		s = c.sends("")
		conf := g.live.conf
		changed := *conf.Server
		changed.Groups = slices.Clone(changed.Groups)
		signIn := *changed.Groups[0].SignIn
		changed.Groups[0].SignIn = &signIn
		signIn.OIDC = &config.OIDC{Issuer: issuer, ClientID: "culvert", Emails: []string{"bob@example.net"}}
		conf.Server = &changed
		if _, err := g.live.reload(t.Context(), g.live.file, conf); err != nil {
			t.Fatal(err)
		}
		provider.Approve(s.UserCode, alice)
		wait(server.SignInBegin)

		// Another provider meanwhile: the old one's word counts for nothing, and the user is sent to the new one at once.
		s = c.sends("")
		moved := changed
		moved.Groups = slices.Clone(changed.Groups)
		elsewhere := signIn
		elsewhere.OIDC = &config.OIDC{Issuer: issuer, ClientID: "culvert-2", Emails: []string{"*@example.net"}}
		moved.Groups[0].SignIn = &elsewhere
		conf.Server = &moved
		if _, err := g.live.reload(t.Context(), g.live.file, conf); err != nil {
			t.Fatal(err)
		}
		provider.Approve(s.UserCode, alice)
		wait(server.SignInBegin)
		conf.Server = &changed
		if _, err := g.live.reload(t.Context(), g.live.file, conf); err != nil {
			t.Fatal(err)
		}

		// The network fails: it is tried no more than every ten seconds, and the client is not told what is around the server.
		g.live.role.changing.Lock()
		var tries atomic.Int64
		g.live.role.provider = func(*config.OIDC) http.RoundTripper {
			return unreachable{&tries}
		}
		g.live.role.changing.Unlock()
		for range 600 {
			c.push(server.SubjectSignInAnswer, []byte{0xa1, 1, 1})
			time.Sleep(100 * time.Millisecond)
		}
		if n := tries.Load(); n < 2 || n > 7 {
			t.Errorf("in a minute it is tried %d times", n)
		}
		time.Sleep(visitEvery)
		if s := c.sends(""); s.Step != server.SignInBegin || s.Note != oidc.ErrUnreached.Error() {
			t.Errorf("the provider is not reached: %+v", s)
		}

		// Revoked while it waits.
		if err := g.live.keepClients(&control.ClientsRequest{Do: control.DoRevoke, Name: "c2"}, &control.ClientsAnswer{}); err != nil {
			t.Fatal(err)
		}
		g.live.role.changing.Lock()
		if n := len(g.live.role.server.visits); n != 0 {
			t.Errorf("%d sign-ins are left of who is no client", n)
		}
		g.live.role.changing.Unlock()
	})
}

type unreachable struct{ tries *atomic.Int64 }

func (u unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	u.tries.Add(1)
	return nil, errors.New("dial tcp 10.99.0.1:443: no route to host")
}
