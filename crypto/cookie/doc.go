// Package cookie is WireGuard's defence against floods of handshakes (WireGuard paper §5.4.4, §5.4.7): mac1, which everybody
// who knows the receiver's public key can make and without which the receiver is silent; and mac2, which only one who
// received a cookie at its source address can make and without which a receiver under load does no public-key work.
//
// A [Checker] guards what comes in. It keeps a secret that is replaced each [Lifetime]; a cookie is a MAC under it of the
// sender's address and port, so that nothing is stored per sender:
//
//	secret              CheckMAC2              Reply
//	none, or Lifetime   false                  new secret; cookie
//	  old or older
//	younger             whether mac2 is right  cookie
//
// On culvert's own wire each bit of an initiation and a response counts, so there mac2 is judged without load too
// ([Checker.AcceptsMAC2]): zero passes, and whatever an honest sender may hold, that is a cookie under the current secret or the one before
// it. A KEM part has mac1 alone: its initiation, without which it is not looked at, has shown what mac2 shows.
//
// A [Stamper] signs what goes out to one peer:
//
//	state              Stamp               ConsumeReply, genuine   otherwise
//	never stamped      mac1; awaiting      ErrCookie               ErrCookie
//	awaiting           mac1, new; awaiting cookie; answered        ErrCookie, unchanged
//	answered           mac1; awaiting      ErrCookie               ErrCookie
//
// and, beside that, mac2 whenever it holds a cookie younger than Lifetime.
package cookie

import "time"

// Lifetime is how long a secret, and a cookie at its receiver, are used.
const Lifetime = 120 * time.Second
