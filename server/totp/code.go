package totp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"hash"
	"net/url"
	"strconv"
	"time"
)

// What apps take that read nothing else from a link: six digits every 30 s by HMAC-SHA-1, the defaults of RFC 6238 section 4.
const (
	Period = 30 * time.Second
	Digits = 6
	// Skew is how many periods a clock may be off, each way (section 5.2).
	Skew = 1
	// SecretSize is the length of a secret in bytes: that of the hash (RFC 4226 section 4, R6).
	SecretSize = sha1.Size
)

// GenerateSecret makes a secret.
func GenerateSecret() []byte {
	secret := make([]byte, SecretSize)
	rand.Read(secret) // never fails (Go 1.24)
	return secret
}

// Step is the number of the period that a moment lies in (RFC 6238 section 4.2: T, with T0 = 0 and X = 30 s). Before 1970 it is 0.
func Step(now time.Time) uint64 {
	return uint64(max(now.Unix(), 0)) / uint64(Period/time.Second)
}

// Code is the code of a period: digits decimal digits, 1 to 9, of an HMAC by the given hash (RFC 4226 section 5.3).
func Code(newHash func() hash.Hash, secret []byte, step uint64, digits int) string {
	mac := hmac.New(newHash, secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, step))
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	n := binary.BigEndian.Uint32(sum[at:]) & 0x7fffffff
	modulus := uint32(1)
	for range digits {
		modulus *= 10
	}
	text := strconv.Itoa(int(n % modulus))
	for len(text) < digits {
		text = "0" + text
	}
	return text
}

// Match reports whether code is that of the period of now, or of one within Skew of it, and of which. Periods up to used do not count:
// their codes may have been used (RFC 6238 section 5.2). The time it takes does not depend on the code.
func Match(secret []byte, code string, now time.Time, used uint64) (step uint64, ok bool) {
	current := Step(now)
	for s := current - min(current, Skew); s <= current+Skew; s++ {
		same := subtle.ConstantTimeCompare([]byte(Code(sha1.New, secret, s, Digits)), []byte(code))
		if same == 1 && s > used && !ok {
			step, ok = s, true
		}
	}
	return step, ok
}

// Link is what apps take a secret from, as a QR code: an otpauth URI for an account of an issuer.
func Link(secret []byte, issuer, account string) string {
	u := url.URL{Scheme: "otpauth", Host: "totp", Path: "/" + issuer + ":" + account}
	// In this order, and with %20 for a space: some apps read no other.
	u.RawQuery = "secret=" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret) + "&issuer=" + url.PathEscape(issuer) +
		"&algorithm=SHA1&digits=" + strconv.Itoa(Digits) + "&period=" + strconv.Itoa(int(Period/time.Second))
	return u.String()
}
