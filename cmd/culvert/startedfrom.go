package main

import (
	"os"
	"os/exec"
	"path/filepath"
)

// startedFrom is the path this program was started from, by its name as it was called: a symbolic link stays one, so that the program it leads to
// later is found. "" where it cannot be told.
func startedFrom(name string) string {
	own, err := os.Executable()
	if err != nil {
		own = ""
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return own
	}
	named, err1 := os.Stat(path)
	running, err2 := os.Stat(own)
	if err1 != nil || err2 != nil || !os.SameFile(named, running) {
		return own
	}
	return path
}
