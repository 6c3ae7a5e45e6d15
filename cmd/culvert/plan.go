package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/setup/plan"
)

// exitChanges is the code of "plan --exit-code" where there is something to do.
const exitChanges = 3

func (p *program) plan() *cobra.Command {
	var asJSON, tell bool
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "say what apply would do",
		Long: `Usage: culvert plan FILE [--json] [--exit-code]

Compares the network that FILE declares with the running system, and prints a line for each thing that is not as declared: what
"culvert apply FILE", or "culvert up FILE" where it has tunnels, would create (+), change in place (~), make anew (-/+, with the
reason) or take away (-), and what it would refuse to touch (!). Nothing is changed, and while an instance runs the lines are
what has changed under it. What the kernel lacks for it, or which program, is told as well (!): it is tried in a scratch
namespace, for which the kernel may load modules.

  --json        the plan for programs, with its steps. Fields are added over time, never renamed
  --exit-code   end with code 3 where there is something to do

The exit code is 1 where there is a conflict.
`,
		Args: needArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := loadNetwork(args[0])
			if err != nil {
				return err
			}
			p.warn(file.Warnings)
			made, err := p.lookAndTry(cmd.Context(), file)
			if err != nil {
				return err
			}
			if err := p.showPlan(made, asJSON); err != nil {
				return err
			}
			switch {
			case made.HasConflict():
				return &shownError{exitFailure}
			case tell && !made.IsEmpty():
				return &shownError{exitChanges}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "")
	cmd.Flags().BoolVar(&tell, "exit-code", false, "")
	return cmd
}

// loadNetwork loads a file for its network.
func loadNetwork(path string) (*config.File, error) {
	file, err := loadConfig(path)
	if err != nil {
		return nil, configHint(path, err)
	}
	return file, nil
}

func (p *program) showPlan(made *plan.Plan, asJSON bool) error {
	if asJSON {
		return writePlanJSON(p.stdout, made)
	}
	_, err := io.WriteString(p.stdout, planText(made, p.colours()))
	return err
}

// colours reports whether to write in colours.
func (p *program) colours() bool { return isTerminal(p.stdout) && os.Getenv("NO_COLOR") == "" }

func writePlanJSON(w io.Writer, made *plan.Plan) error {
	shown := *made
	if shown.Entries == nil {
		shown.Entries = []plan.Entry{}
	}
	if shown.Steps == nil {
		shown.Steps = []plan.Step{}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(&shown)
}

// signColours are the colours of lines, by what they begin with (ECMA-48, SGR).
var signColours = map[string]string{"+": "32", "~": "33", "-/+": "35", "-": "31", "!": "1;31", "#": "2"}

// planText is a plan as lines, with colours for a terminal.
func planText(made *plan.Plan, colours bool) string {
	return coloured(made.String(), colours)
}

// coloured gives lines colours by what they begin with, for a terminal.
func coloured(text string, colours bool) string {
	if !colours {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		sign, _, _ := strings.Cut(line, " ")
		if c := signColours[sign]; c != "" {
			line = fmt.Sprintf("\x1b[%sm%s\x1b[0m\n", c, strings.TrimSuffix(line, "\n"))
		}
		b.WriteString(line)
	}
	return b.String()
}
