package main

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "which build this is",
		Long: `Usage: culvert version

Prints the module version, the revision it was built from, and the Go release.
`,
		Args: needArgs(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(p.stdout, "culvert", version())
			return err
		},
	}
}

// agent is how this program names itself to peers on the native wire: its name, version and, where the version does not tell,
// revision, in at most 64 printable bytes.
func agent() string {
	v, revision := "", ""
	if bi, ok := debug.ReadBuildInfo(); ok {
		v = bi.Main.Version
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	return agentText(v, revision)
}

func agentText(version, revision string) string {
	text := "culvert"
	for _, r := range " " + version {
		if len(text) < 64 && r < 0x7f && r >= ' ' {
			text += string(r)
		}
	}
	text = strings.TrimRight(text, " ")
	if len(revision) >= 12 && len(text) <= 64-13 && (version == "" || version == "(devel)") {
		text += " " + revision[:12]
	}
	return text
}

// version describes the build, from what the Go toolchain recorded in the binary.
func version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "of unknown version"
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
