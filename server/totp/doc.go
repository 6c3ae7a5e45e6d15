// Package totp is one-time codes by the time of day (RFC 6238), and how often one may be guessed. It does no I/O and reads no clock.
package totp
