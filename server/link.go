package server

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/blake2s"

	"culvert/crypto"
	"culvert/crypto/enrolment"
)

// Link is an invitation as it is handed to whoever is invited:
//
//	culvert://host:port/#base64url(1 || server key (32) || secret (32) || further endpoints || check (4))
//
// where each further endpoint is a byte with its length and its host:port, and the check the first bytes of
// HASH("culvert invitation" || host:port || all before the check). The secret stands in the fragment, which browsers send to nobody;
// the check finds mistyped links, host and port included, and is no protection. It reveals nothing of who is invited.
type Link struct {
	Endpoints []string // host:port, 1 to MaxEndpoints, to be tried in this order
	ServerKey crypto.PublicKey
	Secret    enrolment.Secret
}

const (
	linkScheme  = "culvert://"
	linkVersion = 1
	linkFixed   = 1 + 2*crypto.KeySize
	linkCheck   = 4
)

// Errors of ParseLink. None quotes the link.
var (
	ErrNoLink      = errors.New("this is no invitation: one begins with " + linkScheme + " and has a # in it")
	ErrMistyped    = errors.New("the invitation is mistyped or cut off: its check does not fit")
	ErrLinkVersion = errors.New("the invitation is of another version of culvert")
)

var linkEncoding = base64.RawURLEncoding.Strict()

// Encode writes the link. It is a secret.
func (l *Link) Encode() (string, error) {
	if n := len(l.Endpoints); n == 0 || n > MaxEndpoints {
		return "", fmt.Errorf("an invitation has 1 to %d endpoints, not %d", MaxEndpoints, n)
	}
	payload := append([]byte{linkVersion}, l.ServerKey[:]...)
	payload = append(payload, l.Secret[:]...)
	defer clear(payload)
	for i, e := range l.Endpoints {
		if err := checkEndpoint(e); err != nil {
			return "", err
		}
		if i > 0 {
			payload = append(append(payload, byte(len(e))), e...)
		}
	}
	payload = append(payload, linkSum(l.Endpoints[0], payload)...)
	return linkScheme + l.Endpoints[0] + "/#" + linkEncoding.EncodeToString(payload), nil
}

func linkSum(endpoint string, payload []byte) []byte {
	sum := blake2s.Sum256(append([]byte("culvert invitation"+endpoint), payload...))
	return sum[:linkCheck]
}

// ParseLink reads what [Link.Encode] writes, and nothing else.
func ParseLink(s string) (*Link, error) {
	rest, ok := strings.CutPrefix(s, linkScheme)
	endpoint, fragment, has := strings.Cut(rest, "/#")
	if !ok || !has || len(s) > MaxLink {
		return nil, ErrNoLink
	}
	payload, err := linkEncoding.DecodeString(fragment)
	if err != nil || len(payload) < linkFixed+linkCheck || strings.ContainsAny(fragment, "\r\n") {
		return nil, ErrMistyped
	}
	defer clear(payload)
	body, check := payload[:len(payload)-linkCheck], payload[len(payload)-linkCheck:]
	if subtle.ConstantTimeCompare(linkSum(endpoint, body), check) != 1 {
		return nil, ErrMistyped
	}
	if body[0] != linkVersion {
		return nil, ErrLinkVersion
	}
	l := &Link{Endpoints: []string{endpoint}}
	copy(l.ServerKey[:], body[1:])
	copy(l.Secret[:], body[1+crypto.KeySize:])
	for more := body[linkFixed:]; len(more) > 0; {
		n := int(more[0])
		if n > len(more)-1 || len(l.Endpoints) == MaxEndpoints {
			return nil, ErrMistyped
		}
		l.Endpoints = append(l.Endpoints, string(more[1:1+n]))
		more = more[1+n:]
	}
	for _, e := range l.Endpoints {
		if checkEndpoint(e) != nil {
			return nil, ErrMistyped
		}
	}
	if l.ServerKey.IsLowOrder() {
		return nil, ErrMistyped
	}
	return l, nil
}
