package oidc

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Flow is one sign-in, from the first request to who the user is:
//
//	discover   GET the issuer's configuration (OpenID Connect Discovery section 4)   -> authorize
//	authorize  POST for a device code (RFC 8628 section 3.1)                         -> poll: the user is to visit a page
//	poll       POST for the token, every Interval (section 3.4):
//	             authorization_pending -> poll;  slow_down -> poll, 5 s less often;  an error of the network -> poll, half as often
//	             access_denied, expired_token, any other error -> failed;  a token -> keys
//	keys       GET the provider's keys (RFC 7517), and verify the token              -> done
//
// A request that fails is tried again while there is time, but for a first one, which fails the flow. The flow fails when the device code
// expires, or after MaxTime.
type Flow struct {
	config *Config
	nonce  string
	stage  stage
	begun  time.Time
	next   time.Time // of the next request
	ends   time.Time

	metadata struct{ device, token, keys string }
	device   string // the device code: a secret
	interval time.Duration
	visit    Visit
	idToken  string
	tries    int // of fetching the keys

	who *Identity
	err error
}

type stage uint8

const (
	discover stage = iota
	authorize
	poll
	keys
	done
	failed
)

// Times of a flow.
const (
	DefaultInterval = 5 * time.Second // RFC 8628 section 3.2
	slowDown        = 5 * time.Second // section 3.5
	maxInterval     = 5 * time.Minute
	MaxTime         = 30 * time.Minute // of a device code
	setupTime       = time.Minute      // until the user is told where to go
	maxKeyTries     = 3
)

// Visit is what the user is told.
type Visit struct {
	URL      string
	UserCode string
	Complete string    // with the code in it; "" where the provider has none
	Expires  time.Time // of the code
}

// Request is an HTTP request. There is nothing in it that may be logged: a body has secrets.
type Request struct {
	URL  string
	Form url.Values // of a POST, application/x-www-form-urlencoded; nil is a GET
	User string     // of HTTP's basic authentication (RFC 6749 section 2.3.1); "" for none
	Pass string
}

// Errors by which a flow ends.
var (
	ErrDenied  = errors.New("the provider was told not to let you in")
	ErrExpired = errors.New("nobody signed in at the provider in time")
	// ErrUnreached comes with the network's own error, which is for the server's log and not for its clients.
	ErrUnreached = errors.New("the provider is not reached")
)

// Begin begins a sign-in. nonce is unpredictable, and of this one alone.
func Begin(c *Config, nonce string, now time.Time) *Flow {
	return &Flow{config: c, nonce: nonce, begun: now, next: now, ends: now.Add(setupTime), interval: DefaultInterval}
}

// Done reports whether the flow is over: who the user is, or why it failed.
func (f *Flow) Done() (who *Identity, err error, over bool) { return f.who, f.err, f.stage >= done }

// Visit is what the user is told; false before it is known, and when the flow is over.
func (f *Flow) Visit() (Visit, bool) { return f.visit, f.stage == poll || f.stage == keys }

// Next is the next request, and when to do it. It must not be called once the flow is over.
func (f *Flow) Next() (r Request, at time.Time) {
	switch f.stage {
	case discover:
		r.URL = strings.TrimSuffix(f.config.Issuer, "/") + "/.well-known/openid-configuration"
	case authorize:
		scopes := append([]string{"openid"}, slices.DeleteFunc(slices.Clone(f.config.Scopes), func(s string) bool { return s == "openid" })...)
		r = f.post(f.metadata.device, url.Values{"scope": {strings.Join(scopes, " ")}, "nonce": {f.nonce}})
	case poll:
		r = f.post(f.metadata.token, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {f.device}})
	case keys:
		r.URL = f.metadata.keys
	}
	return r, f.next
}

func (f *Flow) post(to string, form url.Values) Request {
	r := Request{URL: to, Form: form}
	form.Set("client_id", f.config.ClientID)
	if f.config.ClientSecret != "" {
		r.User, r.Pass = url.QueryEscape(f.config.ClientID), url.QueryEscape(f.config.ClientSecret)
	}
	return r
}

// Abandon ends the flow before it has begun.
func (f *Flow) Abandon() { f.fail(ErrExpired) }

// Expire fails the flow where its time is up, and reports whether it did.
func (f *Flow) Expire(now time.Time) bool {
	if f.stage >= done || now.Before(f.ends) {
		return false
	}
	f.fail(ErrExpired)
	return true
}

// Ends is when Expire has something to do.
func (f *Flow) Ends() time.Time { return f.ends }

func (f *Flow) fail(err error) { f.stage, f.err, f.device, f.idToken = failed, err, "", "" }

