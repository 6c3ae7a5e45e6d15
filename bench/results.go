package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// resultsFormat is the version of the files' format. Those of version 1 are read as well.
const resultsFormat = 2

// Results is everything measured by one run of the program.
type Results struct {
	Format          int              `json:"format"`
	Started         time.Time        `json:"started"`
	Options         options          `json:"options"`
	Machine         Machine          `json:"machine"`
	Implementations []Implementation `json:"implementations"`
	// NotMeasured says what is missing on this machine, and how to get it.
	NotMeasured []string `json:"not_measured,omitempty"`
	// Trials are in the order they were made.
	Trials []Trial `json:"trials"`
	// Handshakes, Floods and Frames measure culvert's engine by itself.
	Handshakes []HandshakeTrial `json:"handshake_trials,omitempty"`
	Floods     []FloodTrial     `json:"flood_trials,omitempty"`
	Frames     []FrameTrial     `json:"frame_trials,omitempty"`
	// Cores measure engines on one processor and on more.
	Cores []CoreTrial `json:"core_trials,omitempty"`
	// Setups measure the setup layer by itself.
	Setups []SetupTrial `json:"setup_trials,omitempty"`
	// Peers measure daemons with many peers.
	Peers []PeersTrial `json:"peers_trials,omitempty"`
	// Soaks watch a daemon to which everything happens, for a while.
	Soaks []SoakTrial `json:"soak_trials,omitempty"`
	// Recoveries measure how soon traffic is back.
	Recoveries []RecoveryTrial `json:"recovery_trials,omitempty"`
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
	Part           part     `json:"part,omitempty"` // as the implementation's
	Implementation string   `json:"implementation"`
	LoadBefore     string   `json:"load_before"`       // the machine's load average of the minute before
	Seconds        float64  `json:"seconds,omitempty"` // that the trial took, with all that is not measured
	// Error is what kept the trial from being complete; the cells that could be measured are there.
	Error string `json:"error,omitempty"`

	Handshake *Times     `json:"handshake,omitempty"` // from the first packet to its answer; nil for plain
	RTTIdle   *Times     `json:"rtt_idle,omitempty"`
	RTTLoaded *Times     `json:"rtt_loaded,omitempty"` // during one TCP flow forward
	TCP       []TCP      `json:"tcp,omitempty"`        // in the order measured, as are the others
	UDP       []UDP      `json:"udp,omitempty"`
	Requests  []Requests `json:"requests,omitempty"`
	// PeakMemory is of both daemons, resident, after all of the trial.
	PeakMemory []int64 `json:"peak_memory_bytes,omitempty"`
}

// stream returns what was measured of flows; nil where it was not.
func (t *Trial) stream(flows int, w way) *TCP {
	for i := range t.TCP {
		if m := &t.TCP[i]; m.Flows == flows && m.Way == w {
			return m
		}
	}
	return nil
}

// datagrams returns what was measured of datagrams of a size; nil where it was not.
func (t *Trial) datagrams(size int) *UDP {
	for i := range t.UDP {
		if m := &t.UDP[i]; m.Size == size {
			return m
		}
	}
	return nil
}

// requests returns what was measured over some connections; nil where it was not.
func (t *Trial) requests(connections int) *Requests {
	for i := range t.Requests {
		if m := &t.Requests[i]; m.Connections == connections {
			return m
		}
	}
	return nil
}

func (t *Trial) part() part { return cmp.Or(t.Part, partTunnel) }

func (i *Implementation) part() part { return cmp.Or(i.Part, partTunnel) }

// CPU is processor time used during a measurement, in seconds.
type CPU struct {
	Daemons []float64 `json:"daemons,omitempty"` // the sending end's, the receiving end's
	Load    float64   `json:"load"`              // those that make and take the load
	Machine float64   `json:"machine"`           // everything: the kernel's own threads and other programs as well
	Stolen  float64   `json:"stolen"`            // by other guests of the machine's host
}

// way is where a load goes.
type way string

const (
	forward way = "forward"
	reverse way = "reverse"
	both    way = "both" // at once
)

// TCP is what some flows delivered.
type TCP struct {
	Flows     int     `json:"flows"` // of each way
	Way       way     `json:"way"`
	Bytes     int64   `json:"bytes"`                // of both ways together
	BytesBack int64   `json:"bytes_back,omitempty"` // of these, what came in reverse where both ways are measured
	Seconds   float64 `json:"seconds"`
	CPU       CPU     `json:"cpu"` // of reverse flows the sending end is the one they start from
}

// UDP is what was found out about datagrams of one size.
type UDP struct {
	Size int `json:"size"` // payload of each, in bytes
	// LossFree is the fastest offer of which at most lossAllowed was lost, and Lossy the slowest above it of which more was. The rate
	// sought is between the two. LossFree is nil where even the slowest offer lost more, Lossy where none did: the load was
	// the limit then, not the tunnel.
	LossFree *UDPRun `json:"loss_free,omitempty"`
	Lossy    *UDPRun `json:"lossy,omitempty"`
	// Overload is twice the rate of LossFree.
	Overload *UDPRun `json:"overload,omitempty"`
	// Flood is an offer of a rate chosen beforehand. Only files of format 1 have it.
	Flood *UDPRun `json:"flood,omitempty"`
	// Search is every offer made in search of the rate.
	Search []UDPRun `json:"search,omitempty"`
}

// UDPRun is what became of datagrams offered at a rate.
type UDPRun struct {
	Asked       int     `json:"asked,omitempty"` // per second; the sender may come short of it
	Sent        int64   `json:"sent"`
	SendSeconds float64 `json:"send_seconds"`
	SendCPU     float64 `json:"send_cpu,omitempty"` // processor time the sender used, in seconds
	Received    int64   `json:"received"`
	RecvSeconds float64 `json:"receive_seconds"` // from the first to the last
	SocketDrops int64   `json:"socket_drops"`    // delivered, but not taken by the receiving program
	CPU         CPU     `json:"cpu"`
}

// Requests is how fast requests were answered. On each connection one is under way at a time.
type Requests struct {
	Connections int     `json:"connections"`
	Size        int     `json:"size"` // of request and answer, in bytes
	Count       int64   `json:"count"`
	Seconds     float64 `json:"seconds"`
	Latency     *Times  `json:"latency"`
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
	for _, t := range r.Frames {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, frames %s: %s", t.Round, t.Frames, t.Error))
		}
	}
	for _, t := range r.Cores {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, %d cores, %s: %s", t.Round, t.Cores, t.name(), t.Error))
		}
	}
	for _, t := range r.Setups {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, setup of %d devices: %s", t.Round, t.Devices, t.Error))
		}
	}
	for _, t := range r.Peers {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, %s with %d peers: %s", t.Round, t.Implementation, t.Peers, t.Error))
		}
	}
	for _, t := range r.Soaks {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, soak: %s", t.Round, t.Error))
		}
	}
	for _, t := range r.Recoveries {
		if t.Error != "" {
			errs = append(errs, fmt.Errorf("round %d, recovery on wire %s from %s: %s", t.Round, t.Wire, t.Fault, t.Error))
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

// loadResults reads a file of this format or of the one before.
func loadResults(file string) (*Results, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r Results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	switch r.Format {
	case resultsFormat:
		return &r, nil
	case 1:
		if err := r.addFirstFormat(text); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return &r, nil
	}
	return nil, fmt.Errorf("%s: results of format %d, this program reads 1 and %d", file, r.Format, resultsFormat)
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
