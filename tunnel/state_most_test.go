package tunnel

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"culvert/crypto/replay"
	"culvert/crypto/session"
	"culvert/tunnel/access"
)

// The encoding of a state stays in the memory that was made for it, whatever is in it: a buffer that grew would leave keys behind.
func TestStateFitsItsRoom(t *testing.T) {
	full := func() session.State {
		s := session.State{Local: math.MaxUint32, Remote: math.MaxUint32, Initiator: true, Created: math.MaxInt64, Suite: 255, Next: math.MaxUint64, Bytes: math.MaxUint64,
			Window: replay.State{Max: math.MaxUint64, Words: make([]uint64, replay.MaxWords)}}
		for i := range s.Window.Words {
			s.Window.Words[i] = math.MaxUint64
		}
		for i := range s.Send {
			s.Send[i], s.Receive[i] = 255, 255
		}
		return s
	}
	s := &State{Version: StateVersion, Now: math.MaxInt64, Wall: math.MaxInt64, LanePorts: math.MaxInt64}
	for range 40 {
		p := PeerState{
			Wire: 255, SentBytes: math.MaxUint64, SentPackets: math.MaxUint64, ReceivedBytes: math.MaxUint64, ReceivedPackets: math.MaxUint64,
			LastHandshake: math.MinInt64, HeardAt: math.MinInt64, LastConsumed: math.MinInt64, Keepalive: math.MinInt64, NewHandshake: math.MinInt64,
			Erase: math.MinInt64, Persistent: math.MinInt64, Handshaking: true, PathMTU: math.MaxInt64,
			Endpoint: &EndpointState{Remote: netip.MustParseAddrPort("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535"),
				Source: netip.MustParseAddrPort("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1").Addr(), Interface: math.MaxInt32},
			Flows: &access.Kept{Room: math.MaxInt64, Flows: make([]byte, 1000)},
		}
		for i := range p.Public {
			p.Public[i] = 255
		}
		for i := range p.LastTimestamp {
			p.LastTimestamp[i], p.SentTimestamp[i] = 255, 255
		}
		for place := range Place(3) {
			k := KeypairState{Place: place + 1, Session: full(), Patience: time.Duration(math.MaxInt64), Crossed: true, Retired: true, Received: math.MaxUint64}
			for range 7 {
				k.Lanes = append(k.Lanes, full())
			}
			p.Keypairs = append(p.Keypairs, k)
		}
		s.Peers = append(s.Peers, p)
	}
	room := s.most()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if cap(b) != room || len(b) < room/2 {
		t.Errorf("%d bytes in %d, and room was made for %d", len(b), cap(b), room)
	}
}
