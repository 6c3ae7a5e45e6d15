// Package latency measures the round-trip time to a peer and the loss of the data path in each direction, by echoes (control
// messages of the native wire) while there is traffic. [Meter] is the state machine for one peer.
//
//	state    leaves by
//	silent   Begin -> due at once; Active, 5 s after the echo before at the soonest -> due
//	due      Next -> waiting
//	waiting  Answered -> silent, with a round-trip time and counts; 3 s -> silent, the echo counted as lost
//
// Loss comes from counts, not from the echoes: each end says how many data messages it has sent, or authenticated, under
// the session. What a peer says may be false; it can only spoil what is shown of itself and how fast this end resends to it,
// within fixed bounds.
//
// Nothing here does I/O or reads a clock: now is the time since some epoch, never zero. Nothing is safe for concurrent
// use.
package latency
