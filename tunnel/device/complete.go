package device

// CompleteChecksum calculates the elided transport checksum of an IP packet, or of an Ethernet frame where frame is set, and
// writes it into its field, whatever was there. It reports false, and changes nothing, where [Elided], or [ElidedFrame],
// does not hold. It is for who looks at packets: on their way the kernel does this work (see [FinishElided]).
func CompleteChecksum(packet []byte, frame bool) bool {
	var o Offload
	var ok bool
	if frame {
		o, ok = FinishElidedFrame(packet)
	} else {
		o, ok = FinishElided(packet)
	}
	if !ok {
		return false
	}
	// The field holds the pseudo-header's sum, so the sum over all of the transport's bytes is the one that is wanted.
	sum := ^fold(checksum(0, packet[o.ChecksumStart:]))
	if sum == 0 && o.ChecksumOffset == udpChecksum {
		sum = 0xffff // RFC 768
	}
	putField(packet, int(o.ChecksumStart+o.ChecksumOffset), sum)
	return true
}
