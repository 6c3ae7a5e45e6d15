// Package message encodes and decodes the control messages of the native wire, the content of data messages of kind 6.
//
// One message is one CBOR array (RFC 8949) of three elements: type, number, body. The body is a map with integer keys.
//
//	type  name     number  body
//	1     hello    from 1  {1: agent, text of at most 64 bytes; 2: inner MTU, bytes; 3: layer, 2 or 3}
//	2     ack      0       {1: number}
//	3     echo     0       {1: id; 2: data messages sent under this session so far}
//	4     reply    0       {1: id; 2: data messages authenticated under this session so far}
//	5     probe    0       {1: id}, then zero bytes up to the size that is probed
//	6     probed   0       {1: id}
//	7     push     from 1  {1: subject, text of 1 to 32 bytes; 2: document, at most 15 KiB}
//	8     goodbye  0       {1: reason}
//	9     moved    0       {1: hops left, 0 to 16}
//
// What comes from a peer is not trusted because it was authenticated: lengths are definite; there are no tags, floats
// or other simple values than false, true and null; no body has a key twice or a key that is not an integer; arrays and
// maps have at most 16 elements, nested at most 4 deep with the outer array; text is UTF-8; a message takes at most 16 KiB
// and nothing follows it, but the zeros of a probe. A message that breaks a rule is refused as a whole. Keys that are
// not known are passed over, whatever they hold by these rules, and a type that is not known comes out as [Unknown], so
// that newer peers can say more. What is encoded here is in the deterministic form of RFC 8949 §4.2.1; what is decoded need
// not be.
//
// The package holds pure functions that keep nothing; what they return never aliases what they were given.
package message
