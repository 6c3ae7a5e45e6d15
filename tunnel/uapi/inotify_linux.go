package uapi

import (
	"os"
	"syscall"
)

// openInotify returns an inotify instance that becomes readable when the name of the file at path may have changed, or nil. It
// watches the file itself, which a bound socket keeps alive: the loss of its last name shows as a change of its
// link count (IN_ATTRIB).
func openInotify(path string) *os.File {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil
	}
	const events = syscall.IN_ATTRIB | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_DONT_FOLLOW
	if _, err := syscall.InotifyAddWatch(fd, path, events); err != nil {
		syscall.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), "inotify")
}
