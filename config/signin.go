package config

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"culvert/setup/spec"
)

// A SignIn is the second factor that the clients of a group need: one of the two.
type SignIn struct {
	spec.Place
	Lasts time.Duration // 0: DefaultSignIn
	TOTP  bool
	OIDC  *OIDC // nil: not by a provider
}

// DefaultSignIn is how long a sign-in lasts where a file does not say.
const DefaultSignIn = 12 * time.Hour

// OIDC is a provider that users sign in with (OpenID Connect), and which of them may.
type OIDC struct {
	spec.Place
	Issuer       string // an https URL
	ClientID     string
	ClientSecret ClientSecret   // none of a public client
	Authority    *AuthorityFile // nil: the machine's
	Scopes       []string       // besides openid; nil: email
	Emails       []string       // one of Emails, Subjects and Groups has to fit
	Subjects     []string
	Groups       []string
	GroupsClaim  string // "": groups
	RequireNonce bool
	SameName     bool // the user's e-mail address or subject has to be the client's name
}

// A ClientSecret is what a provider knows a client by, kept in a file of its own.
type ClientSecret struct {
	File  string // as named in the configuration; "" is none
	Value string // empty where it could not be read
}

// An AuthorityFile holds certificates that a provider's is to be issued by.
type AuthorityFile struct {
	File string
	Pool *x509.CertPool
}

// Bounds of a second factor.
const (
	MaxSignInEntries = 1024 // e-mail addresses, subjects or groups that may sign in
	maxSignInText    = 255  // bytes of one: a subject has no more (OpenID Connect Core section 2)
	maxClientSecret  = 1024
)

var signInShape = &shape{name: "sign-in", where: "sign_in", keys: []key{
	{name: "lasts", field: "Lasts", absent: "`12h`", doc: "then it is asked for again", form: span(time.Minute, 366*24*time.Hour, time.Second)},
	{name: "totp", field: "TOTP", absent: "`false`", doc: "a code of an authenticator (RFC 6238), of a secret that `culvert client totp NAME` makes", form: truth},
	{name: "oidc", field: "OIDC", absent: "none", doc: "a provider of OpenID Connect that the user signs in with (device flow, RFC 8628)", form: oidcShape},
}}

var oidcShape = &shape{name: "oidc", where: "oidc", keys: []key{
	{name: "issuer", field: "Issuer", doc: "the provider, an `https` URL", form: issuerURL},
	{name: "client_id", field: "ClientID", doc: "what this server is to the provider", form: line},
	{name: "client_secret_file", field: "ClientSecret", absent: "none: a public client", doc: "file of mode 0600 with the client's secret", form: clientSecretFile},
	{name: "ca_file", field: "Authority", absent: "the machine's", doc: "certificates that the provider's has to be issued by, in PEM format", form: authorityFile},
	{name: "scopes", field: "Scopes", absent: "`[email]`", doc: "what is asked for besides `openid`",
		form: list{of: scopeToken, most: 32, example: "[email, groups]"}},
	{name: "emails", field: "Emails", absent: "none", doc: "who may sign in, by verified e-mail address; `*@example.net` are all of a domain",
		form: list{of: emailOrDomain, most: MaxSignInEntries, example: `[alice@example.net, "*@example.org"]`}},
	{name: "subjects", field: "Subjects", absent: "none", doc: "who may sign in, by the provider's name for them (`sub`)",
		form: list{of: line, most: MaxSignInEntries, example: `["248289761001"]`}},
	{name: "groups", field: "Groups", absent: "none", doc: "who may sign in, by a group of theirs as the provider says",
		form: list{of: line, most: MaxSignInEntries, example: "[vpn-users]"}},
	{name: "groups_claim", field: "GroupsClaim", absent: "`groups`", doc: "the claim that has the groups", form: line},
	{name: "same_name", field: "SameName", absent: "`false`", doc: "whether the user's verified e-mail address or `sub` has to be the client's name", form: truth},
	{name: "require_nonce", field: "RequireNonce", absent: "`false`", doc: "whether a token without the nonce that was sent is refused; one with another always is", form: truth},
}}

