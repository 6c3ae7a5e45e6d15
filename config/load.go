package config

import "io"

// Load reads and checks the configuration file at path: a wg-quick file where its name ends in .conf, YAML where it
// ends in .yaml or .yml. An error is always [Errors]; where the file could not be opened its only entry wraps the
// system's error (errors.Is with fs.ErrNotExist works).
func Load(path string) (*File, error)

// A SecretFile is a key to be written to a file of its own, of mode 0600.
type SecretFile struct {
	Path    string
	Content []byte
}

// An Import is a wg-quick file made ready for WriteYAML.
type Import struct {
	File     *File
	Secrets  []SecretFile
	Warnings []*Error
}

// ImportWGQuick turns a file loaded from wg-quick's format into one that WriteYAML can write: its keys go to files.
// The key files are named after the tunnel and lie in dir; with dir "" their paths are relative, to be created in the
// folder the YAML file will lie in. The caller creates them (O_EXCL, mode 0600).
func ImportWGQuick(f *File, dir string) *Import

// WriteYAML writes f as YAML. Private and preshared keys must have their files named.
func WriteYAML(w io.Writer, f *File) error

// WriteWGQuick writes t as a wg-quick file, private key included, and returns what that format cannot carry.
func WriteWGQuick(w io.Writer, t *Tunnel) (warnings []string, err error)
