// Package session seals and opens data messages, which both wires share: one [Session] holds the two transport keys of one finished
// handshake, its suite, the send counter and the replay window (WireGuard paper §5.4.6).
//
// A session has no clock. It is usable until its owner's timers say otherwise, by the constants of this package:
//
//	age, messages, bytes       to send            to receive
//	below RekeyAfterTime,      yes                yes
//	  RekeyAfterMessages,
//	  RekeyAfterBytes
//	from there                 yes, and rekey     yes, and rekey from RekeyOnReceiveAfter (initiator only)
//	from RejectAfterTime,      no                 no
//	  RejectAfterMessages
//	from RejectAfterBytes      no                 yes
//	from EraseAfter            erased             erased
//
// The limits of messages and bytes are enforced here ([Session.Reserve], [Session.RekeyDue], [Session.Open]), the time limits by the
// owner. Bytes are limited under AES-256-GCM only, and by the sender only: its own plaintexts are what the limit protects.
//
// The transport keys live inside the AEAD objects of golang.org/x/crypto and crypto/cipher, which offer no way to overwrite them. An erased
// session drops them and refuses work, and their memory goes back to the garbage collector. A copy of the keys is kept beside them while the
// session lives, for [Session.Export], and overwritten by [Session.Erase].
package session
