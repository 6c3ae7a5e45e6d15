package capture

// The part of pcapng (draft-ietf-opsawg-pcapng) that is written and read here: one section in little-endian order with one
// interface. A block is
//
//	type u32, total length u32, body, total length u32
//
// with a length that is a multiple of 4, counts all of it, and is there twice. Options end a body: code u16, length u16, value
// padded to 4 bytes; code 0 ends them.

// Types of blocks.
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockStatistics = 5
	blockPacket     = 6
)

const (
	byteOrderMagic = 0x1a2b3c4d

	// blockOverhead is the length of a block's type and both of its lengths, in bytes.
	blockOverhead = 12
	// packetFixed is the fixed part of an Enhanced Packet Block's body: interface u32, timestamp 2*u32, captured length u32,
	// original length u32.
	packetFixed = 20
	// statisticsFixed is that of an Interface Statistics Block: interface u32, timestamp 2*u32.
	statisticsFixed = 12
	// interfaceFixed is that of an Interface Description Block: link type u16, reserved u16, snap length u32.
	interfaceFixed = 8
	// sectionFixed is that of a Section Header Block: magic u32, major u16, minor u16, section length i64.
	sectionFixed = 16
)

// Link types (https://www.tcpdump.org/linktypes.html).
const (
	linkEthernet = 1
	linkRaw      = 101 // IPv4 or IPv6, as the first four bits say
)

// Codes of options.
const (
	optEnd     = 0
	optComment = 1

	sectionProgram = 4 // shb_userappl

	interfaceName        = 2
	interfaceDescription = 3
	interfaceResolution  = 9

	packetFlags   = 2
	packetDropped = 4

	statisticsStart     = 2
	statisticsEnd       = 3
	statisticsReceived  = 4
	statisticsDropped   = 5
	statisticsDelivered = 8
)

// nanoseconds is the resolution of time stamps, as a negative power of ten (if_tsresol).
const nanoseconds = 9

// Bits of epb_flags.
const (
	flagsInbound     = 1
	flagsOutbound    = 2
	flagsDirection   = 3
	flagsNoChecksum  = 1 << 9  // the checksum is not ready
	flagsSegmentable = 1 << 11 // TCP segmentation is offloaded
)

// maxText bounds what is written of a name, a description or a comment, in bytes.
const maxText = 512
