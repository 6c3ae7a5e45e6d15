// Package resolve finds the addresses behind peers' endpoint names, and moves a peer to its next endpoint when
// handshakes go unanswered.
//
// Each peer has a state machine without I/O or clock (see [peer]); a [Resolver] runs one for each in a single loop, does
// the lookups beside it and hands what comes out to a function that configures the tunnel. So DNS may fail, hang or
// come back at any time without holding up anything else.
package resolve
