// Package summary writes what a packet is in one line, in the manner of tcpdump: who to whom, the protocol, and what tells
// one packet of it from the next.
//
// The packets come from the network. Whatever they are, a line holds only printable ASCII and is at most some hundred bytes
// long, and nothing is read beyond what was captured: a header that is cut is given as [|TCP].
package summary
