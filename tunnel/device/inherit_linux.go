package device

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Files implements [Bequeather].
func (d *kernelInterface) Files() (files []*os.File, err error) {
	for _, q := range d.queues {
		fd, err := copyOf(q.file)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("copy the descriptor of a queue: %w", err)
		}
		files = append(files, os.NewFile(uintptr(fd), devNetTun))
	}
	return files, nil
}

// Inherit makes a device of what [Bequeather] has given in another process: the descriptors of all queues of an interface that carries the
// layer. They are the device's from then on, and closed also on error. The interface's MTU, addresses and state stay as they are.
func Inherit(layer Layer, files []*os.File) (_ Device, err error) {
	d := newInterface(layer)
	defer func() {
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			_ = d.Close()
			err = fmt.Errorf("go on with a %s: %w", layer.kind(), err)
		}
	}()
	if len(files) == 0 || len(files) > maxQueues {
		return nil, fmt.Errorf("%d descriptors: %w", len(files), unix.EINVAL)
	}
	first := ""
	for _, f := range files {
		fd, err := copyOf(f)
		if err != nil {
			return nil, err
		}
		ifr, err := unix.NewIfreq("")
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr)
		}
		switch {
		case err != nil:
		case ifr.Uint16()&layer.flag() == 0 || ifr.Uint16()&unix.IFF_VNET_HDR == 0:
			err = fmt.Errorf("interface %s is another kind: %w", ifr.Name(), unix.EINVAL)
		case first != "" && ifr.Name() != first:
			err = fmt.Errorf("queues of %s and of %s: %w", first, ifr.Name(), unix.EINVAL)
		}
		if err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
		first = ifr.Name()
		if err := d.add(fd, true); err != nil {
			return nil, err
		}
	}
	if err := d.offer(); err != nil {
		return nil, err
	}
	if d.link, err = d.findLink(); err != nil {
		return nil, err
	}
	d.watch.Go(d.watchLink)
	if layer == LayerEthernet {
		return &tap{d}, nil
	}
	return d, nil
}

// copyOf is a descriptor of one's own of an open file. Its Fd would have the file block, for everybody who has it.
func copyOf(f syscall.Conn) (fd int, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := c.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 3) }); e != nil {
		return -1, e
	}
	return fd, err
}
