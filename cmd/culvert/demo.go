package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"culvert/config"
)

func (p *program) demo() *cobra.Command {
	var mode, wire string
	var length time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "show a tunnel between two namespaces",
		Long: `Usage: culvert demo [--mode tun|tap] [--wire culvert|wireguard] [--duration 5s] [--json]

Makes two network namespaces joined by a cable (a veth pair), starts a daemon in each, and sends pings and TCP through the
tunnel between them. Nothing else on the machine is touched, and everything is taken away at the end, also after Ctrl-C.
Without root or /dev/net/tun both ends run in this process, on network stacks in memory, over UDP on the loopback.

  --duration D       how long TCP is sent (default 5s)
  --json             print the result for programs, and nothing else
  --mode tap         carry Ethernet frames; the default, tun, is IP packets. tap needs root and /dev/net/tun
  --wire wireguard   the protocol of WireGuard; the default, culvert, is post-quantum
`,
		Args: needArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case mode != string(config.ModeTun) && mode != string(config.ModeTap):
				return &usageError{fmt.Sprintf("--mode %q is not known; tun and tap are", mode), cmd.CommandPath()}
			case wire != string(config.WireCulvert) && wire != string(config.WireWireGuard):
				return &usageError{fmt.Sprintf("--wire %q is not known; culvert and wireguard are", wire), cmd.CommandPath()}
			case mode == string(config.ModeTap) && wire == string(config.WireWireGuard):
				return &usageError{"the wireguard wire carries IP packets only: leave out --mode tap or --wire wireguard", cmd.CommandPath()}
			case length < 100*time.Millisecond || length > time.Hour:
				return &usageError{"--duration must be between 100ms and 1h", cmd.CommandPath()}
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			s := &show{out: p.stdout, live: !asJSON && isTerminal(p.stdout)}
			if asJSON {
				s.out = io.Discard
			}
			r, err := p.runDemo(ctx, s, config.Mode(mode), config.Wire(wire), length)
			if ctx.Err() != nil {
				err = errors.Join(errors.New("interrupted; everything was taken away"), unlessCancelled(err))
			}
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(p.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(r)
			}
			return r.write(p.stdout)
		},
	}
	cmd.Flags().StringVar(&mode, "mode", string(config.ModeTun), "")
	cmd.Flags().StringVar(&wire, "wire", string(config.WireCulvert), "")
	cmd.Flags().DurationVar(&length, "duration", 5*time.Second, "")
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	return cmd
}

func unlessCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// runDemo builds the two ends, measures between them and takes them away.
func (p *program) runDemo(ctx context.Context, s *show, mode config.Mode, wire config.Wire, length time.Duration) (_ *demoResult, err error) {
	ends, why, err := p.buildDemo(ctx, s, mode, wire)
	if err != nil {
		return nil, err
	}
	defer func() {
		s.step("taking everything away")
		if closeErr := ends.close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}()
	r, err := measure(ctx, s, ends, length)
	if err != nil {
		return nil, err
	}
	r.Because = why
	return r, nil
}

// buildDemo makes the namespaces and daemons, or where that cannot be, and because of what, the ends in memory.
func (p *program) buildDemo(ctx context.Context, s *show, mode config.Mode, wire config.Wire) (_ *demoEnds, why string, err error) {
	why = cannotIsolate()
	if why == "" {
		ends, err := p.demoInNamespaces(ctx, s, mode, wire)
		if err == nil || !errors.Is(err, fs.ErrPermission) || ctx.Err() != nil {
			return ends, "", err
		}
		why = err.Error() // a container, where root may not do everything
	}
	if mode == config.ModeTap { // the network stacks in memory know no Ethernet
		return nil, "", hint(fmt.Errorf("--mode tap needs root and /dev/net/tun: %s", why), "without them, culvert demo shows a tunnel of IP packets in memory")
	}
	s.step("no namespaces and devices (%s): both ends run in this process, on network stacks in memory", why)
	ends, err := demoInMemory(ctx, s, wire)
	return ends, why, err
}

// cannotIsolate says what is missing for namespaces and devices; "" for nothing.
func cannotIsolate() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	f.Close()
	return ""
}

// show is what the demo tells while it runs.
type show struct {
	out  io.Writer
	live bool // a terminal: one line that is drawn over
	open bool // the last line is such a one
}

func (s *show) step(format string, args ...any) {
	s.endLine()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// progress shows how far the transfer is.
func (s *show) progress(elapsed, length time.Duration, bytes uint64, rate float64) {
	text := fmt.Sprintf("TCP %4.1f of %.1f s  %s  %s", elapsed.Seconds(), length.Seconds(), bytesText(bytes), rateText(rate))
	if !s.live {
		fmt.Fprintln(s.out, text)
		return
	}
	fmt.Fprintf(s.out, "\r\x1b[K%s", text)
	s.open = true
}

func (s *show) endLine() {
	if s.open {
		fmt.Fprintln(s.out)
		s.open = false
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	// A terminal is the character device that has a window's size.
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && hasWindow(f)
}
