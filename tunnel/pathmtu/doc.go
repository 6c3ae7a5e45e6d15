// Package pathmtu finds the largest datagram a path carries by sending probes through the tunnel itself (datagram
// packetization layer path MTU discovery, RFC 8899), and notices when the path carries less than before, whether or not
// any router says so. [Search] is the state machine for one peer; [ClampMSS] keeps inner TCP to segments that fit.
//
// A size is the length of a UDP payload in bytes, IP and UDP headers not counted.
//
// Nothing here does I/O or reads a clock: now is the time since some epoch, never zero. Nothing is safe for concurrent
// use.
package pathmtu
