package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/control"
)

func (p *program) down() *cobra.Command {
	return &cobra.Command{
		Use:   "down NAME",
		Short: "stop an instance",
		Long: `Usage: culvert down NAME|FILE

Asks the daemon of the instance NAME to end, and returns when it has: its interfaces, addresses, routes, rules and
sockets are gone, and the network around them. FILE stands for the instance it describes. After "culvert apply" alone no daemon
runs: there "culvert destroy" is the command. A change that waits for "culvert confirm" is undone, also where the process that was to undo it
was killed.
`,
		Args: needArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := p.instanceName(args[0])
			err := p.ask(name).Down(cmd.Context())
			if errors.Is(err, control.ErrNotRunning) {
				if found, err := p.undoAbandoned(cmd.Context(), name); found || err != nil {
					return err
				}
				if p.hasJournal(name) {
					return hint(fmt.Errorf("nothing called %s is running", name), "culvert destroy %s takes its network away", name)
				}
			}
			if err != nil {
				return p.callError(name, err)
			}
			return nil
		},
	}
}

// instanceName is the instance meant by an argument, a name as it is, or that of a file, to whose place the program turns.
func (p *program) instanceName(arg string) string {
	name := nameOf(arg)
	p.locate(name)
	return name
}

func nameOf(arg string) string {
	if !isFileName(arg) {
		return arg
	}
	if f, err := config.Load(arg); err == nil {
		return f.Instance
	}
	return strings.TrimSuffix(filepath.Base(arg), filepath.Ext(arg))
}

// isFileName tells an argument that means a file from the name of an instance.
func isFileName(arg string) bool {
	ext := strings.ToLower(filepath.Ext(arg))
	return strings.Contains(arg, "/") || ext == ".yaml" || ext == ".yml" || ext == ".conf"
}
