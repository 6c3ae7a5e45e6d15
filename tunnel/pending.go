package tunnel

import (
	"culvert/crypto/noise"
)

// pendingHandshake is a handshake this end began, which awaits its response; one of either wire.
type pendingHandshake interface {
	LocalIndex() uint32
	// consume verifies the response; on error the handshake still waits. The peer's lock is held.
	consume(p *peer, response []byte) (noise.Keys, derived, error)
	Erase()
}

type wireGuardPending struct{ *noise.Initiator }

func (h wireGuardPending) consume(p *peer, response []byte) (noise.Keys, derived, error) {
	keys, remote, err := h.Consume(response, p.psk)
	return keys, derived{initiator: true, local: h.LocalIndex(), remote: remote}, err
}

type hybridPending struct {
	*noise.HybridInitiator
	offer noise.Parameters
}

func (h hybridPending) consume(p *peer, response []byte) (noise.Keys, derived, error) {
	keys, chosen, remote, err := h.Consume(response, p.psk)
	if err != nil {
		return keys, derived{}, err
	}
	suite, _ := chosen.Suites.Only() // Consume has made sure
	p.farLayer(chosen.Layer)
	return keys, derived{suite: suite, initiator: true, local: h.LocalIndex(), remote: remote, lanes: h.offer.LanesWith(chosen)}, nil
}

// hybrid reports whether a message type belongs to the native wire's handshake.
func hybrid(kind uint8) bool { return kind >= noise.TypeHybridInitiation }
