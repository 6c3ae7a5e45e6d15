package tunnel

import (
	"sync/atomic"
	"time"
	"unsafe"

	"culvert/tunnel/device"
)

// Bounds on the packets that wait for a handshake: per peer, and over all peers of a tunnel.
const (
	maxStagedPackets = 128
	maxStagedBytes   = 256 << 10
	maxStagedTotal   = 32 << 20

	// maxStagedFrame is how old an Ethernet frame may be when it is sent: what says where its sender is must not come long after
	// that has moved. It is about what a handshake takes whose first message is lost.
	maxStagedFrame = 6 * time.Second
)

// stagedPacket is a copy of a packet or super-packet from the device, with the room in front and behind it that sealing needs.
type stagedPacket struct {
	buf     []byte
	lo, hi  int
	offload device.Offload
	at      time.Duration // when it was read
}

// staged holds the packets of one peer that wait for a handshake, oldest first. The peer's lock guards it.
type staged struct {
	packets []stagedPacket
	bytes   int // of memory, by stagedCost
}

// stagedCost is the memory a staged packet of n bytes takes, so that small packets are bounded as well as large ones.
func stagedCost(n int) int {
	return device.Headroom + n + device.Tailroom + int(unsafe.Sizeof(stagedPacket{}))
}

// push copies a packet to the end of the queue. Where a bound is reached the oldest packets make room, since what is
// newest is likeliest to be of use still. It returns how many packets were lost, and why.
func (s *staged) push(packet []byte, o device.Offload, now time.Duration, total *atomic.Int64) (lost int, why DropReason) {
	cost := stagedCost(len(packet))
	for len(s.packets) > 0 && (len(s.packets) >= maxStagedPackets || s.bytes+cost > maxStagedBytes) {
		s.drop(total)
		lost++
	}
	if total.Add(int64(cost)) > maxStagedTotal {
		total.Add(-int64(cost))
		return lost + 1, DropOutStagedMemory
	}
	buf := make([]byte, device.Headroom+len(packet)+device.Tailroom)
	copy(buf[device.Headroom:], packet)
	s.packets = append(s.packets, stagedPacket{buf: buf, lo: device.Headroom, hi: device.Headroom + len(packet), offload: o, at: now})
	s.bytes += cost
	return lost, DropOutStagedFull
}

// drop removes the oldest packet.
func (s *staged) drop(total *atomic.Int64) {
	cost := stagedCost(s.packets[0].hi - s.packets[0].lo)
	s.packets[0] = stagedPacket{}
	s.packets = s.packets[1:]
	s.bytes -= cost
	total.Add(-int64(cost))
}

// clear removes all packets and returns how many there were.
func (s *staged) clear(total *atomic.Int64) int {
	n := len(s.packets)
	total.Add(-int64(s.bytes))
	*s = staged{}
	return n
}
