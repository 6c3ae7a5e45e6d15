package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"culvert/control"
)

func (p *program) upgrade() *cobra.Command {
	var program string
	var all bool
	cmd := &cobra.Command{
		Use:   "upgrade NAME",
		Short: "have a new program go on with what runs, without loss",
		Long: `Usage: culvert upgrade NAME|FILE [--program PATH]
       culvert upgrade --all [--program PATH]

Has the program that is installed now go on with the instance NAME: interfaces, ports, routes and sessions pass from the running process to
the new one. Packets wait for some milliseconds, and none is lost; nobody at the other end notices. It begins as a reload: a changed file is applied
by the old program first. Whatever fails before the new process runs, the old one goes on, and says why. Peers that are reached over TCP
reconnect by themselves; who listens to events or captures has to begin again.

  --program PATH   another program than the one at the path that the instance was started from
  --all            each instance that runs, one after the other; the exit code is 1 where one was not upgraded
`,
		Args: func(cmd *cobra.Command, args []string) error {
			if all {
				return needArgs()(cmd, args)
			}
			return needArgs("NAME")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var request control.UpgradeRequest
			if program != "" {
				path, err := filepath.Abs(program)
				if err != nil {
					return err
				}
				request.Program = path
			}
			if !all {
				name := p.instanceName(args[0])
				return p.upgradeOne(cmd, name, request)
			}
			return p.upgradeAll(cmd, request)
		},
	}
	cmd.Flags().StringVar(&program, "program", "", "")
	cmd.Flags().BoolVar(&all, "all", false, "")
	return cmd
}

func (p *program) upgradeOne(cmd *cobra.Command, name string, request control.UpgradeRequest) error {
	done, err := p.ask(name).Upgrade(cmd.Context(), request)
	if err != nil {
		return p.callError(name, err)
	}
	fmt.Fprintf(p.stderr, "%s: %s goes on for %s, as process %d; packets have waited for %v\n", name, done.To, done.From, done.PID,
		time.Duration(done.Pause*float64(time.Second)).Round(time.Millisecond))
	return nil
}

// upgradeAll upgrades each instance that runs, its own and those of services.
func (p *program) upgradeAll(cmd *cobra.Command, request control.UpgradeRequest) error {
	failed := false
	for _, of := range []*program{p, p.ofServices()} {
		if of == nil {
			continue
		}
		names, err := control.Names(of.runDir)
		if err != nil {
			return permissionHint(fmt.Errorf("cannot list what runs: %w", err))
		}
		slices.Sort(names)
		for _, name := range names {
			in, err := of.ask(name).Status(cmd.Context())
			if errors.Is(err, control.ErrNotRunning) || err == nil && in.Kind == kindTrial { // which ends by itself
				continue
			}
			if err := of.upgradeOne(cmd, name, request); err != nil {
				failed = true
				if exitCode(err) != exitConfig { // which names the file
					err = fmt.Errorf("%s: %w", name, err)
				}
				report(p.stderr, err)
			}
		}
	}
	if failed {
		return &shownError{exitFailure}
	}
	return nil
}
