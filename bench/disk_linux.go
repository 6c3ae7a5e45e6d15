package main

import (
	"fmt"
	"os"
	"syscall"
)

// fileSystem names the file system that a folder is on: the usual ones by name, others by the number statfs(2) has for them.
func fileSystem(folder string) (string, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(folder, &st); err != nil {
		return "", &os.PathError{Op: "statfs", Path: folder, Err: err}
	}
	switch number := uint32(st.Type); number {
	case 0xef53:
		return "ext4", nil
	case 0x5846_5342:
		return "xfs", nil
	case 0x9123_683e:
		return "btrfs", nil
	case 0x2fc1_2fc1:
		return "zfs", nil
	case 0x794c_7630:
		return "overlayfs", nil
	case 0x0102_1994:
		return "tmpfs", nil
	default:
		return fmt.Sprintf("file system %#x", number), nil
	}
}
