package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"

	"culvert/crypto"
	"culvert/crypto/session"
	"culvert/crypto/tai64n"
	"culvert/transport"
	"culvert/tunnel/access"
)

// StateVersion is the version of [State]'s encoding. Another one is refused.
const StateVersion = 1

// Bounds of an encoded state.
const (
	// MaxState is its size in bytes: about 6 KiB for each session whose replay window is full.
	MaxState      = 256 << 20
	maxStatePeers = 1 << 17
)

// State is what a suspended tunnel knows that its configuration does not say. Its times are of the tunnel's clock. It holds keys.
type State struct {
	Version   int              `cbor:"1,keyasint"`
	Now       time.Duration    `cbor:"2,keyasint"` // when it was read
	Wall      int64            `cbor:"3,keyasint"` // the same by the wall clock, in Unix nanoseconds
	Public    crypto.PublicKey `cbor:"4,keyasint"` // the tunnel's own: sessions are of no use with another
	LanePorts int              `cbor:"5,keyasint,omitempty"`
	Peers     []PeerState      `cbor:"6,keyasint,omitempty"`

	byKey map[crypto.PublicKey]*PeerState
	room  int // for flows, of the peers that are restored
}

// PeerState is what is known of a peer.
type PeerState struct {
	Public          crypto.PublicKey `cbor:"1,keyasint"`
	Wire            Wire             `cbor:"2,keyasint"`
	Endpoint        *EndpointState   `cbor:"3,keyasint,omitempty"`
	SentBytes       uint64           `cbor:"4,keyasint,omitempty"`
	SentPackets     uint64           `cbor:"5,keyasint,omitempty"`
	ReceivedBytes   uint64           `cbor:"6,keyasint,omitempty"`
	ReceivedPackets uint64           `cbor:"7,keyasint,omitempty"`
	LastHandshake   int64            `cbor:"8,keyasint,omitempty"`
	HeardAt         int64            `cbor:"9,keyasint,omitempty"`
	LastTimestamp   tai64n.Timestamp `cbor:"10,keyasint"` // of its last initiation, so that none is taken again
	SentTimestamp   tai64n.Timestamp `cbor:"11,keyasint"` // of this end's, so that the next is later
	LastConsumed    time.Duration    `cbor:"12,keyasint,omitempty"`
	Keepalive       int64            `cbor:"13,keyasint,omitempty"`
	NewHandshake    int64            `cbor:"14,keyasint,omitempty"`
	Erase           int64            `cbor:"15,keyasint,omitempty"`
	Persistent      int64            `cbor:"16,keyasint,omitempty"`
	Handshaking     bool             `cbor:"17,keyasint,omitempty"` // one was under way, and is begun again
	PathMTU         int              `cbor:"18,keyasint,omitempty"` // of the native wire: the largest message that the path was known to take
	Keypairs        []KeypairState   `cbor:"19,keyasint,omitempty"`
	Flows           *access.Kept     `cbor:"20,keyasint,omitempty"` // that it has been allowed
}

// EndpointState is where a peer was last.
type EndpointState struct {
	Remote    netip.AddrPort `cbor:"1,keyasint"`
	Source    netip.Addr     `cbor:"2,keyasint"`
	Interface int32          `cbor:"3,keyasint,omitempty"`
}

// endpoint is the endpoint, where it is one that datagrams can come from and go to.
func (s *EndpointState) endpoint() (ep transport.Endpoint, ok bool) {
	remote, source := netip.AddrPortFrom(s.Remote.Addr().Unmap(), s.Remote.Port()), s.Source.Unmap()
	a := remote.Addr()
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || remote.Port() == 0 {
		return ep, false
	}
	if z := a.Zone(); z != "" {
		if _, err := strconv.ParseUint(z, 10, 31); err != nil {
			return ep, false
		}
	}
	ep.Remote = remote
	if source.IsValid() && source.Zone() == "" && source.Is4() == a.Is4() && !source.IsUnspecified() && !source.IsMulticast() && s.Interface >= 0 {
		ep.Source, ep.Interface = source, s.Interface
	}
	return ep, true
}

// Place is a keypair's among its peer's three.
type Place uint8

// The places.
const (
	PlaceCurrent Place = iota + 1
	PlacePrevious
	PlaceNext
)

