package oidc

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"culvert/server/terminal"
)

// Config is a provider, and who of those it knows may sign in.
type Config struct {
	Issuer       string // as its documents have it; an https URL
	ClientID     string
	ClientSecret string   // "" of a public client
	Scopes       []string // besides openid
	Emails       []string // verified addresses; "*@example.net" are all of a domain
	Subjects     []string
	Groups       []string
	GroupsClaim  string // the claim that has them
	RequireNonce bool   // an ID token without the nonce is refused
	SameName     bool   // the verified e-mail address or the subject has to be the name that is given to Allowed
}

// Identity is who a provider says that the user is.
type Identity struct {
	Subject string
	Email   string // "" where there is none, or it was not verified
	Groups  []string
}

// String names the user: by the e-mail address where there is one.
func (i *Identity) String() string {
	if i.Email != "" {
		return i.Email
	}
	return i.Subject
}

// ErrNotAllowed means that the user is known to the provider and may not sign in here.
var ErrNotAllowed = errors.New("this user may not sign in here")

// Allowed reports why a user may not sign in for the client of a name.
func (c *Config) Allowed(i *Identity, client string) error {
	if c.SameName && i.Subject != client && (i.Email == "" || !sameEmail(i.Email, client)) {
		return fmt.Errorf("%w: the client is another user's", ErrNotAllowed)
	}
	if len(c.Emails)+len(c.Subjects)+len(c.Groups) == 0 {
		if c.SameName {
			return nil
		}
		return ErrNotAllowed
	}
	if slices.Contains(c.Subjects, i.Subject) || slices.ContainsFunc(c.Groups, func(g string) bool { return slices.Contains(i.Groups, g) }) ||
		i.Email != "" && slices.ContainsFunc(c.Emails, func(e string) bool { return fits(e, i.Email) }) {
		return nil
	}
	return ErrNotAllowed
}

// sameEmail compares without regard to the case of ASCII letters, as mail is delivered. Unicode's folding would make "boſs" and "boss",
// two users of a provider, one.
func sameEmail(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerASCII(a[i]) != lowerASCII(b[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func fits(pattern, email string) bool {
	if domain, all := strings.CutPrefix(pattern, "*@"); all {
		i := strings.LastIndexByte(email, '@')
		return i > 0 && sameEmail(email[i+1:], domain)
	}
	return sameEmail(pattern, email)
}

// secureURL checks a URL that a provider names: https, with a host, without credentials.
func secureURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(text) > maxURL || !terminal.Printable(text) {
		return fmt.Errorf("%.100q is not an https URL", text)
	}
	return nil
}
