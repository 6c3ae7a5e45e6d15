package setup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openMacvtap opens the character device of a macvtap of the thread's namespace, as a single queue.
func openMacvtap(name string, index int) (*os.File, error) {
	return openTapNode("macvtap", name, index, unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
}

// openTapNode opens the character device of a macvtap or ipvtap (class says which) of the thread's namespace. Its node in /dev is
// called after the device's index, which devices of other namespaces have as well; so its number is read from a sysfs of this
// namespace, and the node is made in a file system of its own, which nobody else sees and which goes when it is open.
func openTapNode(class, name string, index int, flags uint16) (_ *os.File, err error) {
	node := fmt.Sprintf("tap%d", index)
	fail := func(op string, err error) (*os.File, error) {
		return nil, &OpError{Op: op, Item: name, Err: err, Hint: permissionHint(err)}
	}
	sys, err := detachedMount("sysfs")
	if err != nil {
		return fail("mount sysfs for", err)
	}
	defer unix.Close(sys)
	number, err := deviceNumber(sys, "class/net/"+name+"/"+class+"/"+node+"/dev")
	if err != nil {
		return fail("read the device number of", err)
	}
	memory, err := detachedMount("tmpfs")
	if err != nil {
		return fail("mount tmpfs for", err)
	}
	defer unix.Close(memory)
	if err := unix.Mknodat(memory, node, unix.S_IFCHR|0o600, int(number)); err != nil {
		return fail("make a device node for", err)
	}
	fd, err := unix.Openat(memory, node, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		hint := permissionHint(err)
		if errors.Is(err, unix.EPERM) {
			hint = "in a container its devices have to be allowed: character device " + strconv.Itoa(int(unix.Major(number)))
		}
		return nil, &OpError{Op: "open the device node of", Item: name, Err: err, Hint: hint}
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return fail("set up the queue of", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// detachedMount mounts a new file system of that kind nowhere and returns a descriptor of its root (fsmount(2), Linux 5.2). It
// goes with the descriptor. A sysfs shows the devices of the thread's network namespace.
func detachedMount(kind string) (int, error) {
	context, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	root, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	return root, os.NewSyscallError("fsmount", err)
}

// deviceNumber reads a file of sysfs that holds "MAJOR:MINOR".
func deviceNumber(sys int, path string) (uint64, error) {
	fd, err := unix.Openat(sys, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	const longest = 64
	text, err := io.ReadAll(io.LimitReader(f, longest))
	if err != nil {
		return 0, err
	}
	major, minor, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
	a, errA := strconv.ParseUint(major, 10, 32)
	b, errB := strconv.ParseUint(minor, 10, 32)
	if !ok || errA != nil || errB != nil {
		return 0, fmt.Errorf("%s holds %q, not a device number", path, text)
	}
	return unix.Mkdev(uint32(a), uint32(b)), nil
}
