package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (p *program) reload() *cobra.Command {
	return &cobra.Command{
		Use:   "reload NAME",
		Short: "apply a changed file",
		Long: `Usage: culvert reload NAME|FILE

Makes the daemon of the instance NAME read its file again and apply what changed: peers, keys, port, addresses, routes,
wires, whole tunnels, the network around them. Sessions with peers that stay are not interrupted, unless their wire or the tunnel's own key changed;
peers added with wg are removed. Where others have changed the network it becomes what the file says again. A wrong file changes
nothing (exit code 78), and where a right one cannot be applied everything goes back to what it was.
`,
		Args: needArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := instanceName(args[0])
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
}
