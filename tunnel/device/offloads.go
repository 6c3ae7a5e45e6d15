package device

// Offloads says which work a queue's far side takes over on Write. What it does not take, Write does itself.
type Offloads struct {
	Checksum bool // Offload.NeedsChecksum
	TCP      bool // GSOTCPv4 and GSOTCPv6
	UDP      bool // GSOUDP
}

// Offloader is a [Queue] that takes offloads. A queue without this method takes none, so that merging packets for it
// would be wasted.
type Offloader interface {
	Offloads() Offloads
}

// MTUSetter is a [Device] whose MTU can be set.
type MTUSetter interface {
	SetMTU(mtu int) error
}

// CarrierSetter is a [Device] whose carrier can be turned on and off (TUNSETCARRIER): without it the interface is up but not
// running, so that routing, bonds and bridges look for another way.
type CarrierSetter interface {
	SetCarrier(on bool) error
}

// HardwareAddresser is a [Device] with a hardware address: a tap.
type HardwareAddresser interface {
	// HardwareAddress is the interface's present MAC address.
	HardwareAddress() ([6]byte, error)
}

// gsoUnknown marks a packet whose offload is of a kind that was never asked for; [Segments.Reset] refuses it, so it is
// counted where every other malformed packet is.
const gsoUnknown GSO = 0xff
