package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenTap makes a tap on the host and returns its descriptor: each read and each write is one Ethernet frame, finished, without any
// header. The device is down at first. It goes with the descriptor, at the end of the test at the latest.
func (h *Host) OpenTap(name string) *os.File {
	h.t.Helper()
	NeedTun(h.t)
	var f *os.File
	h.Must(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("make tap %s: %w", name, err)
		}
		// Only now: a tap can be waited for from when it is attached.
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	h.t.Cleanup(func() { f.Close() })
	return f
}
