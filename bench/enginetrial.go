package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"
)

// HandshakeTrial is the engine's handshakes on one wire measured once, each measurement in a process of its own on one core.
type HandshakeTrial struct {
	Round      int    `json:"round"` // from 1
	Wire       string `json:"wire"`  // culvert's, or "wireguard-go" as a responder on WireGuard's
	LoadBefore string `json:"load_before"`
	Error      string `json:"error,omitempty"`

	Cost      *HandshakeCost `json:"cryptography,omitempty"`
	Initiator *EngineCost    `json:"initiator,omitempty"` // from the first packet on until it is sent
	Responder *EngineCost    `json:"responder,omitempty"` // from the initiation received until the response is sent
	Start     *Times         `json:"start,omitempty"`     // first packet until it is delivered, over a link of Delay
	Delay     float64        `json:"delay_ms,omitempty"`  // of the link, one way
	Datagrams float64        `json:"datagrams,omitempty"` // of one handshake
	Bytes     float64        `json:"bytes,omitempty"`     // of one handshake, in UDP payload
}

// HandshakeCost is CPU time of the cryptography alone, in microseconds for each handshake.
type HandshakeCost struct {
	Count    int     `json:"count"`
	Initiate float64 `json:"initiate_us"`
	Read     float64 `json:"read_us"`
	Respond  float64 `json:"respond_us"`
	Consume  float64 `json:"consume_us"`
}

