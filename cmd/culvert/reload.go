package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"culvert/cmd/culvert/reloadplan"
	"culvert/control"
)

func (p *program) reload() *cobra.Command {
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "reload NAME",
		Short: "apply a changed file",
		Long: `Usage: culvert reload NAME|FILE [--dry-run [--json]]

Makes the daemon of the instance NAME read its file again and apply what changed: peers, keys, port, addresses, routes,
wires, whole tunnels, the network around them. Sessions with peers that stay are not interrupted, unless their wire or the tunnel's own key changed;
peers added with wg are removed. Where others have changed the network it becomes what the file says again. A wrong file changes
nothing (exit code 78), and where a right one cannot be applied everything goes back to what it was.

  --dry-run   change nothing; print what would be made (+), changed in place (~) and taken away (-) of tunnels, their peers and the
              network around them, with what each change interrupts. Exit code 1 where it would be refused
  --json      the same for programs. Fields are added over time, never renamed
`,
		Args: needArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := p.instanceName(args[0])
			if asJSON && !dryRun {
				return &usageError{"--json goes with --dry-run", "culvert reload"}
			}
			if dryRun {
				made, err := p.ask(name).Preview(cmd.Context())
				if err != nil {
					return p.callError(name, err)
				}
				return p.showPreview(name, made, asJSON)
			}
			remarks, err := p.ask(name).Reload(cmd.Context())
			for _, r := range remarks {
				fmt.Fprintln(p.stderr, r)
			}
			if err != nil {
				return p.callError(name, err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "")
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	return cmd
}

// showPreview writes what a reload would do.
func (p *program) showPreview(name string, made *control.ReloadPlan, asJSON bool) error {
	var refused error
	if made.Refused != "" {
		refused = &shownError{exitFailure}
	}
	if asJSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		return errors.Join(enc.Encode(made), refused)
	}
	var b strings.Builder
	for i := range made.Changes {
		fmt.Fprintln(&b, reloadplan.Line(&made.Changes[i]))
	}
	for _, line := range made.Network {
		fmt.Fprintln(&b, line)
	}
	if b.Len() == 0 {
		fmt.Fprintf(&b, "nothing to do: %s runs as its file says\n", name)
	}
	for _, r := range made.Remarks {
		fmt.Fprintln(&b, "# "+r)
	}
	if made.Refused != "" {
		fmt.Fprintf(&b, "! it would be refused: %s\n", made.Refused)
	}
	if _, err := io.WriteString(p.stdout, coloured(b.String(), p.colours())); err != nil {
		return err
	}
	return refused
}
