package device

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TapOptions describes a tap interface to open.
type TapOptions struct {
	// Name of at most 15 bytes. The kernel replaces a "%d" by the first free number; "" is "tap%d". An interface of that
	// name is attached to if it is a persistent tap that nobody else uses, otherwise created.
	Name string
	// MTU in bytes, without the Ethernet header and VLAN tags, at most 65513; 0 leaves the kernel's default or what a
	// persistent interface has.
	MTU int
	// Queues is how many queues to open, at most 256; less than 1 is 1.
	Queues int
	// Persist keeps the interface when it is closed.
	Persist bool
	// Address is the interface's MAC address, a unicast one; zero leaves the kernel's random one or what a persistent
	// interface has.
	Address [6]byte
}

// tap is a tap interface of the Linux kernel.
type tap struct{ *kernelInterface }

// OpenTap is [OpenTun] for a tap interface, which carries Ethernet frames. The device is also a [CarrierSetter], an
// [MTUSetter] and a [HardwareAddresser]. Its carrier is on, whatever it was on a persistent interface before.
func OpenTap(o TapOptions) (Device, error) {
	d, err := openInterface(LayerEthernet, o.Name, o.Queues, func(d *kernelInterface) error {
		if o.Address != ([6]byte{}) {
			if err := (&tap{d}).setHardwareAddress(o.Address); err != nil {
				return err
			}
		}
		return d.configure(o.MTU, o.Persist)
	})
	if err != nil {
		return nil, err
	}
	return &tap{d}, nil
}

// TapFromFD is [TunFromFD] for a file descriptor of a tap interface.
func TapFromFD(fd int) (Device, error) {
	d, err := interfaceFromFD(LayerEthernet, fd)
	if err != nil {
		return nil, err
	}
	return &tap{d}, nil
}

// SetCarrier implements [CarrierSetter]. Without carrier the kernel sends nothing to the device; what is written to it is
// received all the same.
func (d *tap) SetCarrier(on bool) error {
	value, state := 0, "off"
	if on {
		value, state = 1, "on"
	}
	err := d.control(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TUNSETCARRIER, value) })
	if err != nil {
		return fmt.Errorf("turn the carrier %s: %w", state, gone(err))
	}
	return nil
}

// hardwareRequest is struct ifreq with a hardware address (netdevice(7)).
type hardwareRequest struct {
	_       [unix.IFNAMSIZ]byte // the descriptor says which interface
	family  uint16
	address [6]byte
	_       [16]byte
}

// HardwareAddress implements [HardwareAddresser].
func (d *tap) HardwareAddress() (address [6]byte, err error) {
	var r hardwareRequest
	if err := d.hardware(unix.SIOCGIFHWADDR, &r); err != nil {
		return address, fmt.Errorf("read the hardware address: %w", err)
	}
	return r.address, nil
}

func (d *tap) setHardwareAddress(address [6]byte) error {
	if err := d.hardware(unix.SIOCSIFHWADDR, &hardwareRequest{family: unix.ARPHRD_ETHER, address: address}); err != nil {
		return fmt.Errorf("set the hardware address to %x: %w", address, err)
	}
	return nil
}

// hardware asks through the tap's own descriptor, which works whichever namespace the interface is in.
func (d *tap) hardware(request uintptr, r *hardwareRequest) error {
	return d.control(func(fd int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(r)))
		if errno != 0 {
			return gone(errno)
		}
		return nil
	})
}
