package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rival is a daemon that is configured by files or arguments of its own: another project's as Debian's package installs it, or what
// can be built, or the relay.
type rival struct {
	name            string
	program, debian string // names of the program and of its package
	settings        string // what its configuration chooses, for the results
	addresses       bool   // it gives its device the address itself
	// build returns the program's path where it is built, and what keeps it from being built; nil for what is installed.
	build func(*stage) (string, error)
	// configure writes what two ends need to their folders and returns the arguments each is started with.
	configure func(program string, ends [2]rivalEnd) (arguments [2][]string, err error)
	// settled returns an error as long as an end that answers already does not yet do what it will do from then on; nil
	// where there is no such time.
	settled func(*daemon) error
}

// rivals are measured in this order as tunnels of Ethernet frames.
var rivals = []*rival{&fastd, &openVPN, &tinc}

// rivalEnd is one end of a tunnel, as its configuration knows it. The first of two calls, the second answers.
type rivalEnd struct {
	folder  string       // its own, and there already
	address netip.Addr   // on the underlay
	inner   netip.Prefix // inside the tunnel
	tap     bool         // the device carries Ethernet frames
	mtu     int          // of the device
}

// mode is what most call it.
func (e *rivalEnd) mode() string {
	if e.tap {
		return "tap"
	}
	return "tun"
}

// rivalBuffer is what those ask for as their sockets' buffers that have an option for it, in bytes; the kernel gives no more than
// net.core.rmem_max and wmem_max. A smaller one loses more, a larger one makes packets wait longer.
const rivalBuffer = 1 << 20

// find returns the program's path, also where an ordinary PATH leaves out sbin.
func (f *rival) find() (string, error) {
	for _, name := range []string{f.program, "/usr/sbin/" + f.program, "/usr/local/sbin/" + f.program} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (apt-get install %s)", f.program, f.debian)
}

// version returns a program's version.
func (f *rival) version(path string) (string, error) {
	out, err := exec.Command(path, "--version").Output() // OpenVPN ends with 1
	version, ok := versionIn(string(out))
	if !ok {
		return "", errors.Join(fmt.Errorf("%s --version prints none", path), err)
	}
	return version, nil
}

// versionIn returns the first word that is a number, as in "fastd v22" and "tinc version 1.0.36".
func versionIn(text string) (string, bool) {
	for word := range strings.FieldsSeq(text) {
		if digits := strings.TrimPrefix(word, "v"); digits != "" && digits[0] >= '0' && digits[0] <= '9' {
			return digits, true
		}
	}
	return "", false
}

// writeFiles writes a daemon's files. All are private: some programs refuse keys that are not.
func writeFiles(folder string, files map[string]string) error {
	var errs []error
	for name, text := range files {
		path := filepath.Join(folder, name)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
	}
	return errors.Join(errs...)
}
