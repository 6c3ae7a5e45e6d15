package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"culvert/control"
)

// Log implements [control.Logger].
func (d *daemon) Log(r control.LogRequest) (*control.Log, error) {
	if r.Level != "" {
		level, err := control.ParseLevel(r.Level)
		if err != nil {
			return nil, err
		}
		d.setLevel(level)
	}
	return &control.Log{Level: levelName(d.level.Level()), Lines: d.recent.all()}, nil
}

// setLevel changes what is logged, and logs that, at whichever of both levels shows it.
func (d *daemon) setLevel(to slog.Level) {
	before := d.level.Level()
	if before == to {
		return
	}
	d.level.Set(min(before, to))
	d.log.Log(context.Background(), max(min(before, to), slog.LevelInfo), "the level of the log changes", "from", levelName(before), "to", levelName(to))
	d.level.Set(to)
}

func levelName(l slog.Level) string {
	if l > slog.LevelError {
		return "silent"
	}
	return strings.ToLower(l.String())
}

func (p *program) logCommand() *cobra.Command {
	var level string
	lines := recentLines
	cmd := &cobra.Command{
		Use:   "log NAME",
		Short: "show the latest lines of a daemon's log, or change its level",
		Long: `Usage: culvert log NAME [-n LINES] [--level debug|info|warn|error]

Prints the latest lines of the log of the instance NAME, which it keeps in memory, wherever its log goes to: the journal where systemd runs it,
the file /run/culvert/NAME.log where "culvert up" has started it, stderr with "up -f".

  -n, --lines LINES   at most so many, 256 being the most there are
  --level LEVEL       what is logged from now on, until it ends: debug adds each handshake. No lines are printed

The signal SIGUSR1 means debug as well, and SIGUSR2 the level that the daemon was started with.
`,
		Args: needArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if lines < 0 {
				return &usageError{"--lines cannot be negative", cmd.CommandPath()}
			}
			r := control.LogRequest{Level: level}
			if err := r.Check(); err != nil {
				return &usageError{err.Error(), cmd.CommandPath()}
			}
			name := p.instanceName(args[0])
			log, err := p.ask(name).Log(cmd.Context(), r)
			if err != nil {
				return p.callError(name, err)
			}
			if level != "" {
				_, err := fmt.Fprintf(p.stderr, "%s logs from %s on\n", name, log.Level)
				return err
			}
			for _, line := range log.Lines[max(0, len(log.Lines)-lines):] {
				if _, err := fmt.Fprintln(p.stdout, oneLine(line)); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(p.stderr, "(level %s)\n", log.Level)
			return err
		},
	}
	cmd.Flags().IntVarP(&lines, "lines", "n", recentLines, "")
	cmd.Flags().StringVar(&level, "level", "", "")
	return cmd
}
