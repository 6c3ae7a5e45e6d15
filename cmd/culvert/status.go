package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"culvert/control"
)

func (p *program) status() *cobra.Command {
	var asJSON, macs bool
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "show what runs, and what was applied",
		Long: `Usage: culvert status [NAME] [--json | --macs]

Shows the tunnels of the instance NAME, or of every instance: those of "culvert up" and of "culvert wg"; of the network around
them how it differs from what the file declares ("drift"), which a reload repairs; and changes that wait for "culvert confirm".
Of a network without a process, after "culvert apply" or a daemon that was killed, it shows how it differs from what was applied last.
Keys other than public ones are never shown.

  --json    an array of instances for programs. Fields are added over time, never renamed or given other units:
            bytes, packets, seconds, times as RFC 3339 in UTC.
  --macs    all MAC addresses that tunnels of Ethernet frames (mode: tap) know
`,
		Args: needArgs("[NAME]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && macs {
				return &usageError{"--json has the MAC addresses in it; leave --macs out", cmd.CommandPath()}
			}
			instances, err := p.instances(cmd.Context(), args)
			if err != nil && len(instances) == 0 {
				return err
			}
			if asJSON {
				if instances == nil {
					instances = []control.Instance{}
				}
				enc := json.NewEncoder(p.stdout)
				enc.SetIndent("", "  ")
				return errors.Join(enc.Encode(instances), err)
			}
			if len(instances) == 0 {
				_, err = fmt.Fprintln(p.stderr, "culvert: nothing is running, and no network is applied")
				return err
			}
			if macs {
				n, writeErr := writeMACs(p.stdout, instances)
				if n == 0 {
					fmt.Fprintln(p.stderr, "culvert: no tunnel of Ethernet frames is running")
				}
				return errors.Join(writeErr, err)
			}
			return errors.Join(writeStatus(p.stdout, instances, time.Now()), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	cmd.Flags().BoolVar(&macs, "macs", false, "")
	return cmd
}

// instances asks the named instance, or all of them. Of one that does not run it shows what network there is.
func (p *program) instances(ctx context.Context, names []string) ([]control.Instance, error) {
	ask := func(name string) (control.Instance, error) {
		in, err := p.ask(name).Status(ctx)
		if !errors.Is(err, control.ErrNotRunning) {
			return in, err
		}
		applied, ok, lookErr := p.applied(ctx, name)
		if ok || lookErr != nil {
			return applied, lookErr
		}
		return in, err
	}
	if len(names) == 1 {
		p.locate(names[0])
		in, err := ask(names[0])
		if err != nil {
			return nil, p.callError(names[0], err)
		}
		return []control.Instance{in}, nil
	}
	all, err := control.Names(p.runDir)
	if err != nil {
		return nil, permissionHint(fmt.Errorf("cannot list what runs: %w", err))
	}
	applied, err := p.journals()
	var errs []error
	if err != nil {
		errs = append(errs, err)
	}
	all = append(all, applied...)
	slices.Sort(all)
	var out []control.Instance
	for _, name := range slices.Compact(all) {
		in, err := ask(name)
		switch {
		case errors.Is(err, control.ErrNotRunning):
		case err != nil:
			errs = append(errs, p.callError(name, err))
		default:
			out = append(out, in)
		}
	}
	if s := p.ofServices(); s != nil {
		more, err := s.instances(ctx, nil)
		out = append(out, more...)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// ask is how the daemon of an instance is asked.
func (p *program) ask(name string) *control.Client { return control.NewClient(p.runDir, name) }

// callError words what went wrong in asking the daemon of an instance.
func (p *program) callError(name string, err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		if d, asking := p.ask(name).Hello(context.Background()); asking == nil {
			return hint(err, "the daemon is culvert %s, this command culvert %s: restart the instance, so that both are the same", d.Program, version())
		}
	}
	if _, ok := errors.AsType[*control.Error](err); ok {
		return err
	}
	if errors.Is(err, control.ErrNotRunning) {
		err = fmt.Errorf("nothing called %s is running", name)
		if len(p.known()) > 0 {
			return hint(err, "culvert status shows what does")
		}
		return err
	}
	return permissionHint(fmt.Errorf("%s: %w", name, err))
}

func permissionHint(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return hint(err, "run as root")
	}
	return err
}
