package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"culvert/cmd/culvert/top"
	"culvert/control"
)

func (p *program) top() *cobra.Command {
	var once, ascii bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "top [NAME]",
		Short: "watch tunnels and peers live",
		Long: `Usage: culvert top [NAME] [--interval 1s] [--once] [--ascii]

Shows the tunnels of the instance NAME, or of every instance, and their peers as they are now: rates with what they were, round trips
and losses, and what is dropped and why. The key ? shows what other keys do; enter shows one peer alone. It goes on when a daemon
ends, and when it comes back.

  --interval D       between two looks, 200ms to 1m (default 1s); of many peers it looks less often
  --once             write one frame of everything and end; so it does where the output is no terminal
  --ascii            without characters beyond ASCII; the default where the locale (LC_ALL, LC_CTYPE, LANG) is not UTF-8

NO_COLOR in the environment turns colours off.
`,
		Args: needArgs("[NAME]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval < 200*time.Millisecond || interval > time.Minute {
				return &usageError{"--interval must be between 200ms and 1m", cmd.CommandPath()}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			o := top.Options{
				Interval: interval, ASCII: ascii || !hasUTF8(os.Getenv), Drawn: top.Colour,
				Ask: func(ctx context.Context) top.Snapshot { return p.lookAt(ctx, args) },
			}
			switch {
			case !isTerminal(p.stdout):
				o.Drawn = top.Plain
			case os.Getenv("NO_COLOR") != "":
				o.Drawn = top.Mono
			}
			if len(args) == 1 {
				args = []string{p.instanceName(args[0])}
				o.Name = args[0]
			}
			// What is wrong from the beginning, as a name mistyped, is told at once.
			if first := p.lookAt(ctx, args); first.Err != nil && len(first.Instances) == 0 {
				return first.Err
			}
			in, isFile := p.stdin.(*os.File)
			if once || !isFile || !isTerminal(p.stdout) || !hasWindow(in) || os.Getenv("TERM") == "dumb" {
				return top.Once(ctx, o, p.stdout, p.columns())
			}
			return top.Run(ctx, o, in, p.stdout.(*os.File))
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "")
	cmd.Flags().BoolVar(&ascii, "ascii", false, "")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "")
	return cmd
}

// lookAt asks the instances that run for their status, all or the one named.
func (p *program) lookAt(ctx context.Context, names []string) top.Snapshot {
	s := top.Snapshot{At: time.Now()}
	var errs []error
	if len(names) == 0 {
		s.Instances, errs = p.runningStatus(ctx)
	}
	for _, name := range names {
		in, err := p.ask(name).Status(ctx)
		if err != nil {
			errs = append(errs, p.callError(name, err))
			continue
		}
		s.Instances = append(s.Instances, in)
	}
	s.Err = errors.Join(errs...)
	s.Took = time.Since(s.At)
	s.At = s.At.Add(s.Took)
	return s
}

// runningStatus asks all instances that run, those of services as well.
func (p *program) runningStatus(ctx context.Context) (list []control.Instance, errs []error) {
	names, err := control.Names(p.runDir)
	if err != nil {
		errs = append(errs, permissionHint(fmt.Errorf("cannot list what runs: %w", err)))
	}
	for _, name := range names {
		switch in, err := p.ask(name).Status(ctx); {
		case errors.Is(err, control.ErrNotRunning): // it has just ended
		case err != nil:
			errs = append(errs, p.callError(name, err))
		default:
			list = append(list, in)
		}
	}
	if s := p.ofServices(); s != nil {
		more, others := s.runningStatus(ctx)
		list, errs = append(list, more...), append(errs, others...)
	}
	return list, errs
}

// columns is the width of what is written to: the terminal's, or as COLUMNS says, or 120.
func (p *program) columns() int {
	if f, ok := p.stdout.(*os.File); ok {
		if w, _ := windowSize(f); w > 0 {
			return w
		}
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n >= 40 && n <= 1000 {
		return n
	}
	return 120
}

// hasUTF8 reports whether the locale's characters are UTF-8. Where none is set they most likely are.
func hasUTF8(env func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(env(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}
