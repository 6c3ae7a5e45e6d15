// Package access says what one peer may do: which packets may pass from it and to it, how fast, how much and when. A [Policy]
// is made of a [Spec] once, never changes and may be shared by any number of peers; a [State] is one peer's, and counts.
//
// A packet, or super-packet, is asked about in this order; the first that refuses it ends the matter:
//
//	closed, held   the peer's time is over, not now, or it has not been released yet
//	rules          the packet belongs to a flow that was allowed, or the rules allow it and, where it can, it begins one
//	quota          bytes of both directions together are left
//	rate           the direction's token bucket has not run dry
//
// The "far" side of a flow is the peer's, the "near" side this end's; rules name near addresses, since what the peer may have as
// its own is settled by the tunnel (allowed IPs, pinned MAC addresses) before anything comes here.
//
// Nothing here reads a clock: `now` is monotonic and for what lasts, `wall` is a time of day and for what people agree on. What the
// datapath calls allocates nothing and takes no lock.
package access
