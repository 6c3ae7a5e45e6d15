// Package stream carries datagrams over TCP, in TLS 1.3, where UDP is blocked.
//
// A [Network] wraps another network and opens its sockets, to which it adds streams (see [transport.Streamer]). What goes by
// datagrams is not touched: their receivers are the wrapped socket's own, and all streams together are one more receiver. A
// sender hands trains of datagrams on as they are.
//
// A stream is one TCP connection: TLS, and within it frames, each a length of two bytes (big-endian) and a datagram. Each has a
// goroutine that reads, into a buffer the receiver takes as a whole, and one that writes what senders have put into its
// queue. The queue is bounded in bytes, and what finds no room is dropped, as a network would: a far end that reads
// slowly holds up nobody.
//
// TLS hides nothing that the datagrams do not hide themselves, and proves nothing: it is there because what blocks UDP often lets
// through nothing else. So the client takes any certificate, and everybody may connect. What nobody has vouched for by an
// authenticated datagram ([transport.Streamer].InUse) is bounded in number, in all and for each address, in time and in
// what is read of it.
package stream
