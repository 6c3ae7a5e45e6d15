package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"culvert/config"
	"culvert/privatesocket"
)

// listen opens a place to be served at. A unix socket is for its owner and its group; one that a killed process has left is replaced.
func listen(at config.Listen, group *uint32) (net.Listener, error) {
	if at.Socket == "" {
		l, err := net.Listen("tcp", at.Address.String())
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, &takenError{at}
		}
		if err != nil {
			return nil, fmt.Errorf("cannot listen at %s: %w", at, plain(err))
		}
		return l, nil
	}
	if err := preparePlace(at.Socket); err != nil {
		return nil, err
	}
	l, err := privatesocket.Listen(at.Socket)
	if err != nil {
		return nil, fmt.Errorf("cannot listen at %s: %w", at, plain(err))
	}
	if err := give(at.Socket, group); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// takenError says that a place is another program's.
type takenError struct{ at config.Listen }

func (e *takenError) Error() string {
	return fmt.Sprintf("%s is taken: another program listens there; ss -ltnp shows which", e.at)
}

func (e *takenError) Unwrap() error { return syscall.EADDRINUSE }

// give opens a socket to its group, which is the process's own where none is said.
func give(path string, group *uint32) error {
	gid := os.Getegid()
	if group != nil {
		gid = int(*group)
	}
	if err := os.Lchown(path, -1, gid); err != nil {
		return fmt.Errorf("cannot give %s to group %d: %w", path, gid, plain(err))
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("cannot open %s to its group: %w", path, plain(err))
	}
	return nil
}

// preparePlace makes the folder of a socket where it is missing, and takes a socket away that nobody listens at. What is in a folder that
// others can change could be anything, and is not touched.
func preparePlace(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of %s: %w", path, plain(err))
	}
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot look at the folder of %s: %w", path, plain(err))
	}
	owner := int(st.Sys().(*syscall.Stat_t).Uid)
	if owner != 0 && owner != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can change what is in %s, so a socket there could be replaced: choose a folder that only its owner can write to", dir)
	}
	st, err = os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot look at %s: %w", path, plain(err))
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there, and is no socket: it is not touched; move it away, or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("%s is taken: another program listens there; ss -lxp shows which", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s is there, and cannot be tried: %w", path, plain(err))
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("cannot take away the socket that was left at %s: %w", path, plain(err))
	}
	return nil
}

// plain strips what the system call's wrappers say around its error.
func plain(err error) error {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return err
}
