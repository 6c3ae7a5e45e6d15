package device

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"culvert/succession"
)

// Files implements [Bequeather].
func (d *kernelInterface) Files() (files []*os.File, err error) {
	for _, q := range d.queues {
		fd, err := succession.Copy(q.file)
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
		fd, err := succession.Copy(f)
		if err != nil {
			return nil, err
		}
		name, err := d.addAttached(fd)
		if err != nil {
			return nil, err
		}
		if first == "" {
			first = name
		}
		if name != first {
			return nil, fmt.Errorf("queues of %s and of %s: %w", first, name, unix.EINVAL)
		}
	}
	if err := d.begin(); err != nil {
		return nil, err
	}
	if layer == LayerEthernet {
		return &tap{d}, nil
	}
	return d, nil
}
