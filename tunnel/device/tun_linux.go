package device

// TunOptions describes a tun interface to open.
type TunOptions struct {
	// Name of at most 15 bytes. The kernel replaces a "%d" by the first free number; "" is "tun%d". An interface of that
	// name is attached to if it is a persistent tun that nobody else uses, otherwise created.
	Name string
	// MTU in bytes; 0 leaves the kernel's default or what a persistent interface has.
	MTU int
	// Queues is how many queues to open, at most 256; less than 1 is 1.
	Queues int
	// Persist keeps the interface when it is closed.
	Persist bool
}

// OpenTun opens a tun interface in the network namespace of the calling thread; the interface works from any thread
// afterwards, also when it is moved to another namespace. Errors are an [*OpenError], which unwraps to the kernel's errno:
// EBUSY when the name is in use, EPERM without CAP_NET_ADMIN, ENOENT without /dev/net/tun.
func OpenTun(o TunOptions) (Device, error) {
	d, err := openInterface(LayerIP, o.Name, o.Queues, func(d *kernelInterface) error {
		return d.configure(o.MTU, o.Persist)
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// TunFromFD makes a device of one queue from a file descriptor of a tun interface that somebody else has set up
// (WG_TUN_FD), with or without IFF_VNET_HDR. IFF_NO_PI must have been set; the kernel does not tell (it says IFF_NOFILTER
// with the same bit). The descriptor is the device's from then on, and closed also on error.
func TunFromFD(fd int) (Device, error) {
	d, err := interfaceFromFD(LayerIP, fd)
	if err != nil {
		return nil, err
	}
	return d, nil
}
