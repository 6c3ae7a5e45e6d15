package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"culvert/internal/lab"
)

// PeersTrial is a daemon with many peers measured once: it and its peers are in namespaces of their own, and it is started
// afresh. All memory is resident memory of its process, in bytes.
type PeersTrial struct {
	Round          int    `json:"round"` // from 1
	Implementation string `json:"implementation"`
	Peers          int    `json:"peers"` // configured in the end
	LoadBefore     string `json:"load_before"`
	Error          string `json:"error,omitempty"`

	// Configure is adding all peers but one, which is there before, in one request of the userspace API; nil for one peer.
	Configure  *Effort `json:"configure,omitempty"`
	Bare       int64   `json:"bare_bytes"`       // with one peer
	Configured int64   `json:"configured_bytes"` // right after Configure
	TCP        *TCP    `json:"tcp,omitempty"`    // one flow from the peer that was there first
	Traffic    int64   `json:"traffic_bytes"`    // after that

	Sessions *SessionsUp `json:"sessions,omitempty"` // nil for one peer
	Peak     int64       `json:"peak_bytes"`         // of the whole trial
}

// SessionsUp is sessions made by all peers at once. They are there besides that of the first peer.
type SessionsUp struct {
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
	Repeats int     `json:"repeats"`     // initiations sent again, as no response had come
	CPU     float64 `json:"cpu_seconds"` // of the daemon
	Before  int64   `json:"before_bytes"`
	After   int64   `json:"after_bytes"`
}

const (
	maxPeers = 50_000
	// peersSettle lets a daemon do what follows its last handshake, and return what memory it will.
	peersSettle = time.Second
	// peersAim is what a daemon with peersAimed configured peers is to be content with, in bytes.
	peersAimed = 10_000
	peersAim   = 64 << 20
)

// peersImplementations are daemons that are all configured through the userspace API, so that reading a file is in no figure. The
// native wire's is this program with culvert's engine, which chooses its suite as the daemon does.
func peersImplementations(s *stage, o *options, m Machine) ([]Implementation, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ours, theirs := strings.Fields(o.culvert), strings.Fields(o.wireguardGo)
	if len(ours) == 0 {
		ours = []string{lab.Build(s, "culvert/cmd/culvert"), "wg", "-f"}
	}
	if len(theirs) == 0 {
		theirs = []string{lab.BuildWireGuardGo(s), "-f"}
	}
	list := []Implementation{{Name: reference, Command: theirs}, {Name: candidate, Command: ours},
		{Name: native, Command: []string{own, engineArgument, suiteAny}}}
	for i := range list {
		list[i].Part = partPeers
		if err := list[i].identify(); err != nil {
			return nil, err
		}
		if list[i].Name == native || list[i].Name == candidate && o.culvert == "" {
			list[i].builtHere(m)
		}
	}
	return list, nil
}

// measurePeers makes the trials of one number of peers after another, the implementations taking turns.
func measurePeers(s *stage, o *options, r *Results, list []Implementation, progress io.Writer) error {
	for round := 1; round <= o.Rounds; round++ {
		for _, n := range o.Peers {
			for _, impl := range alternating(list, round) {
				t := PeersTrial{Round: round, Implementation: impl.Name, Peers: n, LoadBefore: load()}
				err := onStage(s.Context(), func(inner *stage) error { return t.measure(inner, o, impl) })
				if s.Context().Err() != nil {
					return err
				}
				if err != nil {
					t.Error = err.Error()
				}
				fmt.Fprintf(progress, "round %d/%d  %5d peers  %s\n", round, o.Rounds, n, t.summary())
				r.Peers = append(r.Peers, t)
			}
		}
	}
	return nil
}

