package tunnel

import (
	"time"

	"culvert/tunnel/capture"
	"culvert/tunnel/device"
)

// Capture implements [capture.Source]: what the tunnel carries is recorded into r as well, as it is inside. Errors:
// capture.ErrTooMany; ErrClosed.
func (t *Tunnel) Capture(r *capture.Ring) (capture.Feed, error) {
	select {
	case <-t.closing:
		return capture.Feed{}, ErrClosed
	default:
	}
	stop, err := t.captures.Add(r)
	if err != nil {
		return capture.Feed{}, err
	}
	return capture.Feed{Layer: t.device.Layer(), Epoch: t.clock.wall().Add(-t.clock.now()), Stop: stop}, nil
}

// recordOut records a packet from the device. to is nil where it goes to nobody or several.
func (t *Tunnel) recordOut(to *peer, packet []byte, o device.Offload, now time.Duration) {
	m := capture.Meta{At: now, Out: true, Partial: o.NeedsChecksum, Super: o.GSO != device.GSONone}
	if to != nil {
		m.Peer = to.public
	}
	t.captures.Put(m, packet)
}

// recordIn records a packet from a peer that has been admitted.
func (t *Tunnel) recordIn(from *peer, packet []byte, elided bool, now time.Duration) {
	t.captures.Put(capture.Meta{At: now, Peer: from.public, Elided: elided}, packet)
}
