package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == agentArgument {
		if err := serveAgent(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == engineArgument {
		if err := serveEngine(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == relayArgument {
		if err := serveRelay(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	Rounds     int           `json:"rounds"`
	Duration   time.Duration `json:"duration_ns"`        // of each single measurement of the engine
	Window     time.Duration `json:"window_ns"`          // the same of a tunnel; 0 in files of format 1, where Duration is both
	Warmup     time.Duration `json:"warmup_ns"`          // TCP before it counts
	UDPRate    int           `json:"udp_rate,omitempty"` // offered packets/s, in files of format 1
	Handshakes int           `json:"handshakes"`         // per round
	Underlays  []underlay    `json:"underlays"`          //
	Congestion string        `json:"tcp,omitempty"`      // TCP congestion control; "": the machine's default
	Parts      []part        `json:"parts,omitempty"`
	Cells      []cellGroup   `json:"cells,omitempty"`      // empty: all
	Only       []string      `json:"only,omitempty"`       // implementations; empty: all
	Suites     bool          `json:"suites,omitempty"`     // the native wire with each suite forced as well
	FloodRate  int           `json:"flood_rate,omitempty"` // messages per second; 0: as many as the sender can
	FrameRate  int           `json:"frame_rate,omitempty"` // the same of hostile frames
	Devices    []int         `json:"devices,omitempty"`    // of the networks that are set up
	Peers      []int         `json:"peers,omitempty"`      // that a daemon is to have
	Soak       time.Duration `json:"soak_ns,omitempty"`    // how long a soak lasts
	Faults     int           `json:"faults,omitempty"`     // of each kind, that is recovered from

	culvert, native, wireguardGo string // command lines; "": build it
	name, out, results           string
	compare                      bool
	plot                         string // folder; "": measure
	files                        []string
	rivals                       []*rival // of Ethernet tunnels
	tunRivals                    []*rival // of tunnels of packets
}

// part is a group of measurements.
type part string

const (
	partTunnel    part = "tunnel"    // whole tunnels, side by side
	partHandshake part = "handshake" // the engine's handshakes on either wire
	partFlood     part = "flood"     // an engine that is flooded
	partTap       part = "tap"       // tunnels of Ethernet frames, beside other projects'
	partFrames    part = "frames"    // a switch with a hostile peer
	partSetup     part = "setup"     // declared networks set up and taken down
	partPeers     part = "peers"     // daemons with many peers
	partCores     part = "cores"     // engines on one processor and on more
	partSoak      part = "soak"      // a daemon to which everything happens, for a while
	partRecovery  part = "recovery"  // how soon traffic is back after faults
)

var allParts = []part{partTunnel, partHandshake, partFlood, partTap, partFrames, partSetup, partPeers, partCores, partSoak, partRecovery}

const (
	quickDuration = 2 * time.Second
	quickWindow   = 500 * time.Millisecond
)

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := options{rivals: rivals}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, `usage: bench [flags], as root
       bench -parts tap [flags], as root, with Debian's fastd, openvpn and tinc
       bench -parts setup,peers [flags], as root
       bench -parts soak,recovery -rounds 1 [flags], as root
       bench -parts handshake,flood,frames,cores [flags]
       bench -compare FILE...
       bench -plot FOLDER FILE...

`)
		flags.PrintDefaults()
	}
	quick := flags.Bool("quick", false, "one round of short measurements, for a look whether everything works")
	flags.IntVar(&o.Rounds, "rounds", 5, "rounds, in each of which every implementation is measured once")
	flags.DurationVar(&o.Duration, "duration", 5*time.Second, "length of each single measurement of the engine, at least 200ms: of handshakes, floods, frames and cores")
	flags.DurationVar(&o.Window, "window", time.Second, "length of each single measurement of a tunnel, at least 200ms")
	flags.DurationVar(&o.Warmup, "warmup", 300*time.Millisecond, "time TCP runs before it is measured")
	cells := flags.String("cells", "", "what to measure of tunnels, parted by commas: tcp, udp, rtt, rr, handshake (default: all)")
	only := flags.String("only", "", "`names` of the implementations to measure, as the tables have them, parted by commas: \"wireguard-go,culvert native\"; of tunnel, tap and peers (default: all)")
	flags.IntVar(&o.Handshakes, "handshakes", 20, "handshakes timed in each round")
	underlays := flags.String("underlay", string(withOffloads), "underlays to measure over, parted by commas: offloads, no-offloads")
	flags.StringVar(&o.Congestion, "congestion", "", "TCP congestion control of the flows, such as cubic (default: the machine's)")
	parts := flags.String("parts", "tunnel,handshake,flood", "what to measure, parted by commas: these, tap, frames, setup, peers, cores, soak and recovery")
	others := flags.String("rivals", "",
		"`names` of other projects' tunnels to measure as well, parted by commas: relay-whole, tailscale, nebula, fastd, openvpn, tinc, or all")
	flags.BoolVar(&o.Suites, "suites", false, "measure the native wire with each of its suites as well")
	flags.IntVar(&o.FloodRate, "flood-rate", 20_000, "handshake messages of a flood per second; 0: as many as the sender can")
	flags.IntVar(&o.FrameRate, "frame-rate", 0, "frames of a hostile peer per second; 0: as many as the sender can")
	peers := flags.String("peers", "1,100,1000,10000", "peers that a daemon is to have, parted by commas")
	devices := flags.String("devices", "125,250,500,1000", "devices of the networks that are set up, parted by commas")
	flags.DurationVar(&o.Soak, "soak", 20*time.Minute, "how long a soak lasts, at least 1m")
	flags.IntVar(&o.Faults, "faults", 30, "faults of each kind and round that are recovered from")
	flags.StringVar(&o.native, "native", "",
		"`command` that runs culvert in the foreground, a file's name is appended (default: \"culvert up -f\" built from this checkout)")
	flags.StringVar(&o.culvert, "culvert", "",
		"`command` that runs culvert in the foreground, the device's name is appended (default: \"culvert wg -f\" built from this checkout)")
	flags.StringVar(&o.wireguardGo, "wireguard-go", "",
		"`command` that runs wireguard-go, likewise (default: \"wireguard-go -f\" of the version in go.mod)")
	flags.StringVar(&o.name, "name", "full", "`what` is measured, for the name of the results' file: <date>-<what>.json")
	flags.StringVar(&o.results, "results", "bench/results", "`folder` of results")
	flags.StringVar(&o.out, "out", "", "`file` for the results, instead of a new one in the folder of results")
	flags.BoolVar(&o.compare, "compare", false, "print the tables of result files and measure nothing")
	flags.StringVar(&o.plot, "plot", "", "draw result files, as SVG and PNG in this `folder`, and measure nothing")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *quick {
		for name, set := range map[string]func(){
			"rounds":     func() { o.Rounds = 1 },
			"duration":   func() { o.Duration = quickDuration },
			"window":     func() { o.Window = quickWindow },
			"warmup":     func() { o.Warmup = 200 * time.Millisecond },
			"handshakes": func() { o.Handshakes = 3 },
			"name":       func() { o.name = "quick" },
		} {
			if !given[name] {
				set()
			}
		}
	}
	o.files = flags.Args()
	for word := range strings.SplitSeq(*underlays, ",") {
		u := underlay(word)
		if u != withOffloads && u != withoutOffloads {
			return nil, fmt.Errorf("-underlay: %q is neither %s nor %s", word, withOffloads, withoutOffloads)
		}
		o.Underlays = append(o.Underlays, u)
	}
	var err error
	if o.tunRivals, err = parseRivals(*others); err != nil {
		return nil, err
	}
	for word := range strings.SplitSeq(*parts, ",") {
		if !slices.Contains(allParts, part(word)) {
			return nil, fmt.Errorf("-parts: %q is none of %v", word, allParts)
		}
		o.Parts = append(o.Parts, part(word))
	}
	if o.Devices, err = parseNumbers("-devices", *devices, minSetupDevices, maxSetupDevices); err != nil {
		return nil, err
	}
	if o.Peers, err = parseNumbers("-peers", *peers, 1, maxPeers); err != nil {
		return nil, err
	}
	for _, word := range words(*cells) {
		if !slices.Contains(allCells, cellGroup(word)) {
			return nil, fmt.Errorf("-cells: %q is none of %v", word, allCells)
		}
		o.Cells = append(o.Cells, cellGroup(word))
	}
	o.Only = words(*only)
	if (len(o.Cells) > 0 || len(o.Only) > 0) && !given["parts"] {
		o.Parts = []part{partTunnel} // the others have neither
	}
	switch {
	case o.compare && len(o.files) == 0:
		return nil, errors.New("-compare needs a file of results")
	case o.plot != "" && len(o.files) == 0:
		return nil, errors.New("-plot needs a file of results")
	case o.plot != "" && o.compare:
		return nil, errors.New("-plot and -compare are two things: give one")
	case !o.compare && o.plot == "" && len(o.files) > 0:
		return nil, fmt.Errorf("unexpected argument %q", o.files[0])
	case o.Rounds < 1 || o.Handshakes < 1 || o.Warmup < 0 || o.FloodRate < 0 || o.FrameRate < 0:
		return nil, errors.New("-rounds and -handshakes must be at least 1, -flood-rate, -frame-rate and -warmup not negative")
	case o.Soak < time.Minute || o.Faults < 1:
		return nil, errors.New("-soak must be at least 1m, and -faults at least 1")
	case o.Duration < minDuration || o.Window < minDuration:
		return nil, fmt.Errorf("-duration and -window must be at least %v", minDuration)
	case strings.ContainsAny(o.name, "/\x00"):
		return nil, fmt.Errorf("-name: %q cannot be part of a file's name", o.name)
	}
	return &o, nil
}

// parseNumbers reads different numbers parted by commas.
func parseNumbers(name, text string, low, high int) (list []int, err error) {
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < low || n > high {
			return nil, fmt.Errorf("%s: %q is no number from %d to %d", name, word, low, high)
		}
		if slices.Contains(list, n) {
			return nil, fmt.Errorf("%s: %d is there twice", name, n)
		}
		list = append(list, n)
	}
	return list, nil
}

// words returns what commas part; nothing of an empty text.
func words(text string) (list []string) {
	if text == "" {
		return nil
	}
	for word := range strings.SplitSeq(text, ",") {
		list = append(list, strings.TrimSpace(word))
	}
	return list
}

// only returns the implementations that were asked for, in their order.
func (o *options) only(list []Implementation) []Implementation {
	if len(o.Only) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(i Implementation) bool { return !slices.Contains(o.Only, i.Name) })
}

