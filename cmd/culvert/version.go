package main

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"culvert/tunnel/message"
)

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "which build this is",
		Long: `Usage: culvert version

Prints the version of the package or module, the revision it was built from, and the Go release.
`,
		Args: needArgs(),
		RunE: func(*cobra.Command, []string) error {
			return p.printVersion()
		},
	}
}

func (p *program) printVersion() error {
	_, err := fmt.Fprintln(p.stdout, "culvert", version())
	return err
}

// packaged is the version of the package that the program is of, which the linker sets.
var packaged string

// agent is how this program names itself to peers on the native wire, in at most 64 bytes.
func agent() string {
	name := "culvert"
	if packaged != "" {
		name += " " + packaged
	} else if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		name += " " + bi.Main.Version
	}
	return name[:min(len(name), message.MaxAgent)]
}

// version describes the build, from what the Go toolchain recorded in the binary.
func version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "of unknown version"
	}
	if packaged != "" {
		return packaged + ", " + bi.GoVersion
	}
	parts := []string{bi.Main.Version}
	if parts[0] == "" {
		parts[0] = "(devel)"
	}
	var modified string
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			parts = append(parts, "revision "+s.Value[:min(12, len(s.Value))])
		case "vcs.modified":
			if s.Value == "true" {
				modified = "modified"
			}
		}
	}
	if modified != "" {
		parts = append(parts, modified)
	}
	return strings.Join(append(parts, bi.GoVersion), ", ")
}
