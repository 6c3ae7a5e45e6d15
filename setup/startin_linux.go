package setup

import (
	"os/exec"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// StartIn starts cmd in a namespace (a file, or "" for the calling thread's), without tying its life to this process's. prepare runs
// before that on the thread that starts it, whose file system attributes (umask, mount namespace after unshare(2)) are its own; the
// program inherits them. The namespace must have the number inode, unless that is 0.
func StartIn(namespace string, inode uint64, prepare func() error, cmd *exec.Cmd) error {
	fail := func(err error) error {
		return &OpError{Op: "start " + cmd.Path + " in namespace", Item: namespace, Err: err, Hint: permissionHint(err)}
	}
	netns, err := openNetns(namespace)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(netns)
	var st unix.Stat_t
	if err := unix.Fstat(netns, &st); err != nil {
		return fail(err)
	}
	if inode != 0 && st.Ino != inode {
		return fail(errOtherNamespace)
	}
	return inNamespace(netns, func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fail(err)
		}
		if err := prepare(); err != nil {
			return fail(err)
		}
		return cmd.Start()
	})
}

// In runs f on a thread of its own in a namespace (a file, or "" for the calling thread's); goroutines that f starts run outside.
func In(namespace string, f func() error) error {
	netns, err := openNetns(namespace)
	if err != nil {
		return &OpError{Op: "enter the network namespace", Item: namespace, Err: err, Hint: permissionHint(err)}
	}
	defer unix.Close(netns)
	return inNamespace(netns, f)
}

// LinkIndex returns the index of a device in a namespace (a file, or "" for the calling thread's).
func LinkIndex(namespace, name string) (index int, err error) {
	netns, err := openNetns(namespace)
	if err != nil {
		return 0, &OpError{Op: "find link", Item: name, Err: err}
	}
	defer unix.Close(netns)
	err = inNamespace(netns, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return &OpError{Op: "find link", Item: name, Err: err}
		}
		index = link.Attrs().Index
		return nil
	})
	return index, err
}
