package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// resultsFormat is the version of the files' format.
const resultsFormat = 1

// Results is everything measured by one run of the program.
type Results struct {
	Format          int              `json:"format"`
	Started         time.Time        `json:"started"`
	Options         options          `json:"options"`
	Machine         Machine          `json:"machine"`
	Implementations []Implementation `json:"implementations"`
	// Trials are in the order they were made.
	Trials []Trial `json:"trials"`
	// Handshakes and Floods measure culvert's engine by itself.
	Handshakes []HandshakeTrial `json:"handshake_trials,omitempty"`
	Floods     []FloodTrial     `json:"flood_trials,omitempty"`
}

// underlay is how the veth pair carries the tunnel's datagrams.
type underlay string

const (
	// withOffloads is a veth pair as the kernel makes it: it passes a train of datagrams as one.
	withOffloads underlay = "offloads"
	// withoutOffloads carries each datagram by itself, as a real wire does.
	withoutOffloads underlay = "no-offloads"
)

// Trial is one implementation measured once: daemons started afresh, in namespaces of their own.
type Trial struct {
	Round          int      `json:"round"` // from 1
	Underlay       underlay `json:"underlay"`
	Implementation string   `json:"implementation"`
	LoadBefore     string   `json:"load_before"` // the machine's load average of the minute before
	// Error is what kept the trial from being complete; the cells measured until then are there.
	Error string `json:"error,omitempty"`

	Handshake  *Times  `json:"handshake,omitempty"` // from the first packet to its answer; nil for plain
	RTTIdle    *Times  `json:"rtt_idle,omitempty"`
	TCP1       *TCP    `json:"tcp_1,omitempty"`
	RTTLoaded  *Times  `json:"rtt_loaded,omitempty"` // during TCP1
	TCP4       *TCP    `json:"tcp_4,omitempty"`
	UDP64      *UDP    `json:"udp_64,omitempty"`
	UDP200     *UDP    `json:"udp_200,omitempty"`
	PeakMemory []int64 `json:"peak_memory_bytes,omitempty"` // of both daemons, resident
}

// CPU is processor time used during a measurement, in seconds.
type CPU struct {
	Daemons []float64 `json:"daemons,omitempty"` // the sending end's, the receiving end's
	Load    float64   `json:"load"`              // those that make and take the load
	Machine float64   `json:"machine"`           // everything: the kernel's own threads and other programs as well
	Stolen  float64   `json:"stolen"`            // by other guests of the machine's host
}

// TCP is what some flows delivered.
type TCP struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	CPU     CPU     `json:"cpu"`
}

// UDP is what became of a flood of datagrams.
type UDP struct {
	Size        int     `json:"size"` // payload of each, in bytes
	Sent        int64   `json:"sent"`
	SendSeconds float64 `json:"send_seconds"`
	Received    int64   `json:"received"`
	RecvSeconds float64 `json:"receive_seconds"` // from the first to the last
	SocketDrops int64   `json:"socket_drops"`    // delivered, but not taken by the receiving program
	CPU         CPU     `json:"cpu"`
}

// Times are durations measured, in milliseconds.
type Times struct {
	Count  int     `json:"count"`
	Lost   int     `json:"lost"` // without an answer
	Mean   float64 `json:"mean_ms"`
	Median float64 `json:"median_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
}

// failures joins the errors of incomplete trials.
func (r *Results) failures() error {
	var errs []error
	for _, t := range r.Trials {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, %s over %s: %s", t.Round, t.Implementation, t.Underlay, t.Error))
		}
	}
	for _, t := range r.Handshakes {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, handshakes on wire %s: %s", t.Round, t.Wire, t.Error))
		}
	}
	for _, t := range r.Floods {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, flood %s: %s", t.Round, t.Flood, t.Error))
		}
	}
	return errors.Join(errs...)
}

func (r *Results) save(file string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func loadResults(file string) (*Results, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r Results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if r.Format != resultsFormat {
		return nil, fmt.Errorf("%s: format %d, this program reads %d", file, r.Format, resultsFormat)
	}
	return &r, nil
}

// freeName returns path + ".json", or with a number before that where this exists.
func freeName(path string) (string, error) {
	name := path + ".json"
	for n := 2; ; n++ {
		_, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		name = path + "-" + strconv.Itoa(n) + ".json"
	}
}
