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
	Duration   time.Duration `json:"duration_ns"`   // of each single measurement
	Warmup     time.Duration `json:"warmup_ns"`     // TCP before it counts
	UDPRate    int           `json:"udp_rate"`      // offered packets/s; 0: as fast as the sender can
	Handshakes int           `json:"handshakes"`    // per round
	Underlays  []underlay    `json:"underlays"`     //
	Congestion string        `json:"tcp,omitempty"` // TCP congestion control; "": the machine's default
	Parts      []part        `json:"parts,omitempty"`
	Suites     bool          `json:"suites,omitempty"`     // the native wire with each suite forced as well
	FloodRate  int           `json:"flood_rate,omitempty"` // messages per second; 0: as many as the sender can

	culvert, native, wireguardGo string // command lines; "": build it
	name, out, results           string
	compare                      bool
	files                        []string
}

// part is a group of measurements.
type part string

const (
	partTunnel    part = "tunnel"    // whole tunnels, side by side
	partHandshake part = "handshake" // the engine's handshakes on either wire
	partFlood     part = "flood"     // an engine that is flooded
)

var allParts = []part{partTunnel, partHandshake, partFlood}

const quickDuration = 2 * time.Second

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, "usage: bench [flags], as root\n       bench -parts handshake,flood [flags]\n       bench -compare FILE...\n\n")
		flags.PrintDefaults()
	}
	quick := flags.Bool("quick", false, "one round of short measurements, for a look whether everything works")
	flags.IntVar(&o.Rounds, "rounds", 5, "rounds, in each of which every implementation is measured once")
	flags.DurationVar(&o.Duration, "duration", 5*time.Second, "length of each single measurement")
	flags.DurationVar(&o.Warmup, "warmup", time.Second, "time TCP runs before it is measured")
	flags.IntVar(&o.UDPRate, "udp-rate", 400_000, "small packets offered per second; 0: as many as the sender can")
	flags.IntVar(&o.Handshakes, "handshakes", 20, "handshakes timed in each round")
	underlays := flags.String("underlay", "offloads,no-offloads", "underlays to measure over, parted by commas")
	flags.StringVar(&o.Congestion, "congestion", "", "TCP congestion control (default: the machine's)")
	parts := flags.String("parts", "tunnel,handshake,flood", "what to measure, parted by commas")
	flags.BoolVar(&o.Suites, "suites", false, "measure the native wire with each of its suites as well")
	flags.IntVar(&o.FloodRate, "flood-rate", 20_000, "handshake messages of a flood per second; 0: as many as the sender can")
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
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *quick {
		for name, set := range map[string]func(){
			"rounds":     func() { o.Rounds = 1 },
			"duration":   func() { o.Duration = quickDuration },
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
	for word := range strings.SplitSeq(*parts, ",") {
		if !slices.Contains(allParts, part(word)) {
			return nil, fmt.Errorf("-parts: %q is none of %v", word, allParts)
		}
		o.Parts = append(o.Parts, part(word))
	}
	switch {
	case o.compare && len(o.files) == 0:
		return nil, errors.New("-compare needs a file of results")
	case !o.compare && len(o.files) > 0:
		return nil, fmt.Errorf("unexpected argument %q", o.files[0])
	case o.Rounds < 1 || o.Handshakes < 1 || o.UDPRate < 0 || o.Warmup < 0 || o.FloodRate < 0:
		return nil, errors.New("-rounds and -handshakes must be at least 1, -udp-rate, -flood-rate and -warmup not negative")
	case o.Duration < minDuration:
		return nil, fmt.Errorf("-duration must be at least %v", minDuration)
	case strings.ContainsAny(o.name, "/\x00"):
		return nil, fmt.Errorf("-name: %q cannot be part of a file's name", o.name)
	}
	return &o, nil
}

// minDuration keeps every measurement longer than what it is counted by: clock ticks of CPU time, batches of packets.
const minDuration = 200 * time.Millisecond

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
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
	if os.Geteuid() != 0 && slices.Contains(o.Parts, partTunnel) {
		return fmt.Errorf("needs root, for network namespaces and tun devices; -parts %s,%s does without", partHandshake, partFlood)
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
