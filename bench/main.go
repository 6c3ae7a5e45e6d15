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

	culvert, wireguardGo string // command lines; "": build it
	name, out, results   string
	compare              bool
	files                []string
}

const quickDuration = 2 * time.Second

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, "usage: bench [flags], as root\n       bench -compare FILE...\n\n")
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
	switch {
	case o.compare && len(o.files) == 0:
		return nil, errors.New("-compare needs a file of results")
	case !o.compare && len(o.files) > 0:
		return nil, fmt.Errorf("unexpected argument %q", o.files[0])
	case o.Rounds < 1 || o.Handshakes < 1 || o.UDPRate < 0 || o.Warmup < 0:
		return nil, errors.New("-rounds and -handshakes must be at least 1, -udp-rate and -warmup not negative")
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
	if os.Geteuid() != 0 {
		return errors.New("needs root, for network namespaces and tun devices")
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
