// Package session seals and opens WireGuard's data messages: one [Session] holds the two transport keys of one finished
// handshake, the send counter and the replay window (WireGuard paper §5.4.6).
//
// A session has no clock. It is usable until its owner's timers say otherwise, by the constants of this package:
//
//	age, messages              to send            to receive
//	below RekeyAfterTime,      yes                yes
//	  RekeyAfterMessages
//	from there                 yes, and rekey     yes, and rekey from RekeyOnReceiveAfter (initiator only)
//	from RejectAfterTime,      no                 no
//	  RejectAfterMessages
//	from EraseAfter            erased             erased
//
// The message limits are enforced here ([Session.Reserve], [Session.Open]), the time limits by the owner.
//
// The transport keys live inside the AEAD objects of golang.org/x/crypto, which offer no way to overwrite them. An erased
// session drops them and refuses work, and their memory goes back to the garbage collector.
package session
