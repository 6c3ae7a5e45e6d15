// Package ethernet reads and rewrites the headers of Ethernet II frames (IEEE 802.3), with VLAN tags (IEEE 802.1Q), in place and
// without allocating. A frame is without preamble and check sequence, as a tap device hands it over.
package ethernet