// KeypairState is a session with its lanes.
type KeypairState struct {
	Place    Place           `cbor:"1,keyasint"`
	Session  session.State   `cbor:"2,keyasint"`
	Lanes    []session.State `cbor:"3,keyasint,omitempty"` // from lane 1 on
	Patience time.Duration   `cbor:"4,keyasint,omitempty"`
	Crossed  bool            `cbor:"5,keyasint,omitempty"`
	Retired  bool            `cbor:"6,keyasint,omitempty"`
	Received uint64          `cbor:"7,keyasint,omitempty"`
}

// Erase overwrites the keys.
func (s *State) Erase() {
	for i := range s.Peers {
		for j := range s.Peers[i].Keypairs {
			s.Peers[i].Keypairs[j].Erase()
		}
	}
}

// Erase overwrites the keys.
func (k *KeypairState) Erase() {
	k.Session.Erase()
	for i := range k.Lanes {
		k.Lanes[i].Erase()
	}
}

// peer returns the state of a peer, or nil.
func (s *State) peer(key crypto.PublicKey) *PeerState {
	if s.byKey == nil {
		s.byKey = make(map[crypto.PublicKey]*PeerState, len(s.Peers))
		for i := range s.Peers {
			s.byKey[s.Peers[i].Public] = &s.Peers[i]
		}
	}
	return s.byKey[key]
}

// longestHandover bounds the time that is taken to have passed between two processes, should the clock be set in between. No session is of use
// any more after it.
const longestHandover = session.RejectAfterTime

// nowIn is what the tunnel's clock says at a time of the wall clock.
func (s *State) nowIn(wall time.Time) time.Duration {
	passed := wall.Sub(time.Unix(0, s.Wall)) // which does not overflow
	return min(max(s.Now, 1), maxNow) + min(max(passed, 0), longestHandover)
}

// maxNow bounds a tunnel's clock, which begins with the tunnel or the one that it goes on for: far from where times overflow.
const maxNow = 100 * 365 * 24 * time.Hour

// ErrState refuses what is no state of this version.
var ErrState = errors.New("not the state of a tunnel")

// Encode returns the state in CBOR. Who has it overwrites it after use.
func (s *State) Encode() ([]byte, error) {
	b, err := EncodeSecret(s, min(s.most(), MaxState), MaxState)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return b, nil
}

// most bounds the state's encoding from above, in bytes.
func (s *State) most() int {
	const head, peer, session = 256, 768, 256
	most := head
	for i := range s.Peers {
		p := &s.Peers[i]
		most += peer
		if p.Flows != nil {
			most += len(p.Flows.Flows)
		}
		for j := range p.Keypairs {
			k := &p.Keypairs[j]
			most += session + 9*len(k.Session.Window.Words)
			for l := range k.Lanes {
				most += session + 9*len(k.Lanes[l].Window.Words)
			}
		}
	}
	return most
}

// EncodeSecret returns v in CBOR, in memory that is the caller's alone to overwrite: room bytes are there from the beginning, since a buffer that
// grows, or one that is shared, leaves copies behind. More than limit bytes are an error.
func EncodeSecret(v any, room, limit int) ([]byte, error) {
	buf := bytes.NewBuffer(make([]byte, 0, room))
	err := stateEncoding.MarshalToBuffer(v, buf)
	if err == nil && buf.Len() > limit {
		err = fmt.Errorf("%d bytes, more than %d", buf.Len(), limit)
	}
	if err != nil {
		clear(buf.Bytes())
		return nil, err
	}
	return buf.Bytes(), nil
}

// DecodeState reads what Encode has written. Everything in it is checked again when it is restored.
func DecodeState(b []byte) (*State, error) {
	if len(b) > MaxState {
		return nil, fmt.Errorf("%w: %d bytes", ErrState, len(b))
	}
	// The version first: the rest may be laid out differently in another.
	var head struct {
		Version int `cbor:"1,keyasint"`
	}
	if err := cbor.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if head.Version != StateVersion {
		return nil, fmt.Errorf("%w: version %d, and this program knows %d", ErrState, head.Version, StateVersion)
	}
	s := new(State)
	if err := stateDecoding.Unmarshal(b, s); err != nil {
		s.Erase()
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if s.Now < 0 || s.Now > maxNow {
		s.Erase()
		return nil, fmt.Errorf("%w: read at %v of its clock", ErrState, s.Now)
	}
	return s, nil
}

var stateEncoding = func() cbor.UserBufferEncMode {
	mode, err := cbor.CoreDetEncOptions().UserBufferEncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

var stateDecoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements: maxStatePeers, MaxNestedLevels: 16,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()
