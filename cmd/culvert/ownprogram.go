package main

import (
	"errors"
	"io/fs"
	"os"
)

const procSelf = "/proc/self/exe"

// ownProgram is the path this program is started again by: its own, so that it keeps its name in ps and ss, or the kernel's
// link to it where that path now leads elsewhere.
func ownProgram() string {
	path, err := os.Executable()
	if err != nil {
		return procSelf
	}
	named, err := os.Stat(path)
	if err != nil {
		return procSelf
	}
	running, err := os.Stat(procSelf)
	if errors.Is(err, fs.ErrNotExist) { // no system of Linux's
		return path
	}
	if err != nil || !os.SameFile(named, running) {
		return procSelf
	}
	return path
}