// measure makes one trial. What could be measured is in t also when there is an error.
func (t *PeersTrial) measure(s *stage, o *options, impl Implementation) error {
	sc, err := newScene(s, o, withOffloads, impl)
	if err != nil {
		return err
	}
	// The receiving end is the one with many peers, as a site that others call.
	d := sc.daemons[1]
	if t.Bare, err = residentMemory(d.pid); err != nil {
		return err
	}
	private, text, err := morePeers(t.Peers - 1)
	if err != nil {
		return err
	}
	if len(private) > 0 {
		if t.Configure, err = effortOfProcess(d.pid, func() error { _, err := d.ask("set=1\n" + text + "\n"); return err }); err != nil {
			return fmt.Errorf("configure: %w", errors.Join(err, sc.lastWords()))
		}
	}
	if t.Configured, err = residentMemory(d.pid); err != nil {
		return err
	}
	if t.TCP, _, err = sc.tcp(1, forward, false); err != nil {
		return fmt.Errorf("TCP: %w", errors.Join(err, sc.lastWords()))
	}
	if t.Traffic, err = residentMemory(d.pid); err != nil {
		return err
	}
	if len(private) > 0 {
		if t.Sessions, err = sc.sessionsUp(impl, private); err != nil {
			return fmt.Errorf("sessions: %w", errors.Join(err, sc.lastWords()))
		}
	}
	t.Peak, err = peakMemory(d.pid)
	return err
}

// sessionsUp has an agent on the sending host make sessions with the receiving one's daemon as all those peers.
func (sc *scene) sessionsUp(impl Implementation, private []string) (up *SessionsUp, err error) {
	d := sc.daemons[1]
	up = &SessionsUp{}
	if up.Before, err = residentMemory(d.pid); err != nil {
		return nil, err
	}
	wire := wireWireGuard
	if impl.Name == native {
		wire = wireCulvert
	}
	var made sessionsMade
	effort, err := effortOfProcess(d.pid, func() error {
		made, err = call[sessionsMade](sc.source, "peers-join", sessionsRun{Wire: wire, Private: private, Far: sc.peer.endpoint,
			Public: sc.peer.publicKey}, time.Duration(len(private))*joinPatience)
		return err
	})
	if err != nil {
		return nil, err
	}
	up.Count, up.Repeats, up.Seconds, up.CPU = len(private), made.Repeats, effort.Seconds, effort.CPU
	if err := sc.sleep(peersSettle); err != nil {
		return nil, err
	}
	if up.After, err = residentMemory(d.pid); err != nil {
		return nil, err
	}
	lines, err := d.ask("get=1\n\n")
	if err != nil {
		return nil, err
	}
	if n := sessionsIn(lines); n != len(private)+1 {
		return nil, fmt.Errorf("the daemon tells of sessions with %d of %d peers", n, len(private)+1)
	}
	return up, nil
}

// sessionsIn counts the peers with which there was a handshake, in an answer of the userspace API.
func sessionsIn(lines []string) (n int) {
	for _, line := range lines {
		if at, ok := strings.CutPrefix(line, "last_handshake_time_sec="); ok && at != "0" {
			n++
		}
	}
	return n
}

// morePeers returns new private keys in hexadecimal, and what adds their owners as peers without an endpoint, with one address
// each.
func morePeers(n int) (private []string, text string, err error) {
	var b strings.Builder
	for i := range n {
		key, public, err := newKey()
		if err != nil {
			return nil, "", err
		}
		private = append(private, key)
		inner := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		fmt.Fprintf(&b, "public_key=%s\nallowed_ip=%v/32\n", public, inner)
	}
	return private, b.String(), nil
}

// effortOfProcess measures what f takes of a process: wall time, and CPU time to the clock's tick.
func effortOfProcess(pid int, f func() error) (*Effort, error) {
	before, err := processCPU(pid)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return nil, err
	}
	took := time.Since(start)
	after, err := processCPU(pid)
	return &Effort{took.Seconds(), after - before}, err
}

// residentMemory returns what a process has resident now, in bytes.
func residentMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseKB(string(text), "VmRSS:")
}

func (t *PeersTrial) summary() string {
	text := fmt.Sprintf("%-16s", t.Implementation)
	for _, q := range slices.Concat(peersQuantities[:2], peersQuantities[3:4], peersQuantities[5:6]) {
		if v, ok := q.of(t); ok {
			text += fmt.Sprintf("  %s %s", figure(v), q.unit)
		}
	}
	if t.Error != "" {
		text += "  FAILED: " + t.Error
	}
	return text
}
