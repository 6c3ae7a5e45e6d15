package oidc_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"culvert/server/oidc"
	"culvert/server/oidc/oidctest"
)

const issuer = "https://id.example.net"

// world is a provider, a server's configuration for it, and the time.
type world struct {
	t        *testing.T
	provider *oidctest.Provider
	config   oidc.Config
	now      time.Time
	broken   error // of the network
	sent     []string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Unix(1_800_000_000, 0), config: oidc.Config{Issuer: issuer, ClientID: "culvert", Scopes: []string{"email", "groups"}, GroupsClaim: "groups"}}
	var err error
	if w.provider, err = oidctest.New(issuer, "culvert", func() time.Time { return w.now }); err != nil {
		t.Fatal(err)
	}
	return w
}

// step does the flow's next request when it is due.
func (w *world) step(f *oidc.Flow) {
	w.t.Helper()
	r, at := f.Next()
	if at.After(w.now) {
		w.now = at
	}
	if w.broken != nil {
		f.Answer(0, nil, w.broken, w.now)
		return
	}
	method := http.MethodGet
	if r.Form != nil {
		method = http.MethodPost
	}
	req := httptest.NewRequest(method, r.URL, strings.NewReader(r.Form.Encode()))
	if r.Form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if r.User != "" {
		req.SetBasicAuth(r.User, r.Pass)
	}
	w.sent = append(w.sent, r.URL+"?"+r.Form.Encode())
	answer := httptest.NewRecorder()
	w.provider.ServeHTTP(answer, req)
	f.Answer(answer.Code, answer.Body.Bytes(), nil, w.now)
}

// visit goes on until the user is to visit a page.
func (w *world) visit(f *oidc.Flow) oidc.Visit {
	w.t.Helper()
	w.step(f)
	w.step(f)
	v, ok := f.Visit()
	if !ok {
		_, err, _ := f.Done()
		w.t.Fatalf("nobody is sent anywhere: %v", err)
	}
	return v
}

// end goes on until the flow is over.
func (w *world) end(f *oidc.Flow) (*oidc.Identity, error) {
	w.t.Helper()
	for range 1000 {
		if who, err, over := f.Done(); over {
			return who, err
		}
		w.step(f)
	}
	w.t.Fatal("the flow does not end")
	return nil, nil
}

var alice = map[string]any{"sub": "24400320", "email": "alice@example.net", "email_verified": true, "groups": []string{"staff", "vpn"}}

func TestFlow(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"RS256":           func(w *world) {},
		"ES256":           func(w *world) { w.provider.Algorithm = "ES256" },
		"with a secret":   func(w *world) { w.provider.ClientSecret, w.config.ClientSecret = "s p%c", "s p%c" },
		"without a nonce": func(w *world) { w.provider.NoNonce = true },
		"one key, no id": func(w *world) {
			w.provider.Change = func(path string, status int, answer map[string]any) int {
				if path == oidctest.Keys {
					delete(answer["keys"].([]any)[0].(map[string]any), "kid")
					delete(answer["keys"].([]any)[1].(map[string]any), "kid")
				} else if _, has := answer["id_token"]; has {
					answer["id_token"] = w.provider.Sign(map[string]any{"alg": "RS256"}, w.claims(alice))
				}
				return status
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			change(w)
			if w.config.ClientSecret != "" {
				w.provider.ClientSecret = url.QueryEscape(w.config.ClientSecret) // as RFC 6749 section 2.3.1 has it sent
			}
			f := oidc.Begin(&w.config, "the-nonce", w.now)
			v := w.visit(f)
			if v.URL != issuer+"/device" || v.Complete != issuer+"/device?user_code="+v.UserCode || !v.Expires.Equal(w.now.Add(10*time.Minute)) {
				t.Errorf("%+v", v)
			}
			for range 3 {
				w.step(f)
			}
			if _, _, over := f.Done(); over {
				t.Fatal("over before the user has done anything")
			}
			w.provider.Approve(v.UserCode, alice)
			who, err := w.end(f)
			if err != nil || who.Subject != "24400320" || who.Email != "alice@example.net" || len(who.Groups) != 2 || who.String() != "alice@example.net" {
				t.Fatalf("%+v, %v", who, err)
			}
			if !strings.Contains(w.sent[1], "scope=openid+email+groups") || !strings.Contains(w.sent[1], "nonce=the-nonce") {
				t.Error(w.sent[1])
			}
			for _, s := range w.sent {
				if w.config.ClientSecret != "" && strings.Contains(s, "s+p") {
					t.Errorf("the client's secret is in a form: %s", s)
				}
			}
		})
	}
}

