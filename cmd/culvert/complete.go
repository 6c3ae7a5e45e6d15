package main

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"culvert/control"
)

// completes makes the arguments of a command and of those below it known to shells: what its usage calls FILE is a configuration file, NAME an
// instance. Clients of a server are not offered, as listing them takes a running one and root.
func (p *program) completes(cmd *cobra.Command) {
	_, usage, _ := strings.Cut(cmd.Use, " ")
	args := strings.Fields(usage)
	client := cmd.Name() == "invite" || cmd.HasParent() && cmd.Parent().Name() == "client"
	cmd.ValidArgsFunction = func(_ *cobra.Command, before []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(before) >= len(args) || client {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		switch strings.Trim(args[len(before)], "[]") {
		case "FILE":
			return []cobra.Completion{"yaml", "yml", "conf"}, cobra.ShellCompDirectiveFilterFileExt
		case "NAME|FILE":
			return p.instanceNames(), cobra.ShellCompDirectiveDefault
		case "NAME":
			return p.instanceNames(), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, name := range []string{"png", "svg"} {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.MarkFlagFilename(name, name)
		}
	}
	for _, c := range cmd.Commands() {
		p.completes(c)
	}
}

// instanceNames are those that run, of services too, and those whose network is applied, as far as this user may see them.
func (p *program) instanceNames() (names []cobra.Completion) {
	running, _ := control.Names(p.runDir) // a shell that waits for names has no use for errors
	names = append(names, running...)
	applied, _ := os.ReadDir(p.stateDir)
	for _, e := range applied {
		if e.IsDir() && control.ValidName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	if s := p.ofServices(); s != nil {
		names = append(names, s.instanceNames()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
