package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"culvert/crypto"
)

// FloodTrial is an engine with many peers on the native wire, one of which has a tunnel with traffic, under a flood of
// handshake messages with the right mac1. Everything goes over loopback sockets; the engine has the first core for itself.
type FloodTrial struct {
	Round      int    `json:"round"` // from 1
	Flood      string `json:"flood"` // "none" for comparison
	LoadBefore string `json:"load_before"`
	Error      string `json:"error,omitempty"`

	Seconds     float64           `json:"seconds"`
	Sent        int64             `json:"sent"` // messages of the flood
	SentBytes   int64             `json:"sent_bytes"`
	Answers     int64             `json:"answers"` // to the flood
	AnswerBytes int64             `json:"answer_bytes"`
	Received    uint64            `json:"received"` // datagrams that the engine's socket got, those of the tunnel included
	CPU         float64           `json:"cpu"`      // of the engine's process, in seconds
	TunnelSent  int64             `json:"tunnel_sent"`
	TunnelCame  int64             `json:"tunnel_received"`
	Latency     *Times            `json:"latency,omitempty"`   // of the tunnel's packets, one way
	Handshake   *Times            `json:"handshake,omitempty"` // of a peer without a session, that began meanwhile; nil: none came about
	Tries       float64           `json:"handshake_tries,omitempty"`
	HeapBefore  uint64            `json:"heap_before_bytes"` // live
	HeapAfter   uint64            `json:"heap_after_bytes"`
	RSSBefore   int64             `json:"rss_before_bytes"`
	RSSPeak     int64             `json:"rss_peak_bytes"`
	Drops       map[string]uint64 `json:"drops,omitempty"` // by the engine
}

// The floods. Each is of messages that anybody can make who knows the engine's public key, or, the last, who saw some.
const (
	floodNone      = "none"
	floodJunk      = "junk"         // random behind the mac, both parts
	floodStrangers = "strangers"    // genuine, of keys that are no peer's
	floodImpostors = "impostors"    // a peer's key, but a hello that does not open
	floodSeconds   = "second parts" // of no initiation
	floodReplays   = "replays"      // of one initiation that was answered
)

var floodKinds = []string{floodNone, floodJunk, floodStrangers, floodImpostors, floodSeconds, floodReplays}

const (
	// floodPeers is how many peers the engine has besides the tunnel's.
	floodPeers = 1000
	// floodKeys is how many of their private keys the attacker is given to make messages with, of which impostors' are then
	// broken.
	floodKeys = 16
	// tunnelRate is how many packets per second the tunnel carries.
	tunnelRate = 1000
)

// measure makes one trial.
func (t *FloodTrial) measure(s *stage, o *options) error {
	victim, err := startAgentOn(s, 0)
	if err != nil {
		return err
	}
	var others [3]*agent // the tunnel's other end, the attacker, a peer that comes meanwhile
	for i := range others {
		if others[i], err = startAgentOn(s, 1); err != nil {
			return err
		}
	}
	partner, attacker, newcomer := others[0], others[1], others[2]
	var private, public []string
	for range 2 + floodKeys {
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			return err
		}
		private, public = append(private, key.Hex()), append(public, key.Public().Hex())
	}
	at, err := call[victimAddress](victim, "flood-victim", victimRun{Peers: public, More: floodPeers - floodKeys}, engineWait)
	if err != nil {
		return err
	}
	to := engineFar{Private: private[0], Far: at}
	if _, err := call[none](partner, "flood-partner", to, engineWait); err != nil {
		return err
	}
	if _, err := call[none](attacker, "flood-attacker", attackerRun{Victim: at, Flood: t.Flood, Keys: private[2:]}, engineWait); err != nil {
		return err
	}
	if _, err := call[none](victim, "flood-begin", none{}, engineWait); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var sent tunnelSent
	var attacked floodSent
	var joined joinResult
	var errs [3]error
	wg.Go(func() {
		sent, errs[0] = call[tunnelSent](partner, "flood-traffic", trafficRun{tunnelRate, o.Duration}, o.Duration)
	})
	if t.Flood != floodNone {
		wg.Go(func() {
			attacked, errs[1] = call[floodSent](attacker, "flood-send", floodRun{o.FloodRate, o.Duration}, o.Duration)
		})
	}
	wg.Go(func() {
		to := engineFar{Private: private[1], Far: at}
		joined, errs[2] = call[joinResult](newcomer, "flood-join", joinRun{to, o.Duration / 4, o.Duration * 3 / 4}, o.Duration)
	})
	wg.Wait()
	got, err := call[victimResult](victim, "flood-end", none{}, engineWait)
	if err = errors.Join(slices.Concat(errs[:], []error{err})...); err != nil {
		return err
	}
	t.Seconds, t.Received, t.CPU, t.Drops = got.Seconds, got.Received, got.CPU, got.Drops
	t.HeapBefore, t.HeapAfter, t.RSSBefore, t.RSSPeak = got.HeapBefore, got.HeapAfter, got.RSSBefore, got.RSSPeak
	t.Sent, t.SentBytes, t.Answers, t.AnswerBytes = attacked.Messages, attacked.Bytes, attacked.Answers, attacked.AnswerBytes
	t.TunnelSent, t.TunnelCame, t.Tries = sent.Packets, int64(len(got.Times)), float64(joined.Tries)
	if t.Latency, err = timesOf(pingResult{Times: got.Times}); err != nil {
		return fmt.Errorf("the tunnel's traffic: %w", err)
	}
	if len(joined.Times) == 0 {
		return nil // crowded out, which is a result
	}
	t.Handshake, err = timesOf(pingResult{Times: joined.Times})
	return err
}

func (t *FloodTrial) summary() string {
	parts := []string{fmt.Sprintf("%-12s", t.Flood)}
	for _, q := range floodQuantities {
		if v, ok := q.of(t, nil); ok && q.short {
			parts = append(parts, figure(v)+" "+q.unit)
		}
	}
	if t.Error != "" {
		parts = append(parts, "FAILED: "+t.Error)
	}
	return strings.Join(parts, "  ")
}

// victimAddress is where the engine is, and its key.
type victimAddress struct {
	Port   uint16
	Public string
}

// engineFar says who an engine is, and who its peer.
type engineFar struct {
	Private string
	Far     victimAddress
}

// interval is the time between two of so many per second.
func interval(rate int) time.Duration { return time.Second / time.Duration(rate) }