// claims are those of a right token now.
func (w *world) claims(change map[string]any) map[string]any {
	c := map[string]any{"iss": issuer, "aud": "culvert", "exp": w.now.Add(time.Minute).Unix(), "iat": w.now.Unix(), "nonce": "the-nonce", "sub": "24400320"}
	for k, v := range change {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

// The provider's wishes are followed: it is asked every 5 s, or as it says, and each slow_down adds 5 s.
func TestPolling(t *testing.T) {
	w := newWorld(t)
	f := oidc.Begin(&w.config, "n", w.now)
	began := w.now
	w.visit(f)
	gaps := func(n int) (list []time.Duration) {
		for range n {
			before := w.now
			w.step(f)
			list = append(list, w.now.Sub(before)/time.Second)
		}
		return list
	}
	if !w.now.Equal(began) {
		t.Errorf("it took %v to be told where to go", w.now.Sub(began))
	}
	same := func(got []time.Duration, want ...time.Duration) {
		t.Helper()
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("asked after %d s, want %d", got, want)
			}
		}
	}
	same(gaps(3), 5, 5, 5)
	w.provider.Change = func(path string, status int, answer map[string]any) int {
		answer["error"] = "slow_down"
		return status
	}
	same(gaps(3), 5, 10, 15)
	w.provider.Change = nil
	same(gaps(2), 20, 20)
	w.broken = errors.New("no route to host")
	same(gaps(3), 20, 40, 80)
	w.broken = nil
	w.provider.Change = func(string, int, map[string]any) int { return http.StatusBadGateway }
	same(gaps(1), 160)
	w.provider.Change = nil
	if _, err := w.end(f); !errors.Is(err, oidc.ErrExpired) || w.now.Sub(began) < 10*time.Minute {
		t.Errorf("after %v: %v", w.now.Sub(began), err)
	}
	n := w.provider.Requests(oidctest.Token)
	f.Answer(200, []byte(`{"id_token":"x"}`), nil, w.now)
	if _, err, over := f.Done(); !over || !errors.Is(err, oidc.ErrExpired) || n > 13 {
		t.Errorf("%v, %v, %d requests", err, over, n)
	}

	w.provider.Interval = 2
	f = oidc.Begin(&w.config, "n", w.now)
	w.visit(f)
	same(gaps(2), 2, 2)
}

// What a provider says that is not as it should be fails the flow, with an error that says what.
func TestFlowFails(t *testing.T) {
	set := func(at, member string, value any) func(w *world) {
		return func(w *world) {
			w.provider.Change = func(path string, status int, answer map[string]any) int {
				if path == at && status == http.StatusOK {
					if answer[member] = value; value == nil {
						delete(answer, member)
					}
				}
				return status
			}
		}
	}
	for name, c := range map[string]struct {
		change func(w *world)
		want   string
	}{
		"not reached":          {func(w *world) { w.broken = errors.New("no route to host") }, "the provider is not reached: no route to host"},
		"another issuer":       {set(oidctest.Discovery, "issuer", "https://other.example.net"), "another issuer"},
		"no device flow":       {set(oidctest.Discovery, "device_authorization_endpoint", nil), "no device authorization"},
		"a clear endpoint":     {set(oidctest.Discovery, "token_endpoint", "http://id.example.net/token"), "not an https URL"},
		"keys from a file":     {set(oidctest.Discovery, "jwks_uri", "file:///etc/passwd"), "not an https URL"},
		"an endless text":      {set(oidctest.Discovery, "issuer", strings.Repeat("x", oidc.MaxAnswer)), "not"},
		"another client":       {func(w *world) { w.provider.ClientID = "other" }, "invalid_client"},
		"no user code":         {set(oidctest.Device, "user_code", ""), "malformed"},
		"a code for terminals": {set(oidctest.Device, "user_code", "\x1b[2J"), "malformed"},
		"a clear page":         {set(oidctest.Device, "verification_uri", "http://id.example.net"), "malformed"},
		"no end":               {set(oidctest.Device, "expires_in", nil), "malformed"},
		"denied":               {func(w *world) { w.provider.Algorithm = "deny" }, oidc.ErrDenied.Error()},
		"no ID token":          {set(oidctest.Token, "id_token", nil), "no ID token"},
		"no keys":              {set(oidctest.Keys, "keys", 7), "keys are not to be had"},
		"other keys":           {set(oidctest.Keys, "keys", []any{}), "not signed by its keys"},
		"not signed":           {func(w *world) { w.provider.Algorithm = "none" }, "an algorithm other than"},
		"signed by its secret": {func(w *world) { w.provider.Algorithm = "HS256" }, "an algorithm other than"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			f := oidc.Begin(&w.config, "n", w.now)
			for range 100 {
				if v, ok := f.Visit(); ok {
					if w.provider.Algorithm == "deny" {
						w.provider.Deny(v.UserCode)
					} else {
						w.provider.Approve(v.UserCode, alice)
					}
				}
				if _, _, over := f.Done(); over {
					break
				}
				w.step(f)
			}
			if who, err, over := f.Done(); !over || who != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v, over %v; want %q", who, err, over, c.want)
			}
		})
	}
}

