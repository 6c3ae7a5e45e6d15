package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// trustedProgram refuses a program that somebody but root could have put there. It gets what the daemon may do, and who asks for it may be any
// process of the daemon's user, which is no reason to have that as well. One that is not there is not refused.
func trustedProgram(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, at := range []string{real, filepath.Dir(real)} {
		st, err := os.Stat(at)
		if err != nil {
			return err
		}
		if at == real && !st.Mode().IsRegular() {
			return fmt.Errorf("%s is no program", path)
		}
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 0 || st.Mode().Perm()&0o022 != 0 && st.Mode()&os.ModeSticky == 0 {
			return hint(fmt.Errorf("%s could be changed by others than root (owner %d, mode %#o)", at, sys.Uid, st.Mode().Perm()),
				"give a program with --program that is root's, in a folder of root's")
		}
	}
	return nil
}
