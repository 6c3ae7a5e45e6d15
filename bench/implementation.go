package main

import (
	"debug/buildinfo"
	"os"
	"os/exec"
	"strings"

	"culvert/internal/lab"
)

// The implementations measured. The reference is the one the others are compared with; plain is the underlay itself. The
// candidate is culvert on WireGuard's wire.
const (
	plain        = "plain"
	reference    = "wireguard-go"
	candidate    = "culvert"
	native       = "culvert native"
	nativeChaCha = "native ChaCha20"
	nativeGCM    = "native AES-GCM"
)

// Implementation is one way to get packets across, and how it was made.
type Implementation struct {
	Name string `json:"name"`
	// Command is the daemon in the foreground; the device's name is appended, or the configuration's. Empty for plain.
	Command []string `json:"command,omitempty"`
	// File says that it is configured by a file in culvert's format, and not through the userspace API.
	File bool `json:"file,omitempty"`
	// Version is that of the module the program was built from; Revision its commit and Modified whether the files differed
	// from that, where known.
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go,omitempty"` // version of the compiler
}

// implementations returns what is measured, in the order of the first round. What is not given as a command is built.
func implementations(s *stage, o *options, m Machine) ([]Implementation, error) {
	ours, upFile, theirs := strings.Fields(o.culvert), strings.Fields(o.native), strings.Fields(o.wireguardGo)
	if len(ours) == 0 || len(upFile) == 0 {
		program := lab.Build(s, "culvert/cmd/culvert")
		if len(ours) == 0 {
			ours = []string{program, "wg", "-f"}
		}
		if len(upFile) == 0 {
			upFile = []string{program, "up", "-f"}
		}
	}
	if len(theirs) == 0 {
		theirs = []string{lab.BuildWireGuardGo(s), "-f"}
	}
	list := []Implementation{{Name: plain}, {Name: reference, Command: theirs}, {Name: candidate, Command: ours},
		{Name: native, Command: upFile, File: true}}
	if o.Suites {
		own, err := os.Executable()
		if err != nil {
			return nil, err
		}
		list = append(list, Implementation{Name: nativeChaCha, Command: []string{own, engineArgument, suiteChaCha}},
			Implementation{Name: nativeGCM, Command: []string{own, engineArgument, suiteGCM}})
	}
	for i := range list[1:] {
		if err := list[1+i].identify(); err != nil {
			return nil, err
		}
	}
	for i := range list {
		given := list[i].Name == candidate && o.culvert != "" || list[i].Name == native && o.native != ""
		if own := &list[i]; own.Name != plain && own.Name != reference && !given && own.Revision == "" {
			own.Revision, own.Modified = m.Commit, m.Dirty
		}
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
