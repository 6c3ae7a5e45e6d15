package setup

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// journal holds the inverse of each step done so far.
type journal []inverse

type inverse struct {
	op, item string
	undo     func() error
}

func (j *journal) add(op, item string, undo func() error) {
	*j = append(*j, inverse{op, item, undo})
}

// undo takes everything back, the last step first. What is gone already is fine; any other failure is reported, and
// does not keep the rest from being undone.
func (j *journal) undo() error {
	var errs []error
	for i := len(*j) - 1; i >= 0; i-- {
		step := (*j)[i]
		if err := step.undo(); err != nil && !gone(err) {
			errs = append(errs, &OpError{Op: step.op, Item: step.item, Err: err, Hint: permissionHint(err)})
		}
	}
	*j = nil
	return errors.Join(errs...)
}

// gone reports whether an error of a removal says that there is nothing to remove: no such route, link, address, or
// rule and table, in this order.
func gone(err error) bool {
	for _, errno := range []unix.Errno{unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL, unix.ENOENT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	_, ok := errors.AsType[netlink.LinkNotFoundError](err)
	return ok
}
