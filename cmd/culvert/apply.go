package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/setup/apply"
	"culvert/setup/plan"
)

// errAskedToStop is the end of a command's context by a signal.
var errAskedToStop = errors.New("interrupted by a signal")

func (p *program) apply() *cobra.Command {
	var asJSON bool
	var trial time.Duration
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "make the network what a file declares",
		Long: `Usage: culvert apply FILE [--confirm TIME] [--json]

Prints what "culvert plan" would, and does it, step by step. What was applied before and is declared no longer goes. Nothing is touched
where there is a conflict, or where the kernel lacks something that is needed. A step that fails, and Ctrl-C, undoes all that
was done. What an apply that was killed has left half-way is repaired. A second apply does nothing.

Tunnels come with "culvert up FILE", which applies the network as well.

  --confirm TIME   return when it is done, and undo it all after TIME (such as 60s) unless "culvert confirm NAME" is called:
                   for changes to the line that you are logged in over
  --json           print the plan for programs, once it is carried out
`,
		Args: needArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			const longest = 24 * time.Hour
			if cmd.Flags().Changed("confirm") && (trial < time.Second || trial > longest) {
				return &usageError{"--confirm takes 1s to 24h", cmd.CommandPath()}
			}
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			file, err := loadConfig(path)
			if err != nil {
				return configHint(args[0], err)
			}
			ready, err := takeReadyPipe()
			if err != nil {
				return err
			}
			if ready.detached() && trial > 0 {
				d := &daemon{p: p, name: file.Instance, kind: kindTrial, file: path, ready: ready}
				d.body = &trialBody{d: d, file: file, length: trial}
				return ready.report(d.serve(slog.LevelInfo))
			}
			p.warn(file.Warnings)
			if !file.DeclaresSetup() && !p.hasJournal(file.Instance) {
				return hint(fmt.Errorf("%s declares no network", args[0]), "culvert up %s starts its tunnels", args[0])
			}
			if trial > 0 {
				return p.applyOnTrial(cmd.Context(), file, trial, asJSON)
			}
			return p.applyFile(cmd.Context(), file, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	cmd.Flags().DurationVar(&trial, "confirm", 0, "")
	return cmd
}

// untilSignal is a context that ends when the user, or the line, asks for it.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	caught, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithCancelCause(parent)
	release := context.AfterFunc(caught, func() { cancel(errAskedToStop) })
	return ctx, func() { release(); stop(); cancel(nil) }
}

func (p *program) applyFile(ctx context.Context, file *config.File, asJSON bool) error {
	n, err := p.openNetwork(file.Instance)
	if err != nil {
		return err
	}
	n.engine.File = file.Path
	ctx, stop := untilSignal(ctx)
	defer stop()
	items := itemsOf(file)
	if !asJSON {
		made, _, err := n.engine.Plan(ctx, items)
		if err != nil {
			return errors.Join(wordNetwork(file, items, err), n.close())
		}
		if err := p.showPlan(made, false); err != nil {
			return errors.Join(err, n.close())
		}
	}
	r, err := n.engine.Apply(ctx, items)
	if err == nil && asJSON {
		err = p.showPlan(r.Plan, true)
	}
	p.showNotes(r, asJSON)
	return errors.Join(wordNetwork(file, items, err), n.close())
}

// showNotes shows what the plan itself does not: what is to be said of the journal.
func (p *program) showNotes(r *apply.Result, withPlans bool) {
	if r == nil {
		return
	}
	shown := make(map[string]bool)
	if r.Plan != nil && !withPlans {
		for _, n := range r.Plan.Notes {
			shown[n] = true
		}
	}
	for _, n := range r.Notes {
		if !shown[n] {
			fmt.Fprintf(p.stderr, "culvert: %s\n", n)
		}
	}
}