// EngineCost is what an engine used for some handshakes.
type EngineCost struct {
	Count      int     `json:"count"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Seconds    float64 `json:"seconds"`
}

// handshakeWires are measured in turns.
var handshakeWires = []string{reference, wireWireGuard, wireCulvert}

const (
	startDelay = 5 * time.Millisecond
	// enginePeers is how many peers make a lap, short enough to be over before an engine does anything else for them.
	enginePeers = 200
)

// measureEngine makes the trials that are of no whole tunnels.
func measureEngine(s *stage, o *options, r *Results, progress io.Writer) (err error) {
	rounds := func(p part, each func(round int) error) {
		for round := 1; round <= o.Rounds && err == nil && slices.Contains(o.Parts, p); round++ {
			err = each(round)
		}
	}
	rounds(partHandshake, func(round int) error {
		return tryEach(s, o, progress, "handshakes", &r.Handshakes, handshakeWires, round, func(wire string, load string) HandshakeTrial {
			return HandshakeTrial{Round: round, Wire: wire, LoadBefore: load}
		})
	})
	rounds(partFlood, func(round int) error {
		return tryEach(s, o, progress, "flood", &r.Floods, floodKinds, round, func(kind string, load string) FloodTrial {
			return FloodTrial{Round: round, Flood: kind, LoadBefore: load}
		})
	})
	rounds(partFrames, func(round int) error {
		return tryEach(s, o, progress, "frames", &r.Frames, frameKinds, round, func(kind string, load string) FrameTrial {
			return FrameTrial{Round: round, Frames: kind, LoadBefore: load}
		})
	})
	rounds(partCores, func(round int) error {
		return tryEach(s, o, progress, "cores", &r.Cores, coreKinds(runtime.NumCPU()), round, func(t CoreTrial, load string) CoreTrial {
			t.Round, t.LoadBefore = round, load
			return t
		})
	})
	rounds(partSetup, func(round int) error {
		return tryEach(s, o, progress, "setup", &r.Setups, o.Devices, round, func(devices int, load string) SetupTrial {
			return SetupTrial{Round: round, Devices: devices, LoadBefore: load}
		})
	})
	rounds(partSoak, func(round int) error {
		return tryEach(s, o, progress, "soak", &r.Soaks, []int{0}, round, func(_ int, load string) SoakTrial {
			return SoakTrial{Round: round, LoadBefore: load}
		})
	})
	rounds(partRecovery, func(round int) error {
		return tryEach(s, o, progress, "recovery", &r.Recoveries, recoveryKinds, round, func(k RecoveryTrial, load string) RecoveryTrial {
			k.Round, k.LoadBefore = round, load
			return k
		})
	})
	return err
}

// trial is one of the kinds that measureEngine makes.
type trial[T any] interface {
	*T
	measure(*stage, *options) error
	fail(error)
	summary() string
}

// tryEach makes a round's trials, of each kind one, and adds them to the list; those that fail say why. The error is that of a program that
// is to end.
func tryEach[T any, P trial[T], K any](s *stage, o *options, progress io.Writer, name string, list *[]T, kinds []K, round int, begin func(kind K, load string) T) error {
	for _, kind := range alternating(kinds, round) {
		t := begin(kind, load())
		err := onStage(s.Context(), func(inner *stage) error { return P(&t).measure(inner, o) })
		if ended := s.Context().Err(); ended != nil {
			return cmp.Or(err, ended)
		}
		if err != nil {
			P(&t).fail(err)
		}
		fmt.Fprintf(progress, "round %d/%d  %-12s %s\n", round, o.Rounds, name, P(&t).summary())
		*list = append(*list, t)
	}
	return nil
}

func (t *HandshakeTrial) fail(err error) { t.Error = err.Error() }
func (t *FloodTrial) fail(err error)     { t.Error = err.Error() }
func (t *FrameTrial) fail(err error)     { t.Error = err.Error() }
func (t *CoreTrial) fail(err error)      { t.Error = err.Error() }
func (t *SetupTrial) fail(err error)     { t.Error = err.Error() }

// alternating returns the list, in even rounds from behind.
func alternating[T any](list []T, round int) []T {
	list = slices.Clone(list)
	if round%2 == 0 {
		slices.Reverse(list)
	}
	return list
}

// laps makes measurements longer than the quick ones.
func (o *options) laps() int { return max(1, int(o.Duration/(500*time.Millisecond))) }

// measure makes one trial. What could be measured is in t also when there is an error.
func (t *HandshakeTrial) measure(s *stage, o *options) error {
	run := engineRun{Wire: t.Wire, Peers: enginePeers, Laps: o.laps()}
	var errs []error
	t.Responder = onAgent[EngineCost](s, &errs, "handshake-respond", run, o.Duration)
	if t.Wire == reference {
		return errors.Join(errs...)
	}
	t.Cost = onAgent[HandshakeCost](s, &errs, "handshake-cost", costRun{t.Wire, o.Duration / 2}, o.Duration)
	t.Initiator = onAgent[EngineCost](s, &errs, "handshake-initiate", run, o.Duration)
	count := o.Handshakes
	if got := onAgent[startResult](s, &errs, "handshake-start", startRun{t.Wire, startDelay, count}, o.Duration); got != nil {
		t.Delay = float64(startDelay) / float64(time.Millisecond)
		t.Datagrams, t.Bytes = float64(got.Datagrams)/float64(count), float64(got.Bytes)/float64(count)
		var err error
		if t.Start, err = timesOf(pingResult{Times: got.Times}); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// onAgent has a new agent on the first core do something; nil where that failed.
func onAgent[R any](s *stage, errs *[]error, op string, args any, lasting time.Duration) *R {
	result, err := func() (result R, err error) {
		a, err := startAgentOn(s, 0)
		if err != nil {
			return result, err
		}
		defer a.stop()
		return call[R](a, op, args, lasting)
	}()
	if err != nil {
		*errs = append(*errs, err)
		return nil
	}
	return &result
}

// startAgentOn starts an agent in this program's own namespace, on one core; it ends with the stage.
func startAgentOn(s *stage, core int) (*agent, error) {
	return launchAgent(s, func(cmd *exec.Cmd) error { return startPinned(cmd, core) })
}

func (t *HandshakeTrial) summary() string {
	text := fmt.Sprintf("%-12s", t.Wire)
	for _, q := range handshakeQuantities[:3] {
		if v, ok := q.of(t); ok {
			text += fmt.Sprintf("  %s %s", figure(v), q.unit)
		}
	}
	if t.Error != "" {
		text += "  FAILED: " + t.Error
	}
	return text
}

// selfRSS reads a line of this process's memory from /proc, in bytes.
func selfRSS(key string) (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	return parseKB(string(text), key)
}
