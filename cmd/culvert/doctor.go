package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"culvert/cmd/culvert/doctor"
)

func (p *program) doctor() *cobra.Command {
	var asJSON, facts bool
	cmd := &cobra.Command{
		Use:   "doctor NAME",
		Short: "say why a tunnel does not work",
		Long: `Usage: culvert doctor NAME|FILE [--json | --facts]

Looks at the instance NAME, or the one of FILE, and at the machine: the daemon, its file, handshakes and who was refused, drops,
names, routes, the firewall, MTUs, clocks, forwarding and the network declared. It changes nothing. Each finding says what was seen
and what to do. It takes about two seconds.

  --json     an array of findings: code, severity ("error", "warning", "note"), where, what, evidence, do
  --facts    what was looked at, without conclusions; keys other than public ones are not in it

Exit codes: 0 nothing wrong (notes do not count), 1 there is something.
`,
		Args: needArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && facts {
				return &usageError{"--json and --facts exclude each other", cmd.CommandPath()}
			}
			f := p.doctorFacts(cmd.Context(), args[0])
			if f.NotRunning && f.File == "" && !slices.Contains(p.known(), f.Name) {
				return hint(fmt.Errorf("nothing called %s is running, and there is no file of that name", f.Name), "culvert status shows what runs; or name the file")
			}
			enc := json.NewEncoder(p.stdout)
			enc.SetIndent("", "  ")
			if facts {
				return enc.Encode(f)
			}
			list := doctor.Examine(f)
			var err error
			if asJSON {
				err = enc.Encode(append([]doctor.Finding{}, list...))
			} else {
				err = doctor.Write(p.stdout, f.Name, list)
			}
			if doctor.Wrong(list) {
				err = errors.Join(err, &shownError{exitFailure})
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	cmd.Flags().BoolVar(&facts, "facts", false, "")
	return cmd
}

// between is how long passes between the two looks at what is counted.
const between = time.Second