// udpStep is how long datagrams are offered at each rate: less than other measurements last, as there are many.
func (o *options) udpStep() time.Duration { return max(minDuration, o.Window*6/10) }

// minDuration keeps every measurement longer than what it is counted by: clock ticks of CPU time, batches of packets.
const minDuration = 200 * time.Millisecond

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if o.plot != "" {
		written, without, err := plotFiles(o.plot, o.files)
		for _, name := range written {
			fmt.Fprintln(stdout, name)
		}
		if err == nil {
			for _, name := range without {
				fmt.Fprintf(stderr, "%s: no tunnels to draw\n", name)
			}
		}
		return err
	}
	if o.compare {
		for i, file := range o.files {
			if i > 0 {
				fmt.Fprintln(stdout)
			}
			r, err := loadResults(file)
			if err != nil {
				return err
			}
			if err := writeTables(stdout, r); err != nil {
				return err
			}
		}
		return nil
	}
	needsRoot := func(p part) bool {
		return p == partTunnel || p == partTap || p == partSetup || p == partPeers || p == partSoak || p == partRecovery
	}
	if os.Geteuid() != 0 && slices.ContainsFunc(o.Parts, needsRoot) {
		return fmt.Errorf("needs root, for network namespaces and tun devices; -parts %s,%s,%s,%s does without", partHandshake, partFlood, partFrames, partCores)
	}
	out := o.out
	if out == "" {
		// Now, not after a quarter of an hour.
		if _, err := os.Stat(o.results); err != nil {
			return fmt.Errorf("no folder for the results: run it from the module's root, or give -out or -results: %w", err)
		}
		if out, err = freeName(filepath.Join(o.results, time.Now().Format(time.DateOnly)+"-"+o.name)); err != nil {
			return err
		}
	}
	var r *Results
	err = onStage(ctx, func(s *stage) error {
		var err error
		r, err = measure(s, o, stderr)
		return err
	})
	if err != nil {
		return err
	}
	if err := r.save(out); err != nil {
		return err
	}
	if err := writeTables(stdout, r); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "results: %s\n", out)
	return r.failures()
}
