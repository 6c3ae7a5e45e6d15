package setup

import (
	"encoding/binary"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// OpenFrames opens a socket for whole Ethernet frames of one EtherType on a link in the calling thread's network namespace
// (packet(7)). Read returns one frame and Write sends one, its header included; deadlines work. It takes CAP_NET_RAW.
func OpenFrames(link string, etherType uint16) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &OpError{Op: "open a packet socket on", Item: link, Err: err, Hint: permissionHint(err)}
	}
	i, err := net.InterfaceByName(link)
	if err != nil {
		return fail(err)
	}
	// Protocol 0 takes nothing before the socket is bound to its link.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	var protocol [2]byte // in the order of the network
	binary.BigEndian.PutUint16(protocol[:], etherType)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(protocol[:]), Ifindex: i.Index}); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return os.NewFile(uintptr(fd), "packet socket on "+link), nil
}
