package session

import (
	"time"

	"culvert/crypto/replay"
)

// Limits on the messages sent under one key (WireGuard paper §6.1).
const (
	RekeyAfterMessages  = 1 << 60
	RejectAfterMessages = replay.RejectAfterMessages // 2^64 - 2^13 - 1
)

// Limits on the bytes sealed under one key of AES-256-GCM, tags included; a key of ChaCha20-Poly1305 has none. Blocks of one key's
// streams are told from random by their not repeating: with 2^34 blocks of 16 bytes an attacker gains at most
// (2^34)^2 / 2^129 = 2^-61 (Iwata, Ohashi, Minematsu, https://eprint.iacr.org/2012/438).
const (
	RekeyAfterBytes  = 1 << 37
	RejectAfterBytes = 1 << 38
)

// Times of the protocol (WireGuard paper §6.1 to §6.6).
const (
	RekeyAfterTime   = 120 * time.Second // the initiator of a session this old makes a new one when it sends
	RejectAfterTime  = 180 * time.Second // a session this old neither sends nor receives
	RekeyTimeout     = 5 * time.Second   // an initiation is repeated after this and a random part of MaxRetryJitter
	RekeyAttemptTime = 90 * time.Second  // initiations are no longer repeated after this
	KeepaliveTimeout = 10 * time.Second  // a receiver with nothing to send sends a keepalive after this
	CookieLifetime   = 120 * time.Second // a cookie, and the secret behind it, are used for this long
	MaxRetryJitter   = 333 * time.Millisecond

	// RekeyOnReceiveAfter is the age from which the initiator of a session makes a new one also when it receives (§6.2).
	RekeyOnReceiveAfter = RejectAfterTime - KeepaliveTimeout - RekeyTimeout
	// NoAnswerTimeout is how long after sending data without hearing anything a new handshake begins (§6.5).
	NoAnswerTimeout = KeepaliveTimeout + RekeyTimeout
	// EraseAfter is when all keys are erased, counted from the last new session (§6.3).
	EraseAfter = 3 * RejectAfterTime
)
