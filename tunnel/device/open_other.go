//go:build !linux

package device

import (
	"errors"
	"fmt"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// TunOptions describes a tun interface to open.
type TunOptions struct {
	// Name as the system has them: utun and a number on darwin, where utun alone takes the first free one.
	Name string
	// MTU in bytes; 0 leaves the system's default.
	MTU int
	// Queues and Persist have no meaning here: there is one queue, and the interface goes when it is closed.
	Queues  int
	Persist bool
}

// OpenTun opens a tun interface by [golang.zx2c4.com/wireguard/tun].
func OpenTun(o TunOptions) (Device, error) {
	t, err := wgtun.CreateTUN(o.Name, o.MTU)
	if err != nil {
		return nil, fmt.Errorf("open tun interface %s: %w", o.Name, err)
	}
	return FromTUN(t), nil
}

// TapOptions describes a tap interface to open.
type TapOptions struct {
	Name        string
	MTU, Queues int
	Persist     bool
	Address     [6]byte
}

// OpenTap needs Linux.
func OpenTap(o TapOptions) (Device, error) {
	return nil, fmt.Errorf("open tap interface %s: tunnels of Ethernet frames need Linux: %w", o.Name, errors.ErrUnsupported)
}

// TunFromFD needs Linux.
func TunFromFD(int) (Device, error) {
	return nil, fmt.Errorf("a tun interface that somebody else has opened needs Linux: %w", errors.ErrUnsupported)
}
