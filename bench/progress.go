package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// told is what a run tells of itself while it measures: what, how far it is, and how long it will still take.
type told struct {
	out      io.Writer
	terminal bool // a line can be written over
	o        *options
	began    time.Time
	guesses  []time.Duration // for each trial
	done     int
}

// terminalLine is how long a line that is written over may be, in bytes.
const terminalLine = 100

func newTold(out io.Writer, o *options, trials []planned) *told {
	p := &told{out: out, o: o, began: time.Now()}
	if file, ok := out.(*os.File); ok {
		info, err := file.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	for _, t := range trials {
		p.guesses = append(p.guesses, o.trialGuess(t.implementation))
	}
	if len(trials) > 0 {
		fmt.Fprintf(out, "%d trials, about %s\n", len(trials), minutes(p.left()))
	}
	return p
}

// left is how long the trials that are not done will take. What those took that are done corrects the guess.
func (p *told) left() time.Duration {
	var before, after time.Duration
	for i, guess := range p.guesses {
		if i < p.done {
			before += guess
		} else {
			after += guess
		}
	}
	if before == 0 {
		return after
	}
	return time.Duration(float64(after) * float64(time.Since(p.began)) / float64(before))
}

// begins tells of a trial.
func (p *told) begins(t *Trial) { p.step(t, "start") }

// step tells what of a trial is being measured, where the line can be written over.
func (p *told) step(t *Trial, what string) {
	if p.terminal {
		line := fmt.Sprintf("%s  %s: %s, about %s left", p.place(t), t.Implementation, what, minutes(p.left()))
		fmt.Fprintf(p.out, "\r\x1b[K%.*s", terminalLine, line)
	}
}

// ended tells what came out of a trial.
func (p *told) ended(t *Trial) {
	place := p.place(t)
	p.done++
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintf(p.out, "%s  %s", place, t.summary())
	if p.done < len(p.guesses) {
		fmt.Fprintf(p.out, "  (%.0f s, about %s left)", t.Seconds, minutes(p.left()))
	}
	fmt.Fprintln(p.out)
}

func (p *told) place(t *Trial) string {
	return fmt.Sprintf("%*d/%d  round %d/%d  %-11s", len(fmt.Sprint(len(p.guesses))), p.done+1, len(p.guesses), t.Round, p.o.Rounds, t.Underlay)
}

// minutes prints a time that is about so long.
func minutes(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f min", d.Minutes())
}
