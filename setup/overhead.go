package setup

const (
	// WireGuardOverhead is what a packet grows by at most on WireGuard's wire, in bytes: an IPv6 header (40), a UDP header
	// (8), a data message's header (16) and its authentication tag (16).
	WireGuardOverhead = 40 + 8 + 16 + 16
	// NativeOverhead is the same for the native wire, which adds a byte behind the packet, rounded up so that an MTU that
	// is a multiple of 4 stays one: 1416 over Ethernet.
	NativeOverhead = WireGuardOverhead + 4
	// DefaultMTU is the MTU of a tunnel on WireGuard's wire over Ethernet.
	DefaultMTU = ethernetMTU - WireGuardOverhead

	ethernetMTU = 1500
)
