package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"culvert/crypto"
	"culvert/tunnel/ethernet"
)

// FrameTrial is an engine that switches frames between its device and many peers, all of them spokes. One peer's station sends
// to one behind the device; another peer sends hostile frames. Everything goes over loopback sockets; the engine has the first
// core for itself.
type FrameTrial struct {
	Round      int    `json:"round"`  // from 1
	Frames     string `json:"frames"` // what the hostile peer sends; "none" for comparison
	LoadBefore string `json:"load_before"`
	Error      string `json:"error,omitempty"`

	Seconds          float64           `json:"seconds"`
	Sent             int64             `json:"sent"` // hostile frames
	SentBytes        int64             `json:"sent_bytes"`
	Received         uint64            `json:"received"`  // datagrams that the engine's socket got, those of the good peer included
	Forwarded        uint64            `json:"forwarded"` // messages to peers but the good one
	CPU              float64           `json:"cpu"`       // of the engine's process, in seconds
	GoodSent         int64             `json:"good_sent"` // frames of the good peer's station
	GoodCame         int64             `json:"good_received"`
	Latency          *Times            `json:"latency,omitempty"` // of these, one way
	Addresses        int               `json:"addresses"`         // in the table at the end
	HostileAddresses int               `json:"hostile_addresses"` // of them the hostile peer's
	Moves            uint64            `json:"moves"`             // of addresses
	Blocked          bool              `json:"blocked,omitempty"` // the engine took what it saw for a loop
	HeapBefore       uint64            `json:"heap_before_bytes"` // live
	HeapAfter        uint64            `json:"heap_after_bytes"`  //
	RSSBefore        int64             `json:"rss_before_bytes"`  //
	RSSPeak          int64             `json:"rss_peak_bytes"`    //
	Drops            map[string]uint64 `json:"drops,omitempty"`   // by the engine
}

// What the hostile peer sends. All frames but broadcasts and unknown unicast are for the station behind the device.
const (
	framesNone       = "none"
	framesAddresses  = "new addresses"    // each from another
	framesBroadcasts = "broadcasts"       //
	framesUnknown    = "unknown unicast"  // each to another address
	framesHijacks    = "hijacks"          // from the addresses of all others, the station behind the device included
	framesPinned     = "hijacks, pinned"  // the same where every peer's address is pinned to it
	framesMalformed  = "runts, oversized" // by turns
)

var frameKinds = []string{
	framesNone, framesAddresses, framesBroadcasts, framesUnknown, framesHijacks, framesPinned, framesMalformed,
}

const (
	// framePeers is how many peers the switch has: the good one, the hostile one, and others that only listen.
	framePeers = 64
	// frameMTU is that of the switch's device.
	frameMTU = 1500
	// frameContent is what hostile frames hold behind their header, in bytes.
	frameContent = 86
)

// localStation is behind the switch's device.
const localStation ethernet.Address = 0x02_00_00_00_00_01

// stationOf is the station of a peer, by its number: 0 is the good one, 1 the hostile one.
func stationOf(peer int) ethernet.Address { return 0x02_00_00_00_01_00 + ethernet.Address(peer) }

// typeBench is the EtherType of frames here: IEEE 802 local experimental 2.
const typeBench = 0x88b6

// appendFrame appends a frame.
func appendFrame(b []byte, to, from ethernet.Address, content []byte) []byte {
	var header [ethernet.HeaderSize]byte
	to.Put(header[:])
	from.Put(header[ethernet.AddressSize:])
	binary.BigEndian.PutUint16(header[2*ethernet.AddressSize:], typeBench)
	return append(append(b, header[:]...), content...)
}

// hostileFrame appends the nth frame of a kind.
func hostileFrame(b []byte, kind string, n uint64, content []byte) []byte {
	to, from := localStation, stationOf(1)
	// Every number gives another address, locally administered and of a single station, and none that is in use.
	other := 0x06_00_00_00_00_00 | ethernet.Address(n*0x9e37_79b9_7f4a_7c15>>24&0x00ff_ffff_ffff)
	switch kind {
	case framesAddresses:
		from = other
	case framesBroadcasts:
		to = ethernet.Broadcast
	case framesUnknown:
		to = other
	case framesHijacks, framesPinned:
		switch i := int(n % framePeers); i {
		case 1:
			from = localStation
		default:
			from = stationOf(i)
		}
		if from == localStation {
			to = stationOf(0)
		}
	case framesMalformed:
		if n%2 == 0 {
			return append(b, content[:n/2%ethernet.HeaderSize]...)
		}
		return append(appendFrame(b, to, from, content), make([]byte, frameMTU+1-len(content))...)
	}
	return appendFrame(b, to, from, content)
}

// measure makes one trial.
func (t *FrameTrial) measure(s *stage, o *options) error {
	victim, err := startAgentOn(s, 0)
	if err != nil {
		return err
	}
	var others [2]*agent
	for i := range others {
		if others[i], err = startAgentOn(s, 1); err != nil {
			return err
		}
	}
	partner, hostile := others[0], others[1]
	var private, public []string
	for range framePeers {
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			return err
		}
		private, public = append(private, key.Hex()), append(public, key.Public().Hex())
	}
	at, err := call[victimAddress](victim, "frames-switch", switchRun{public, t.Frames == framesPinned}, engineWait)
	if err != nil {
		return err
	}
	if _, err := call[none](partner, "frames-partner", engineFar{private[0], at}, engineWait); err != nil {
		return err
	}
	if _, err := call[none](hostile, "frames-crowd", crowdRun{private[1:], at}, engineWait); err != nil {
		return err
	}
	if _, err := call[none](victim, "frames-begin", none{}, engineWait); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var sent tunnelSent
	var attacked framesSent
	var errs [2]error
	wg.Go(func() {
		sent, errs[0] = call[tunnelSent](partner, "frames-traffic", trafficRun{tunnelRate, o.Duration}, o.Duration)
	})
	if t.Frames != framesNone {
		wg.Go(func() {
			attacked, errs[1] = call[framesSent](hostile, "frames-send", framesRun{t.Frames, o.FrameRate, o.Duration}, o.Duration)
		})
	}
	wg.Wait()
	got, err := call[switchResult](victim, "frames-end", none{}, engineWait)
	if err = errors.Join(errs[0], errs[1], err); err != nil {
		return err
	}
	t.Seconds, t.Received, t.CPU, t.Drops = got.Seconds, got.Received, got.CPU, got.Drops
	t.HeapBefore, t.HeapAfter, t.RSSBefore, t.RSSPeak = got.HeapBefore, got.HeapAfter, got.RSSBefore, got.RSSPeak
	t.Forwarded, t.Addresses, t.HostileAddresses, t.Moves, t.Blocked = got.Forwarded, got.Addresses, got.HostileAddresses, got.Moves, got.Blocked
	t.Sent, t.SentBytes = attacked.Frames, attacked.Bytes
	t.GoodSent, t.GoodCame = sent.Packets, int64(len(got.Times))
	if len(got.Times) == 0 {
		return nil // crowded out, which is a result
	}
	t.Latency, err = timesOf(pingResult{Times: got.Times})
	return err
}

func (t *FrameTrial) summary() string {
	parts := []string{fmt.Sprintf("%-16s", t.Frames)}
	for _, q := range frameQuantities {
		if v, ok := q.of(t, nil); ok && q.short {
			parts = append(parts, figure(v)+" "+q.unit)
		}
	}
	if t.Error != "" {
		parts = append(parts, "FAILED: "+t.Error)
	}
	return strings.Join(parts, "  ")
}
