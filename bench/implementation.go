package main

import (
	"debug/buildinfo"
	"os/exec"
	"strings"

	"culvert/internal/lab"
)

// The implementations measured. The reference is the one the others are compared with; plain is the underlay itself.
const (
	plain     = "plain"
	reference = "wireguard-go"
	candidate = "culvert"
)

// Implementation is one way to get packets across, and how it was made.
type Implementation struct {
	Name string `json:"name"`
	// Command is the daemon in the foreground; the device's name is appended. Empty for plain.
	Command []string `json:"command,omitempty"`
	// Version is that of the module the program was built from; Revision its commit and Modified whether the files differed
	// from that, where known.
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go,omitempty"` // version of the compiler
}

// implementations returns what is measured, in the order of the first round. What is not given as a command is built.
func implementations(s *stage, o *options, m Machine) ([]Implementation, error) {
	ours, theirs := strings.Fields(o.culvert), strings.Fields(o.wireguardGo)
	if len(ours) == 0 {
		ours = []string{lab.Build(s, "culvert/cmd/culvert"), "wg", "-f"}
	}
	if len(theirs) == 0 {
		theirs = []string{lab.BuildWireGuardGo(s), "-f"}
	}
	list := []Implementation{{Name: plain}, {Name: reference, Command: theirs}, {Name: candidate, Command: ours}}
	for i := range list[1:] {
		if err := list[1+i].identify(); err != nil {
			return nil, err
		}
	}
	if own := &list[2]; o.culvert == "" && own.Revision == "" {
		own.Revision, own.Modified = m.Commit, m.Dirty
	}
	return list, nil
}

// identify fills in what the program tells of how it was built.
func (i *Implementation) identify() error {
	path, err := exec.LookPath(i.Command[0])
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil // not a Go program: nothing is known
	}
	i.Go, i.Version = info.GoVersion, info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			i.Revision = s.Value
		case "vcs.modified":
			i.Modified = s.Value == "true"
		}
	}
	return nil
}
