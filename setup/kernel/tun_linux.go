package kernel

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
)

const devNetTun = "/dev/net/tun"

// ErrNoTun is wrapped by what opening /dev/net/tun fails with where there is no driver behind it.
var ErrNoTun = errors.New("no tun driver")

// openTun opens the driver and joins the descriptor with a device of the namespace. Both happen there: a descriptor belongs to the
// namespace it was opened in.
func (n *namespace) openTun(name string, flags uint16) (fd int, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	ifr.SetUint16(flags)
	err = n.inside(func() error {
		fd, err = unix.Open(devNetTun, unix.O_RDWR|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
			return fmt.Errorf("open %s: %w: %w", devNetTun, ErrNoTun, err)
		case err != nil:
			return fmt.Errorf("open %s: %w", devNetTun, err)
		}
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			unix.Close(fd)
			return err
		}
		return nil
	})
	return fd, err
}

// tunFlags are those of TUNSETIFF for a device with these fields.
func tunFlags(kind string, fields model.Fields) uint16 {
	flags := uint16(unix.IFF_TUN)
	if kind == "tap" {
		flags = unix.IFF_TAP
	}
	if fields["multi_queue"].Bool() {
		flags |= unix.IFF_MULTI_QUEUE
	}
	if fields["vnet_hdr"].Bool() {
		flags |= unix.IFF_VNET_HDR
	}
	return flags | unix.IFF_NO_PI
}

// createTun makes a tun or tap. Until it is kept, which is the last thing, it goes with the descriptor, so that a process that is
// killed meanwhile leaves nothing.
func createTun(w *work, kind string) (done apply.Done, err error) {
	// A child of this process that is about to become another program has all descriptors for a moment: nobody else could open it.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	name := w.step.ID.Link().Name()
	fd, err := w.ns.openTun(name, tunFlags(kind, w.step.Fields)|unix.IFF_TUN_EXCL)
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("a device of that name is there already: %w", unix.EEXIST)
	}
	if err != nil {
		return done, err
	}
	defer unix.Close(fd)
	l, err := w.ns.linkByName(name)
	if err == nil && l == nil {
		err = unix.ENODEV
	}
	if err != nil {
		return done, err
	}
	a := linkHead(unix.AF_UNSPEC, l.index, 0, 0)
	a.Uint32(unix.IFLA_GROUP, w.group())
	if err := encodeFields(linkFields, w.step.Fields, a); err != nil {
		return done, err
	}
	if err := w.ns.conn.Do(unix.RTM_NEWLINK, 0, a.Bytes()); err != nil {
		return done, err
	}
	for field, request := range map[model.Field]uint{"owner": unix.TUNSETOWNER, "group": unix.TUNSETGROUP} {
		v, ok := w.step.Fields[field]
		if !ok || v == "" {
			continue
		}
		if err := unix.IoctlSetInt(fd, request, int(v.Uint())); err != nil {
			return done, fmt.Errorf("%s: %w", field, err)
		}
	}
	if w.step.Alias != "" {
		if err := w.ns.setAlias(l.index, w.step.Alias); err != nil {
			return done, err
		}
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return done, fmt.Errorf("keep it: %w", err)
	}
	return apply.Done{Index: l.index}, nil
}

// setPersist says whether a device outlives its descriptors. One that nobody has open goes at once where it does not.
func (w *work) setPersist(l *link, keep bool) error {
	fd, err := w.ns.openTun(l.name, tunFlags(l.kind, l.fields))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := 0
	if keep {
		value = 1
	}
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, value)
}
