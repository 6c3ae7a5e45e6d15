package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
)

// A keySet is a provider's keys (JWK Set, RFC 7517) that can verify a token.
type keySet []key

type key struct {
	id     string
	public any // *rsa.PublicKey or *ecdsa.PublicKey
}

// RSA keys: at least what RFC 7518 section 3.3 asks for, and no more than verifies quickly.
const (
	minModulus = 2048 // bits
	maxModulus = 8192
)

// parseKeys reads a key set. Keys of other kinds, or for other uses, are left out, as RFC 7517 section 5 says.
func parseKeys(b []byte) (keySet, bool) {
	o, ok := parseObject(b)
	if !ok {
		return nil, false
	}
	var list []json.RawMessage
	if json.Unmarshal(o["keys"], &list) != nil || len(list) > MaxKeys {
		return nil, false
	}
	var set keySet
	for _, raw := range list {
		if k, ok := parseKey(raw); ok {
			set = append(set, k)
		}
	}
	return set, true
}

func parseKey(raw []byte) (k key, ok bool) {
	o, ok := parseObject(raw)
	if !ok {
		return k, false
	}
	if _, has := o["use"]; has && o.text("use", 8) != "sig" {
		return k, false
	}
	want := ""
	k.id = o.text("kid", maxText)
	switch o.text("kty", 8) {
	case "RSA": // RFC 7518 section 6.3
		want = "RS256"
		n, okN := bytesOf(o.text("n", maxModulus/4))
		e, okE := bytesOf(o.text("e", 16))
		if !okN || !okE || len(e) == 0 || len(e) > 4 {
			return k, false
		}
		p := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		if size := p.N.BitLen(); size < minModulus || size > maxModulus || p.E < 3 || p.E&1 == 0 || p.E > 1<<31-1 || p.N.Bit(0) == 0 {
			return k, false
		}
		k.public = p
	case "EC": // section 6.2
		want = "ES256"
		x, okX := bytesOf(o.text("x", 64))
		y, okY := bytesOf(o.text("y", 64))
		if o.text("crv", 8) != "P-256" || !okX || !okY || len(x) != 32 || len(y) != 32 {
			return k, false
		}
		p, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...)) // SEC 1, section 2.3.3
		if err != nil {
			return k, false
		}
		k.public = p
	default:
		return k, false
	}
	if _, has := o["alg"]; has && o.text("alg", 16) != want {
		return k, false
	}
	return k, true
}

// verify reports whether one of the keys, that of the id where there is one, has made a signature by an algorithm.
func (set keySet) verify(algorithm, id string, signed, signature []byte) bool {
	sum := sha256.Sum256(signed)
	for _, k := range set {
		if id != "" && k.id != id {
			continue
		}
		switch p := k.public.(type) {
		case *rsa.PublicKey: // RFC 7518 section 3.3
			if algorithm == "RS256" && rsa.VerifyPKCS1v15(p, crypto.SHA256, sum[:], signature) == nil {
				return true
			}
		case *ecdsa.PublicKey: // section 3.4: R and S, 32 bytes each
			if algorithm == "ES256" && len(signature) == 64 &&
				ecdsa.Verify(p, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
				return true
			}
		}
	}
	return false
}

// bytesOf decodes base64url without padding (RFC 7515 section 2); no other encoding of the same bytes is taken.
func bytesOf(text string) ([]byte, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return b, err == nil
}
