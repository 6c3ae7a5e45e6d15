package tunnel

import (
	"time"

	"culvert/tunnel/device"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/neighbour"
	"culvert/tunnel/switching"
)

// This file is how questions of ARP and IPv6 neighbour discovery are answered in a station's place. They are few, so the
// workers share a table behind a lock.

// note takes note of what a frame says of its sender's addresses.
func (b *bridge) note(frame []byte, h *ethernet.Header, from switching.Port, now time.Duration) {
	if h.Type != ethernet.TypeARP && h.Type != ethernet.TypeIPv6 {
		return
	}
	if binding, ok := neighbour.Snoop(frame); ok {
		b.neighbours.Learn(binding, h.VLAN, int(from), now)
	}
}

// answered answers a frame from the device where it is a question for a station behind a peer. It is for frames that would be
// flooded.
func (w *outbound) answered(frame []byte, h *ethernet.Header, now time.Duration) bool {
	b := w.tunnel.bridge
	b.note(frame, h, switching.Device, now)
	target, ok := neighbour.Asked(frame)
	if !ok {
		return false
	}
	binding, at, ok := b.neighbours.Lookup(target, h.VLAN, now)
	if !ok || at == int(switching.Device) {
		return false
	}
	if port, known := b.table.Lookup(switching.KeyOf(binding.MAC, h.VLAN), now); !known || int(port) != at {
		return false // it has moved, or says nothing any more
	}
	answer, ok := neighbour.Answer(frame, binding, w.frames.answer[device.Headroom:])
	if !ok {
		return false
	}
	b.answers.Add(1)
	// Where it is lost, it is asked for again.
	_ = w.queue.Write(w.frames.answer[:], device.Headroom, device.Headroom+len(answer), device.Offload{})
	return true
}
