package top

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Run shows the view on a terminal until the user ends it, or ctx.
func Run(ctx context.Context, o Options, in, out *os.File) error {
	_, err := tea.NewProgram(New(o), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// Once writes one frame of everything, width columns wide. It takes two samples, an interval apart, as rates need both.
func Once(ctx context.Context, o Options, out io.Writer, width int) error {
	m := New(o)
	m.width, m.height = width, 0
	first := o.Ask(ctx)
	m.take(&first)
	select {
	case <-time.After(o.Interval):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	second := o.Ask(ctx)
	m.take(&second)
	for _, line := range m.Frame() {
		if _, err := fmt.Fprintln(out, trimRight(line)); err != nil {
			return err
		}
	}
	return nil
}

func trimRight(line string) string {
	end := len(line)
	for end > 0 && line[end-1] == ' ' {
		end--
	}
	return line[:end]
}
