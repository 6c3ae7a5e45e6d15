package config

import (
	"fmt"
	"path/filepath"
	"slices"
)

// A SecretFile is a key to be written to a file of its own, of mode 0600.
type SecretFile struct {
	Path    string
	Content []byte
}

// An Import is a wg-quick file made ready for WriteYAML.
type Import struct {
	File     *File
	Secrets  []SecretFile
	Warnings []*Error // what YAML does not carry over
}

// ImportWGQuick turns a file loaded from wg-quick's format into one that WriteYAML can write: its keys go to files.
// The key files are named after the tunnel and lie in dir; with dir "" their paths are relative, to be created in the
// folder the YAML file will lie in. The caller creates them (O_EXCL, mode 0600). f stays as it is.
func ImportWGQuick(f *File, dir string) *Import {
	out := *f
	out.Format, out.Warnings, out.comments = FormatYAML, nil, nil
	out.Tunnels = slices.Clone(f.Tunnels)
	in := &Import{File: &out}
	keep := func(name, key string) string {
		path := filepath.Join(dir, name)
		in.Secrets = append(in.Secrets, SecretFile{path, []byte(key + "\n")})
		return path
	}
	for i := range out.Tunnels {
		t := &out.Tunnels[i]
		if t.PrivateKeyFile == "" {
			t.PrivateKeyFile = keep(t.Name+".key", t.PrivateKey.Base64())
		}
		if t.SaveConfig {
			t.SaveConfig = false
			in.Warnings = append(in.Warnings, f.ErrorAt(t.SaveConfigPos,
				"SaveConfig is not carried over: culvert does not write to its configuration", "", nil))
		}
		t.Peers = slices.Clone(t.Peers)
		for j := range t.Peers {
			if p := &t.Peers[j]; p.PresharedKeyFile == "" && !p.PresharedKey.IsZero() {
				p.PresharedKeyFile = keep(t.Name+"-"+p.Name+".psk", p.PresharedKey.Base64())
			}
		}
	}
	if n := len(f.comments); n > 0 {
		message := "this comment is not carried over"
		if n > 1 {
			message = fmt.Sprintf("%d comments are not carried over; this is the first", n)
		}
		in.Warnings = append(in.Warnings, f.ErrorAt(f.comments[0], message, "", nil))
	}
	in.Warnings = inOrder(in.Warnings)
	return in
}
