package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"culvert/internal/lab"
)

// The implementations of whole tunnels. The reference is the one the others are compared with; plain is the underlay itself. The
// candidate is culvert on WireGuard's wire.
const (
	plain        = "plain"
	reference    = "wireguard-go"
	candidate    = "culvert"
	native       = "culvert native"
	nativeChaCha = "native ChaCha20"
	nativeGCM    = "native AES-GCM"
	crossTo      = "culvert to wireguard-go" // culvert at the sending end
	crossFrom    = "wireguard-go to culvert"
)

// Implementation is one way to get packets across, and how it was made.
type Implementation struct {
	Name string `json:"name"`
	// Command is the daemon in the foreground; the device's name is appended, or the configuration's. Empty for plain.
	Command []string `json:"command,omitempty"`
	// Far is the far end's daemon, where it is another one. The device's name is appended likewise.
	Far []string `json:"far,omitempty"`
	// File says that it is configured by a file in culvert's format, and not through the userspace API.
	File bool `json:"file,omitempty"`
	// Part is empty for whole tunnels of IP packets.
	Part part `json:"part,omitempty"`
	// Ethernet says that its device takes frames, not IP packets, MTU what packets fit it where that is not the usual one.
	Ethernet bool `json:"ethernet,omitempty"`
	MTU      int  `json:"mtu,omitempty"`
	// Settings are those of its configuration that matter.
	Settings string `json:"settings,omitempty"`
	// Version is that of the module the program was built from; Revision its commit and Modified whether the files differed
	// from that, where known.
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go,omitempty"` // version of the compiler

	rival *rival // nil for what speaks culvert's or WireGuard's configuration
}

// implementations returns what is measured, in the order of the first round, and a line on each that is missing here. What is not
// given as a command is built.
func implementations(s *stage, o *options, m Machine) (list []Implementation, missing []string, err error) {
	ours, upFile, theirs := strings.Fields(o.culvert), nativeCommand(s, o), strings.Fields(o.wireguardGo)
	if len(ours) == 0 {
		ours = []string{lab.Build(s, "culvert/cmd/culvert"), "wg", "-f"}
	}
	if len(theirs) == 0 {
		theirs = []string{lab.BuildWireGuardGo(s), "-f"}
	}
	list = []Implementation{{Name: plain}, {Name: reference, Command: theirs}, {Name: candidate, Command: ours},
		{Name: native, Command: upFile, File: true},
		{Name: crossTo, Command: ours, Far: theirs}, {Name: crossFrom, Command: theirs, Far: ours}}
	if o.Suites {
		own, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		list = append(list, Implementation{Name: nativeChaCha, Command: []string{own, engineArgument, suiteChaCha}},
			Implementation{Name: nativeGCM, Command: []string{own, engineArgument, suiteGCM}})
	}
	list = slices.DeleteFunc(list, func(i Implementation) bool {
		if len(i.Far) > 0 {
			if _, err := exec.LookPath(i.Far[0]); err != nil {
				missing = append(missing, fmt.Sprintf("%s: %v", i.Name, err))
				return true
			}
		}
		if len(i.Command) == 0 {
			return false
		}
		if _, err := exec.LookPath(i.Command[0]); err != nil {
			missing = append(missing, fmt.Sprintf("%s: %v", i.Name, err))
			return true
		}
		return false
	})
	for i := range list {
		own := &list[i]
		if len(own.Command) == 0 {
			continue
		}
		if err := own.identify(); err != nil {
			return nil, nil, err
		}
		given := o.culvert != "" && (own.Name == candidate || own.Name == crossTo) || own.Name == native && o.native != ""
		if own.Name != reference && own.Name != crossFrom && !given {
			own.builtHere(m)
		}
	}
	others, absent, err := tunRivalImplementations(s, m, slices.Concat([]*rival{&relayOfSegments}, o.tunRivals))
	return slices.Concat(list, others), slices.Concat(missing, absent), err
}

// nativeCommand runs culvert with a file that is appended.
func nativeCommand(s *stage, o *options) []string {
	if given := strings.Fields(o.native); len(given) > 0 {
		return given
	}
	return []string{lab.Build(s, "culvert/cmd/culvert"), "up", "-f"}
}

// builtHere notes the checkout's commit where the program itself does not tell of any.
func (i *Implementation) builtHere(m Machine) {
	if i.Revision == "" {
		i.Revision, i.Modified = m.Commit, m.Dirty
	}
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
