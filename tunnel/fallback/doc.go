// Package fallback decides when a peer that datagrams do not reach is to be reached over a stream instead, and when it is to be
// left again. [Machine] is the state machine for one peer.
//
// Nothing here does I/O or reads a clock: now is the time since some epoch, never zero. Nothing is safe for concurrent use.
package fallback
