package setup

import "golang.org/x/sys/unix"

// MayConfigure reports whether this thread has CAP_NET_ADMIN, with which links, addresses, routes and rules of its network namespace are set.
// Namespaces want CAP_SYS_ADMIN besides.
func MayConfigure() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}
