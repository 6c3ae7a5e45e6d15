package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"culvert/config"
	"culvert/crypto"
	"culvert/server"
	"culvert/server/oidc"
)

// visit is one sign-in of a client's user at a provider, or the last one, which failed. The tunnel's changing guards it.
type visit struct {
	flow   *oidc.Flow
	issuer string // at which provider
	as     string // as which client of it
	begun  time.Time
	note   string // why it failed
	cancel context.CancelFunc
}

const (
	// maxVisits is how many sign-ins at providers are under way at once, of one tunnel.
	maxVisits = 256
	// visitEvery is how soon after one sign-in began a client may begin another.
	visitEvery = 10 * time.Second
	// requestTime bounds one request to a provider.
	requestTime = 20 * time.Second
)

// state is what the client is told of it.
func (v *visit) state(now time.Time) server.SignInState {
	s := server.SignInState{Step: server.SignInBegin, Note: v.note}
	if at, ok := v.flow.Visit(); ok {
		s = server.SignInState{Step: server.SignInVisit, URL: at.URL, UserCode: at.UserCode, Complete: at.Complete,
			Lasts: max(at.Expires.Sub(now).Truncate(time.Second), 0)}
	}
	return s
}

// over reports whether it is.
func (v *visit) over() bool {
	_, _, over := v.flow.Done()
	return over
}

// oidcConfig is the provider of a group, as the file has it.
func oidcConfig(conf *config.Tunnel, group string) (*oidc.Config, *config.OIDC) {
	for i := range conf.Server.Groups {
		g := &conf.Server.Groups[i]
		if g.Name != group || g.SignIn == nil || g.SignIn.OIDC == nil {
			continue
		}
		o := g.SignIn.OIDC
		c := &oidc.Config{
			Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: o.ClientSecret.Value, Scopes: o.Scopes, Emails: o.Emails, Subjects: o.Subjects,
			Groups: o.Groups, GroupsClaim: o.GroupsClaim, RequireNonce: o.RequireNonce, SameName: o.SameName,
		}
		if c.Scopes == nil {
			c.Scopes = []string{"email"}
		}
		if c.GroupsClaim == "" {
			c.GroupsClaim = "groups"
		}
		return c, o
	}
	return nil, nil
}

// beginVisit begins a sign-in at the provider of a client's group, unless one is under way. The tunnel's changing is locked.
func (t *liveTunnel) beginVisit(ctx context.Context, client crypto.PublicKey, now time.Time) {
	s := t.role.server
	t.forgetVisits()
	before := s.visits[client]
	if before != nil && !before.over() {
		return
	}
	if before != nil && now.Sub(before.begun) < visitEvery {
		before.note = "wait a moment before you try again"
		return
	}
	under := 0
	for _, v := range s.visits {
		if !v.over() {
			under++
		}
	}
	_, group, _ := s.server.Group(client)
	c, o := oidcConfig(&t.conf, group)
	if c == nil {
		return
	}
	v := &visit{flow: oidc.Begin(c, rand.Text(), now), issuer: c.Issuer, as: c.ClientID, begun: now}
	if under >= maxVisits {
		v.flow.Abandon()
		v.note = "too many users sign in at once; try again in a minute"
		v.cancel = func() {}
		s.visits[client] = v
		return
	}
	ctx, v.cancel = context.WithCancel(ctx)
	s.visits[client] = v
	t.role.workers.Go(func() {
		defer v.cancel()
		by := t.role.provider(o)
		if idle, ok := by.(interface{ CloseIdleConnections() }); ok {
			defer idle.CloseIdleConnections()
		}
		drive(ctx, &t.role.changing, v.flow, func(ctx context.Context, r oidc.Request) (int, []byte, error) { return request(ctx, by, r) },
			func() { t.visited(client, v) })
	})
}

// drive does a flow's requests until it is over, or ctx is. The flow is touched with the lock alone; changed is called with it when the
// user is to visit a page, and when it is over.
func drive(ctx context.Context, lock sync.Locker, flow *oidc.Flow, do func(context.Context, oidc.Request) (int, []byte, error), changed func()) {
	for {
		lock.Lock()
		r, at := flow.Next()
		ends := flow.Ends()
		lock.Unlock()
		if ends.Before(at) {
			at = ends
		}
		timer := time.NewTimer(time.Until(at))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		var status int
		var body []byte
		var err error
		if time.Now().Before(ends) {
			status, body, err = do(ctx, r)
		}
		if ctx.Err() != nil {
			return
		}
		lock.Lock()
		_, before := flow.Visit()
		flow.Answer(status, body, err, time.Now())
		_, visit := flow.Visit()
		_, _, over := flow.Done()
		if over || visit != before {
			changed()
		}
		lock.Unlock()
		if over {
			return
		}
	}
}

// visited makes of a sign-in what it has come to. The tunnel's changing is locked.
func (t *liveTunnel) visited(client crypto.PublicKey, v *visit) {
	s, now := t.role.server, time.Now()
	if s.visits[client] != v {
		return
	}
	who, err, over := v.flow.Done()
	if over {
		name, group, _ := s.server.Group(client)
		c, _ := oidcConfig(&t.conf, group) // as it is now
		if err == nil {
			err = errors.New("the server asks for another second factor now")
			if v.isAt(c) {
				err = c.Allowed(who, name)
			}
		}
		as := ""
		if who != nil {
			as = who.String()
		}
		if err == nil {
			err = s.server.SignedIn(client, v.issuer, as, now)
		} else {
			s.server.RefuseSignIn(client, strings.TrimSpace(err.Error()+" "+as), now)
		}
		if err != nil {
			t.log.Warn("a client's user could not sign in", "client", name, "error", err)
			v.note = noteOf(err)
		} else {
			delete(s.visits, client)
			t.holdOne(client)
		}
	}
	t.tell(client, true)
}

// noteOf words an error for a client: what the network says is not for it.
func noteOf(err error) string {
	text := err.Error()
	if errors.Is(err, oidc.ErrUnreached) {
		text = oidc.ErrUnreached.Error()
	}
	if (&server.SignInState{Step: server.SignInBegin, Note: text}).Check() != nil {
		text = "the sign-in failed"
	}
	return text
}

// isAt reports whether a sign-in is at a provider; nil is none.
func (v *visit) isAt(c *oidc.Config) bool {
	return c != nil && c.Issuer == v.issuer && c.ClientID == v.as
}

// forgetVisits ends those of clients that are no more, or sign in elsewhere now. The tunnel's changing is locked.
func (t *liveTunnel) forgetVisits() {
	for client, v := range t.role.server.visits {
		_, group, ok := t.role.server.server.Group(client)
		if c, _ := oidcConfig(&t.conf, group); !ok || !v.isAt(c) {
			v.cancel()
			delete(t.role.server.visits, client)
		}
	}
}

// transportTo is the way to a provider.
func transportTo(o *config.OIDC) http.RoundTripper {
	tr := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: requestTime, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if o.Authority != nil {
		tr.TLSClientConfig.RootCAs = o.Authority.Pool
	}
	return tr
}

// request does one request to a provider. Redirections are not followed: a request may have secrets in it.
func request(ctx context.Context, by http.RoundTripper, r oidc.Request) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	method, content := http.MethodGet, []byte(nil)
	if r.Form != nil {
		method, content = http.MethodPost, []byte(r.Form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, r.URL, bytes.NewReader(content))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", agent())
	if r.Form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if r.User != "" {
		req.SetBasicAuth(r.User, r.Pass)
	}
	resp, err := by.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, oidc.MaxAnswer+1))
	return resp.StatusCode, body, err
}
