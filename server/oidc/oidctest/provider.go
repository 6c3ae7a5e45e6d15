// Package oidctest is a provider of OpenID Connect for tests: discovery, the device authorization grant (RFC 8628) with its errors, and
// signed ID tokens.
package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"sync"
	"time"
)

// Provider is an http.Handler. Its fields are set before it is used.
type Provider struct {
	Issuer       string
	ClientID     string
	ClientSecret string // "" takes public clients
	Interval     int    // seconds that are told, and held; 0 tells none, which stands for 5
	ExpiresIn    int    // seconds that a device code lasts
	Algorithm    string // "RS256" or "ES256"
	NoNonce      bool   // tokens have none, as of providers that ignore it
	Now          func() time.Time

	// Change, where not nil, changes an answer on its way: to path, with its status and members.
	Change func(path string, status int, answer map[string]any) int

	RSA *rsa.PrivateKey
	EC  *ecdsa.PrivateKey

	mu       sync.Mutex
	grants   map[string]*grant // by device code
	requests map[string]int    // by path
}

type grant struct {
	userCode string
	nonce    string
	made     time.Time
	polled   time.Time
	interval time.Duration
	claims   map[string]any // nil: not decided yet
	denied   bool
}

// New makes a provider with keys of its own.
func New(issuer, clientID string, now func() time.Time) (*Provider, error) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Provider{Issuer: issuer, ClientID: clientID, ExpiresIn: 600, Algorithm: "RS256", Now: now, RSA: r, EC: e,
		grants: make(map[string]*grant), requests: make(map[string]int)}, nil
}

// Requests is how many there were to a path.
func (p *Provider) Requests(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[path]
}

// Approve is a user, of the given claims, who enters a code and lets the device in; false where there is no such code.
func (p *Provider) Approve(userCode string, claims map[string]any) bool {
	return p.decide(userCode, func(g *grant) { g.claims = claims })
}

// Deny is a user who does not.
func (p *Provider) Deny(userCode string) bool {
	return p.decide(userCode, func(g *grant) { g.denied = true })
}

func (p *Provider) decide(userCode string, how func(*grant)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.grants {
		if g.userCode == userCode {
			how(g)
			return true
		}
	}
	return false
}

// Paths of a provider.
const (
	Discovery = "/.well-known/openid-configuration"
	Device    = "/device_authorization"
	Token     = "/token"
	Keys      = "/keys"
)

func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[r.URL.Path]++
	status, answer := http.StatusNotFound, map[string]any{"error": "not_found"}
	switch r.Method + " " + r.URL.Path {
	case "GET " + Discovery:
		status, answer = http.StatusOK, map[string]any{"issuer": p.Issuer, "device_authorization_endpoint": p.Issuer + Device,
			"token_endpoint": p.Issuer + Token, "jwks_uri": p.Issuer + Keys}
	case "GET " + Keys:
		status, answer = http.StatusOK, map[string]any{"keys": []any{p.RSAKey(), p.ECKey()}}
	case "POST " + Device:
		status, answer = p.device(r)
	case "POST " + Token:
		status, answer = p.token(r)
	}
	if p.Change != nil {
		status = p.Change(r.URL.Path, status, answer)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

func failure(code string) (int, map[string]any) {
	return http.StatusBadRequest, map[string]any{"error": code}
}

func (p *Provider) known(r *http.Request) bool {
	user, pass, basic := r.BasicAuth()
	if p.ClientSecret != "" {
		return basic && user == p.ClientID && pass == p.ClientSecret
	}
	return !basic && r.FormValue("client_id") == p.ClientID
}

func (p *Provider) device(r *http.Request) (int, map[string]any) {
	if !p.known(r) {
		return failure("invalid_client")
	}
	g := &grant{userCode: rand.Text()[:4] + "-" + rand.Text()[:4], nonce: r.FormValue("nonce"), made: p.Now(), interval: 5 * time.Second}
	code := rand.Text()
	p.grants[code] = g
	answer := map[string]any{"device_code": code, "user_code": g.userCode, "verification_uri": p.Issuer + "/device",
		"verification_uri_complete": p.Issuer + "/device?user_code=" + g.userCode, "expires_in": p.ExpiresIn}
	if p.Interval != 0 {
		answer["interval"], g.interval = p.Interval, time.Duration(p.Interval)*time.Second
	}
	return http.StatusOK, answer
}

func (p *Provider) token(r *http.Request) (int, map[string]any) {
	g := p.grants[r.FormValue("device_code")]
	now := p.Now()
	switch {
	case !p.known(r):
		return failure("invalid_client")
	case r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:device_code":
		return failure("unsupported_grant_type")
	case g == nil:
		return failure("invalid_grant")
	case now.Sub(g.made) >= time.Duration(p.ExpiresIn)*time.Second:
		return failure("expired_token")
	case !g.polled.IsZero() && now.Sub(g.polled) < g.interval, g.polled.IsZero() && now.Sub(g.made) < g.interval:
		g.polled = now
		g.interval += 5 * time.Second
		return failure("slow_down")
	}
	g.polled = now
	switch {
	case g.denied:
		return failure("access_denied")
	case g.claims == nil:
		return failure("authorization_pending")
	}
	delete(p.grants, r.FormValue("device_code"))
	claims := map[string]any{"iss": p.Issuer, "aud": p.ClientID, "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(), "nonce": g.nonce}
	if p.NoNonce {
		delete(claims, "nonce")
	}
	maps.Copy(claims, g.claims)
	return http.StatusOK, map[string]any{"access_token": "opaque", "token_type": "Bearer", "id_token": p.Sign(map[string]any{"alg": p.Algorithm, "kid": p.Algorithm}, claims)}
}

// Sign makes a token by the key of the header's algorithm; of any other its signature is empty.
func (p *Provider) Sign(header, claims map[string]any) string {
	h, err := json.Marshal(header)
	if err != nil {
		panic(err) // a test's own
	}
	c, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return p.SignText(header["alg"], string(h), string(c))
}

// SignText is Sign of JSON as it is.
func (p *Provider) SignText(algorithm any, header, claims string) string {
	signed := text([]byte(header)) + "." + text([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	var signature []byte
	var err error
	switch algorithm {
	case "RS256":
		signature, err = rsa.SignPKCS1v15(rand.Reader, p.RSA, crypto.SHA256, sum[:])
	case "ES256":
		r, s, signErr := ecdsa.Sign(rand.Reader, p.EC, sum[:])
		if err = signErr; err == nil {
			signature = make([]byte, 64)
			r.FillBytes(signature[:32])
			s.FillBytes(signature[32:])
		}
	}
	if err != nil {
		panic(err)
	}
	return signed + "." + text(signature)
}

func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// RSAKey is the JSON Web Key of RSA.
func (p *Provider) RSAKey() map[string]any {
	return map[string]any{"kty": "RSA", "kid": "RS256", "use": "sig", "alg": "RS256", "n": text(p.RSA.N.Bytes()), "e": "AQAB"}
}

// ECKey is that of EC.
func (p *Provider) ECKey() map[string]any {
	b, err := p.EC.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return map[string]any{"kty": "EC", "kid": "ES256", "crv": "P-256", "x": text(b[1:33]), "y": text(b[33:65])}
}
