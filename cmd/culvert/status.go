package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"culvert/cmd/culvert/control"
)

func (p *program) status() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "show what runs",
		Long: `Usage: culvert status [NAME] [--json]

Shows the tunnels of the instance NAME, or of every running instance: those of "culvert up" and of "culvert wg".
Keys other than public ones are never shown.

  --json    an array of instances for programs. Fields are added over time, never renamed or given other units:
            bytes, packets, seconds, times as RFC 3339 in UTC.
`,
		Args: needArgs("[NAME]"),
		RunE: func(_ *cobra.Command, args []string) error {
			instances, err := p.instances(args)
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
				_, err = fmt.Fprintln(p.stderr, "culvert: nothing is running")
				return err
			}
			return errors.Join(writeStatus(p.stdout, instances, time.Now()), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	return cmd
}

// instances asks the named instance, or all of them. Sockets of killed daemons are passed over.
func (p *program) instances(names []string) ([]control.Instance, error) {
	if len(names) == 1 {
		in, err := control.Status(p.runDir, names[0])
		if err != nil {
			return nil, p.callError(names[0], err)
		}
		return []control.Instance{in}, nil
	}
	all, err := control.Names(p.runDir)
	if err != nil {
		return nil, permissionHint(fmt.Errorf("cannot list what runs: %w", err))
	}
	var out []control.Instance
	var errs []error
	for _, name := range all {
		in, err := control.Status(p.runDir, name)
		switch {
		case errors.Is(err, control.ErrNotRunning):
		case err != nil:
			errs = append(errs, p.callError(name, err))
		default:
			out = append(out, in)
		}
	}
	return out, errors.Join(errs...)
}

// callError words what went wrong in asking the daemon of an instance.
func (p *program) callError(name string, err error) error {
	if _, ok := errors.AsType[*control.Error](err); ok {
		return err
	}
	if errors.Is(err, control.ErrNotRunning) {
		err = fmt.Errorf("nothing called %s is running", name)
		if names, _ := control.Names(p.runDir); len(names) > 0 {
			return hint(err, "culvert status shows what does")
		}
		return err
	}
	return permissionHint(fmt.Errorf("%s: %w", name, err))
}

func permissionHint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return hint(err, "run as root")
	}
	return err
}
