package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"culvert/cmd/culvert/control"
	"culvert/config"
)

func (p *program) down() *cobra.Command {
	return &cobra.Command{
		Use:   "down NAME",
		Short: "stop an instance",
		Long: `Usage: culvert down NAME|FILE

Asks the daemon of the instance NAME to end, and returns when it has: its interfaces, addresses, routes, rules and
sockets are gone. FILE stands for the instance it describes.
`,
		Args: needArgs("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := instanceName(args[0])
			if err := control.Down(p.runDir, name); err != nil {
				return p.callError(name, err)
			}
			return nil
		},
	}
}

// instanceName is the instance meant by an argument: a name as it is, or that of a file.
func instanceName(arg string) string {
	ext := strings.ToLower(filepath.Ext(arg))
	isFile := strings.Contains(arg, "/") || ext == ".yaml" || ext == ".yml" || ext == ".conf"
	if !isFile {
		return arg
	}
	if f, err := config.Load(arg); err == nil {
		return f.Instance
	}
	return strings.TrimSuffix(filepath.Base(arg), filepath.Ext(arg))
}
