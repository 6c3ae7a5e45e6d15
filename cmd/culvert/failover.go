package main

import (
	"slices"
	"time"

	"culvert/crypto"
)

const (
	// askServer is how often a client with several servers asks the one it uses, by whose answers it knows that it is there.
	askServer = 2 * time.Second
	// serverSilence is how long that one may say nothing before the others are asked as well.
	serverSilence = 5 * time.Second
	// askBetter is how often those are asked that are before the one in use.
	askBetter = 30 * time.Second
)

// serverOrder is which of several servers a client uses: a state machine without a clock.
//
//	in use         said something within 5 s    silent for longer
//	none, or i     i is asked every 2 s         all are asked every 2 s; who answers first is used
//	i > 0          those before i are asked every 30 s; who answers is used
type serverOrder struct {
	keys   []crypto.PublicKey // in the order of the file
	inUse  int                // of keys; the first before any has answered
	heard  time.Time          // when it last did, or when the waiting began
	asked  time.Time
	better time.Time // when those before were asked
}

// set takes a file's servers. The one in use stays if it is among them.
func (o *serverOrder) set(keys []crypto.PublicKey, now time.Time) {
	if slices.Equal(keys, o.keys) {
		return
	}
	used, had := o.use()
	o.keys = keys
	if o.inUse = slices.Index(keys, used); !had || o.inUse < 0 {
		o.inUse, o.heard = 0, now
	}
	o.asked, o.better = time.Time{}, now
}

// use is the server that is used; false where there is none.
func (o *serverOrder) use() (crypto.PublicKey, bool) {
	if len(o.keys) == 0 {
		return crypto.PublicKey{}, false
	}
	return o.keys[o.inUse], true
}

// due returns who is to be asked now.
func (o *serverOrder) due(now time.Time) (ask []crypto.PublicKey) {
	if len(o.keys) < 2 || now.Sub(o.asked) < askServer {
		return nil
	}
	o.asked = now
	switch {
	case now.Sub(o.heard) > serverSilence:
		return o.keys
	case o.inUse > 0 && now.Sub(o.better) >= askBetter:
		o.better = now
		return o.keys[:o.inUse+1]
	}
	return o.keys[o.inUse : o.inUse+1]
}

// next is when somebody is to be asked next; the zero time where never.
func (o *serverOrder) next() time.Time {
	if len(o.keys) < 2 {
		return time.Time{}
	}
	return o.asked.Add(askServer)
}

// answered reports whether what a server says counts.
func (o *serverOrder) answered(by crypto.PublicKey, now time.Time) bool {
	i := slices.Index(o.keys, by)
	switch {
	case i < 0:
		return false
	case i > o.inUse && now.Sub(o.heard) <= serverSilence:
		return false
	case i != o.inUse:
		o.inUse, o.better = i, now
	}
	o.heard = now
	return true
}
