// Package capture records the packets inside a tunnel for those who look at them, as pcapng
// (draft-ietf-opsawg-pcapng), which tcpdump and Wireshark read.
//
// The datapath puts records into every [Ring] of a [Set] on its way: it copies, and neither waits, locks nor allocates.
// Where a ring is full the record is dropped and counted. Each ring has one consumer, off the path, which adds what
// costs time: the wall clock, names, the checksum that was left to the receiving kernel ([Writer]). [Reader] takes what a
// Writer wrote apart again.
//
// What is recorded: outbound a packet as it was read from the interface, which may be a super-packet of up to 64 KiB
// whose checksum is partial, just as tcpdump on that interface shows it; inbound each packet as it is delivered, before
// several are merged for the interface.
//
// Memory: a ring of n bytes takes n and a sixteenth of it, 17 MiB by default; a set has at most [MaxCaptures] rings.
package capture
