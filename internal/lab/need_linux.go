package lab

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"culvert/setup"
	"golang.org/x/sys/unix"
)

// NeedTun skips the test where tun and tap devices cannot be made.
func NeedTun(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		Skip(t, "needs /dev/net/tun: "+err.Error())
	}
	f.Close()
}

// netnsUsable tries once whether this process may make network namespaces and devices in them.
var netnsUsable = sync.OnceValue(func() error {
	ns, err := setup.NewNamespace(hostName("probe"))
	if err != nil {
		return err
	}
	defer ns.Delete()
	return setup.VethPair(setup.VethEnd{Namespace: ns, Name: "a"}, setup.VethEnd{Namespace: ns, Name: "b"}, 0)
})

// NeedNetns skips the test where network namespaces or veth pairs cannot be made.
func NeedNetns(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	if err := netnsUsable(); err != nil {
		Skip(t, "needs network namespaces: "+err.Error())
	}
}

// NeedIPv6 skips the test where the kernel has no IPv6.
func NeedIPv6(t testing.TB) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		Skip(t, fmt.Sprintf("needs IPv6: %v", err))
	}
	unix.Close(fd)
}
