package oidc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Leeway is how far the provider's clock may be off.
const Leeway = time.Minute

// Errors of an ID token.
var (
	errToken     = errors.New("the provider's ID token is malformed")
	errAlgorithm = errors.New("the provider's ID token is signed by an algorithm other than RS256 and ES256")
	errSignature = errors.New("the provider's ID token is not signed by its keys")
)

// verify checks an ID token: a JWS in compact form (RFC 7515 section 7.1) whose claims say what OpenID Connect Core section 3.1.3.7 asks for.
func (c *Config) verify(token string, keys keySet, nonce string, now time.Time) (*Identity, error) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return nil, errToken
	}
	head, okHead := bytesOf(parts[0])
	body, okBody := bytesOf(parts[1])
	signature, okSignature := bytesOf(parts[2])
	if !okHead || !okBody || !okSignature {
		return nil, errToken
	}
	header, ok := parseObject(head)
	if !ok {
		return nil, errToken
	}
	algorithm := header.text("alg", 16)
	if algorithm != "RS256" && algorithm != "ES256" {
		return nil, errAlgorithm
	}
	if _, has := header["crit"]; has { // extensions that have to be understood (RFC 7515 section 4.1.11)
		return nil, errToken
	}
	id := ""
	if _, has := header["kid"]; has {
		if id = header.text("kid", maxText); id == "" {
			return nil, errToken
		}
	}
	if !keys.verify(algorithm, id, []byte(parts[0]+"."+parts[1]), signature) {
		return nil, errSignature
	}
	claims, ok := parseObject(body)
	if !ok {
		return nil, errToken
	}
	return c.check(claims, nonce, now)
}

// check checks the claims of a token whose signature is right.
func (c *Config) check(claims object, nonce string, now time.Time) (*Identity, error) {
	fail := func(format string, args ...any) (*Identity, error) {
		return nil, fmt.Errorf("the provider's ID token "+format, args...)
	}
	if claims.text("iss", maxURL) != c.Issuer {
		return fail("is of another issuer")
	}
	audience := claims.texts("aud", 64)
	_, hasParty := claims["azp"]
	if !slices.Contains(audience, c.ClientID) || hasParty && claims.text("azp", maxText) != c.ClientID || len(audience) > 1 && !hasParty {
		return fail("is for somebody else")
	}
	at := func(name string) (time.Time, bool) {
		n, ok := claims.number(name)
		if !ok || n < 0 || n > 1<<40 {
			return time.Time{}, false
		}
		return time.Unix(int64(n), 0), true
	}
	expires, ok := at("exp")
	if !ok || !now.Before(expires.Add(Leeway)) {
		return fail("has expired")
	}
	if issued, ok := at("iat"); !ok || issued.After(now.Add(Leeway)) {
		return fail("is of the future")
	}
	if _, has := claims["nbf"]; has {
		if from, ok := at("nbf"); !ok || from.After(now.Add(Leeway)) {
			return fail("is of the future")
		}
	}
	if _, has := claims["nonce"]; has && claims.text("nonce", maxText) != nonce || !has && c.RequireNonce {
		return fail("is not of this sign-in: its nonce is another, or missing")
	}
	who := &Identity{Subject: claims.text("sub", maxText)}
	if who.Subject == "" {
		return fail("names nobody")
	}
	if claims.truth("email_verified") {
		who.Email = claims.text("email", maxText)
	}
	if c.GroupsClaim != "" {
		who.Groups = claims.texts(c.GroupsClaim, maxGroups)
	}
	return who, nil
}
