// Package events tells what happens in a daemon, to whoever has asked for it.
//
// A [Hub] has subscribers, each with a queue of bounded length: what does not fit is counted, and told as a number behind what did fit.
// Publishing never waits. What happens to tunnels and peers nobody publishes: while there are subscribers a [Watch] looks at them every
// second and publishes the differences, so that the packet path knows nothing of events, and nothing is done where nobody asks.
// [Hooks] are a subscriber that runs programs.
package events
