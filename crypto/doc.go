// Package crypto holds the key types; its subpackages hold the handshake (noise), denial-of-service cookies (cookie),
// timestamps (tai64n), the replay window (replay) and transport sessions (session). None of them does I/O or reads
// a clock: times come in as arguments.
package crypto
