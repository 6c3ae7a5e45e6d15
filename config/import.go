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

// canMark reports whether a mark can be the number of a table as well: it is not none, nor that of a table of the kernel's own.
func canMark(m uint32) bool { return m != 0 && (m < 253 || m > 255) }

// defaults are the families of which a peer is allowed the default route, and the tunnel has an address.
func (t *Tunnel) defaults() (f Families) {
	carried := t.carries()
	for i := range t.Peers {
		for _, a := range t.Peers[i].AllowedIPs {
			f.IPv4 = f.IPv4 || a.Bits() == 0 && a.Addr().Is4() && carried.IPv4
			f.IPv6 = f.IPv6 || a.Bits() == 0 && a.Addr().Is6() && carried.IPv6
		}
	}
	return f
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
		if full := t.defaults(); !full.None() && t.Table.Auto() && (!t.FwMark.Set || canMark(t.FwMark.Value)) {
			t.FullTunnel = full
			in.Warnings = append(in.Warnings, f.ErrorAt(t.Pos, "networks that are reached otherwise go into the tunnel too, unlike with wg-quick",
				"name those that are not to under except: [192.168.0.0/16]", nil))
			if full != (Families{true, true}) {
				in.Warnings = append(in.Warnings, f.ErrorAt(t.Pos, "the other family of addresses goes past the tunnel, as with wg-quick",
					"write full_tunnel: true to have it stopped", nil))
			}
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