func TestAllowed(t *testing.T) {
	verified := &oidc.Identity{Subject: "1", Email: "Alice@Example.net", Groups: []string{"staff"}}
	other := &oidc.Identity{Subject: "2"}
	for name, c := range map[string]struct {
		config oidc.Config
		who    *oidc.Identity
		client string
		ok     bool
	}{
		"nobody":               {oidc.Config{}, verified, "alice", false},
		"by address":           {oidc.Config{Emails: []string{"alice@example.net"}}, verified, "alice", true},
		"by domain":            {oidc.Config{Emails: []string{"*@example.net"}}, verified, "alice", true},
		"by another domain":    {oidc.Config{Emails: []string{"*@ample.net", "*@net", "*@"}}, verified, "alice", false},
		"without an address":   {oidc.Config{Emails: []string{"*@example.net", ""}}, other, "alice", false},
		"by subject":           {oidc.Config{Subjects: []string{"2"}}, other, "alice", true},
		"by another subject":   {oidc.Config{Subjects: []string{"2"}}, verified, "alice", false},
		"by group":             {oidc.Config{Groups: []string{"staff"}}, verified, "alice", true},
		"by another group":     {oidc.Config{Groups: []string{"staff"}}, other, "alice", false},
		"by name":              {oidc.Config{SameName: true}, verified, "alice@example.net", true},
		"by subject as name":   {oidc.Config{SameName: true}, other, "2", true},
		"by another name":      {oidc.Config{SameName: true}, verified, "bob@example.net", false},
		"name and group":       {oidc.Config{SameName: true, Groups: []string{"staff"}}, verified, "alice@example.net", true},
		"name, not the group":  {oidc.Config{SameName: true, Groups: []string{"x"}}, verified, "alice@example.net", false},
		"group, not the name":  {oidc.Config{SameName: true, Groups: []string{"staff"}}, verified, "bob", false},
		"an empty name's user": {oidc.Config{SameName: true}, other, "", false},
		// What Unicode folds to the letters of another's name: a long s, and the sign of kelvin.
		"by a folded address": {oidc.Config{Emails: []string{"boss@example.net"}}, &oidc.Identity{Subject: "3", Email: "bo\u017fs@example.net"}, "boss", false},
		"by a folded domain":  {oidc.Config{Emails: []string{"*@bank.example"}}, &oidc.Identity{Subject: "3", Email: "a@ban\u212a.example"}, "a", false},
		"by a folded name":    {oidc.Config{SameName: true}, &oidc.Identity{Subject: "3", Email: "\u212aim@example.net"}, "kim@example.net", false},
		"by an exact address": {oidc.Config{Emails: []string{"JÖRG@example.net"}}, &oidc.Identity{Subject: "3", Email: "jÖrg@example.net"}, "j", true},
		"by the case of an Ö": {oidc.Config{Emails: []string{"jÖrg@example.net"}}, &oidc.Identity{Subject: "3", Email: "jörg@example.net"}, "j", false},
	} {
		if err := c.config.Allowed(c.who, c.client); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
