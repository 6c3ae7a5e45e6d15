// Package icmp builds the ICMP errors a router owes its neighbours (RFC 792, RFC 1812, RFC 4443): destination unreachable
// and packet too big, for IPv4 and IPv6. It answers only packets that may be answered, so that errors never beget errors
// nor go to more than one host, and [Limiter] bounds how many there are. Everything here is a pure function of its
// arguments: no I/O, no clock, and no allocation where the caller's buffer is large enough.
package icmp
