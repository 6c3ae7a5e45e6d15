package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// trustedProgram refuses a program that somebody but root could have put there, or put something else in its place. It gets what the daemon may do,
// and who asks for it may be any process of the daemon's user, which is no reason to have that as well.
func trustedProgram(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return hint(fmt.Errorf("%s is not there", path), "give another one with --program")
	}
	if err != nil {
		return err
	}
	st, err := os.Stat(real)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no program", path)
	}
	for at := real; ; at = filepath.Dir(at) {
		if err := onlyRoots(at); err != nil {
			return hint(err, "give a program with --program that is root's, in folders of root's")
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// onlyRoots refuses a file or a folder that others than root can change. In a sticky folder they can change only what is theirs.
func onlyRoots(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	sticky := st.IsDir() && st.Mode()&os.ModeSticky != 0
	if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 0 || st.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%s could be changed by others than root (owner %d, mode %#o)", path, sys.Uid, st.Mode().Perm())
	}
	return nil
}