// Answer takes the answer to the last request: an HTTP status and a body of at most MaxAnswer bytes, or the error of the network.
func (f *Flow) Answer(status int, body []byte, err error, now time.Time) {
	if f.stage >= done || f.Expire(now) {
		return
	}
	if err == nil && len(body) > MaxAnswer {
		err = errors.New("the provider's answer is too long")
	}
	switch f.stage {
	case discover:
		f.discovered(status, body, err, now)
	case authorize:
		f.authorized(status, body, err, now)
	case poll:
		f.polled(status, body, err, now)
	case keys:
		f.verified(status, body, err, now)
	}
}

// discovered takes the issuer's configuration. It has to name the issuer that was asked (OpenID Connect Discovery section 4.3).
func (f *Flow) discovered(status int, body []byte, err error, now time.Time) {
	o, ok := parseObject(body)
	switch {
	case err != nil:
		f.fail(fmt.Errorf("%w: %w", ErrUnreached, err))
		return
	case status != http.StatusOK || !ok:
		f.fail(fmt.Errorf("the provider's configuration is not to be had (HTTP status %d)", status))
		return
	case o.text("issuer", maxURL) != f.config.Issuer:
		f.fail(errors.New("the provider calls itself by another issuer"))
		return
	}
	m := &f.metadata
	m.device, m.token, m.keys = o.text("device_authorization_endpoint", maxURL), o.text("token_endpoint", maxURL), o.text("jwks_uri", maxURL)
	if m.device == "" {
		f.fail(errors.New("the provider has no device authorization (RFC 8628)"))
		return
	}
	for _, u := range []string{m.device, m.token, m.keys} {
		if err := secureURL(u); err != nil {
			f.fail(fmt.Errorf("the provider's configuration: %w", err))
			return
		}
	}
	f.stage, f.next = authorize, now
}

func (f *Flow) authorized(status int, body []byte, err error, now time.Time) {
	o, ok := parseObject(body)
	switch {
	case err != nil:
		f.fail(fmt.Errorf("%w: %w", ErrUnreached, err))
		return
	case status != http.StatusOK || !ok:
		f.fail(refusal(status, o))
		return
	}
	f.device = o.text("device_code", maxCode)
	f.visit = Visit{URL: o.text("verification_uri", maxURL), UserCode: o.text("user_code", maxUserCode), Complete: o.text("verification_uri_complete", maxURL)}
	if f.visit.URL == "" { // of drafts of RFC 8628, which some providers still follow
		f.visit.URL = o.text("verification_url", maxURL)
	}
	expires, okExpires := o.number("expires_in")
	if f.device == "" || f.visit.UserCode == "" || secureURL(f.visit.URL) != nil || !okExpires || expires <= 0 {
		f.fail(errors.New("the provider's answer to a device is malformed"))
		return
	}
	if secureURL(f.visit.Complete) != nil {
		f.visit.Complete = ""
	}
	if n, ok := o.number("interval"); ok && n > 0 {
		f.interval = max(time.Second, min(time.Duration(min(n, 1e6)*float64(time.Second)), maxInterval))
	}
	f.ends = now.Add(min(time.Duration(min(expires, 1e6)*float64(time.Second)), MaxTime))
	f.visit.Expires = f.ends
	f.stage, f.next = poll, now.Add(f.interval)
}

func (f *Flow) polled(status int, body []byte, err error, now time.Time) {
	o, ok := parseObject(body)
	if err != nil || !ok || status >= 500 { // RFC 8628 section 3.5: less often
		f.interval = min(2*f.interval, maxInterval)
		f.next = now.Add(f.interval)
		return
	}
	if status != http.StatusOK {
		switch o.text("error", 64) {
		case "authorization_pending":
		case "slow_down":
			f.interval = min(f.interval+slowDown, maxInterval)
		case "access_denied":
			f.fail(ErrDenied)
			return
		case "expired_token":
			f.fail(ErrExpired)
			return
		default:
			f.fail(refusal(status, o))
			return
		}
		f.next = now.Add(f.interval)
		return
	}
	if f.idToken = o.text("id_token", maxToken); f.idToken == "" {
		f.fail(errors.New("the provider has sent no ID token"))
		return
	}
	f.device, f.stage, f.next = "", keys, now
}

func (f *Flow) verified(status int, body []byte, err error, now time.Time) {
	set, ok := parseKeys(body)
	if err != nil || status != http.StatusOK || !ok {
		if f.tries++; f.tries == maxKeyTries {
			f.fail(errors.New("the provider's keys are not to be had"))
			return
		}
		f.next = now.Add(time.Second)
		return
	}
	who, err := f.config.verify(f.idToken, set, f.nonce, now)
	if err != nil {
		f.fail(err)
		return
	}
	f.stage, f.who, f.idToken = done, who, ""
}

// refusal words an error of RFC 6749 section 5.2.
func refusal(status int, o object) error {
	if code := o.text("error", 64); code != "" {
		return fmt.Errorf("the provider refuses: %s", code)
	}
	return fmt.Errorf("the provider refuses (HTTP status %d)", status)
}
