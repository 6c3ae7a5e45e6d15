// Package ippacket reads what the engine needs to know of an IP packet before it trusts it: version, lengths, source and
// destination. It holds pure functions over byte slices that come from the network or from a tun device; none of them
// allocates, and none trusts a length field further than the slice reaches.
package ippacket