// issuerURL is an issuer as OpenID Connect Discovery section 3 has it.
var issuerURL = written("`https` URL", map[string]any{"type": "string", "pattern": "^https://", "maxLength": 512}, func(s string) (string, *problem) {
	const rule = "write the provider's issuer as its documentation does, such as https://id.example.net, without a query"
	u, err := url.Parse(s)
	if err != nil || len(s) > 512 || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#") {
		return "", wrong(rule, "%s is not the URL of a provider", quote(s))
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err != nil && hostName(host) != nil {
		return "", wrong(rule, "%s is not the URL of a provider", quote(s))
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil && strings.HasSuffix(u.Host, ":") {
		return "", wrong(rule, "%s is not the URL of a provider", quote(s))
	}
	return s, nil
})

// scopeToken is a scope (RFC 6749 section 3.3).
var scopeToken = inList("scopes", written("scope", map[string]any{"type": "string", "minLength": 1, "maxLength": 128}, func(s string) (string, *problem) {
	for _, c := range []byte(s) {
		if c <= ' ' || c == '"' || c == '\\' || c > '~' {
			return "", wrong("write each scope by itself", "%s is not a scope", quote(s))
		}
	}
	if s == "" || len(s) > 128 {
		return "", wrong("write each scope by itself", "%s is not a scope", quote(s))
	}
	return s, nil
}))

var emailOrDomain = inList("e-mail addresses", written("e-mail address, or `*@` and a domain", map[string]any{"type": "string", "pattern": "@", "maxLength": maxSignInText},
	func(s string) (string, *problem) {
		const rule = "write an address, such as alice@example.net, or *@example.net for all of a domain"
		i := strings.LastIndexByte(s, '@')
		if i < 1 || len(s) > maxSignInText || strings.ContainsFunc(s, unprintable) || strings.Contains(s, "*") && s[:i] != "*" || hostName(s[i+1:]) != nil {
			return "", wrong(rule, "%s is not an e-mail address", quote(s))
		}
		return s, nil
	}))

// clientSecretFile names a file with a secret in it.
var clientSecretFile = scalar{text: "file, from this file's folder", schema: map[string]any{"type": "string", "minLength": 1},
	parse: func(y *yamlReader, v value) (any, bool) {
		name, ok := y.text(v)
		if !ok {
			return nil, false
		}
		if name == "" || strings.ContainsFunc(name, unprintable) {
			y.fail(v.pos, "write the path of a file that holds the secret", "%s is not a file's name", quote(name))
			return nil, false
		}
		path, p := y.located(name)
		if p != nil {
			y.failWith(v.pos, p, nil)
			return nil, false
		}
		text, p, err := y.secret(path)
		if errors.Is(err, fs.ErrNotExist) {
			p = wrong("put the secret that the provider gave for this server into it: (umask 077; cat > "+shellWord(name)+")", "the key file %s does not exist", quotePath(name))
		}
		if p != nil {
			y.failWith(v.pos, p, err)
			return nil, false
		}
		f := ClientSecret{name, strings.TrimSpace(string(text))}
		if f.Value == "" || len(f.Value) > maxClientSecret || strings.ContainsFunc(f.Value, unprintable) {
			y.fail(v.pos, "put the secret into it, on one line", "the key file %s holds no client secret", quotePath(name))
			return nil, false
		}
		return f, true
	}}

// authorityFile names a file with certificates.
var authorityFile = scalar{text: "file, from this file's folder", schema: map[string]any{"type": "string", "minLength": 1},
	parse: func(y *yamlReader, v value) (any, bool) {
		f := AuthorityFile{Pool: x509.NewCertPool()}
		text, ok := y.certificateFile(entry{pos: v.pos, value: v}, &f.File)
		if !ok {
			return nil, false
		}
		if !f.Pool.AppendCertsFromPEM(bytes.TrimSpace([]byte(text))) {
			y.fail(v.pos, "name a file of certificates in PEM format", "the certificate file %s holds no certificate", quotePath(f.File))
			return nil, false
		}
		return f, true
	}}

// relateSignIn checks the second factor of a group.
func (r *report) relateSignIn(g *ClientGroup) {
	s := g.SignIn
	if s == nil {
		return
	}
	pos := Position(s.Origin)
	switch {
	case s.TOTP && s.OIDC != nil:
		r.fail(pos, "take totp or oidc out; a provider can ask for a code by itself", "the group %s has two second factors", g.Name)
	case !s.TOTP && s.OIDC == nil && !r.complainedIn(pos):
		r.fail(pos, `add "totp: true", or oidc`, "sign_in of the group %s does not say how", g.Name)
	}
	if o := s.OIDC; o != nil && len(o.Emails)+len(o.Subjects)+len(o.Groups) == 0 && !o.SameName && !r.complainedIn(Position(o.Origin)) {
		r.fail(Position(o.Origin), "add emails, subjects, groups or same_name: whoever the provider knows could sign in otherwise",
			"oidc of the group %s lets nobody sign in", g.Name)
	}
}

// complainedIn reports whether an error was found at or behind pos; what is missing then may just be wrong.
func (r *report) complainedIn(pos Position) bool {
	for _, e := range r.errs {
		if e.Pos.Line >= pos.Line {
			return true
		}
	}
	return false
}