// applyOnTrial has a process of its own apply and wait, which the end of this session does not end.
func (p *program) applyOnTrial(ctx context.Context, file *config.File, length time.Duration, asJSON bool) error {
	made, err := p.look(ctx, file)
	if err != nil {
		return err
	}
	if made.IsEmpty() || made.HasConflict() {
		return p.applyFile(ctx, file, asJSON) // there is nothing to try out
	}
	if !asJSON {
		if err := p.showPlan(made, false); err != nil {
			return err
		}
	}
	if err := p.detach(nil, "apply", file.Path, "--confirm", length.String()); err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "done, and undone in %v unless you say: culvert confirm %s\n", length, file.Instance)
	if asJSON {
		return writePlanJSON(p.stdout, made)
	}
	return nil
}

func (p *program) destroy() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "destroy NAME|FILE",
		Short: "take the network away",
		Long: `Usage: culvert destroy NAME|FILE [--json]

Takes away what "culvert apply" made for the instance NAME, and sets external devices back to what they were. It goes by the journal
and by the marks of the devices, not by the file, which may have changed; FILE stands for the instance it describes. It also
clears up after a daemon that was killed. While the daemon runs, "culvert down" is the command.

Of a NAME that nothing is known of there is nothing to do, which is no failure: it may have been destroyed before. That it is not known is said on
stderr, with the names there are. A FILE that is not there is a failure.

What somebody else has deleted before is told of. What another instance has declared as well stays for that one.

  --json   print the plan for programs, once it is carried out
`,
		Args: needArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.missingFile(args[0]); err != nil {
				return err
			}
			name := p.instanceName(args[0])
			var file *config.File
			if name != args[0] {
				file, _ = loadConfig(args[0]) // for its namespaces
			}
			return p.destroyInstance(cmd.Context(), name, file, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	return cmd
}

// missingFile refuses a file that is not there: what its instance was called nobody knows.
func (p *program) missingFile(arg string) error {
	if !isFileName(arg) {
		return nil
	}
	_, err := os.Stat(arg)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return hint(fmt.Errorf("there is no file %s", arg), "culvert destroy NAME needs no file; %s", p.whatIsKnown())
}

func (p *program) destroyInstance(ctx context.Context, name string, file *config.File, asJSON bool) error {
	if in, err := p.ask(name).Status(ctx); err == nil && in.Kind == "up" {
		return p.busyError(name)
	}
	isKnown := file != nil || p.hasJournal(name)
	n, err := p.openNetwork(name)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	if file != nil {
		n.engine.Netns = namespacesOf(itemsOf(file))
	}
	interfaces := n.interfaces()
	if n.journal.State().IsEmpty() {
		// The journal is lost, or there was nothing: go by the marks.
		own, err := ownNamespaces(ctx, n.machine, name)
		if err != nil {
			return errors.Join(permissionHint(err), n.close())
		}
		n.engine.Netns = append(n.engine.Netns, own...)
	}
	r, err := n.engine.Destroy(ctx)
	if r != nil && r.Plan != nil {
		err = errors.Join(wordNetwork(nil, nil, err), p.showPlan(r.Plan, asJSON))
	} else {
		err = wordNetwork(nil, nil, err)
	}
	p.showNotes(r, asJSON)
	if err == nil {
		err = p.clearRun(name, interfaces)
	}
	err = errors.Join(err, n.close())
	if err == nil && !isKnown && r.Plan.IsEmpty() {
		p.noteUnknown(name)
	}
	return err
}

// noteUnknown says that nothing is known of an instance that was to be destroyed. That is no failure: nothing remembers what was
// destroyed, and who does it twice has what was wanted.
func (p *program) noteUnknown(name string) {
	fmt.Fprintf(p.stderr, "culvert: nothing is known of an instance %s: it has been destroyed before, or is spelt otherwise; %s\n", name, p.whatIsKnown())
}

// whatIsKnown names the instances there are.
func (p *program) whatIsKnown() string {
	if names := p.known(); len(names) > 0 {
		return "there are: " + strings.Join(names, ", ")
	}
	return "no network is applied"
}

// describe sums a plan that was carried out up, for a log.
func describe(made *plan.Plan) []string {
	var lines []string
	for i := range made.Entries {
		lines = append(lines, made.Entries[i].String())
	}
	return lines
}
