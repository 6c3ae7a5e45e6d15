package setup

import (
	"errors"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// journal holds the inverse of each step done so far.
type journal []inverse

type inverse struct {
	op, item string
	route    *Route // nil where it is none
	undo     func() error
}

func (j *journal) add(op, item string, undo func() error) {
	*j = append(*j, inverse{op: op, item: item, undo: undo})
}

func (j *journal) addRoute(item string, r Route, undo func() error) {
	*j = append(*j, inverse{op: "delete route", item: item, route: &r, undo: undo})
}

// undo takes everything back, the last step first. What is gone already is fine; any other failure is reported, and
// does not keep the rest from being undone.
func (j *journal) undo() error {
	var errs []error
	for _, step := range slices.Backward(*j) {
		errs = append(errs, step.run())
	}
	*j = nil
	return errors.Join(errs...)
}

// undoRoutes takes back some of the routes, and keeps the rest.
func (j *journal) undoRoutes(these map[Route]bool) error {
	var errs []error
	*j = slices.DeleteFunc(*j, func(step inverse) bool {
		if step.route == nil || !these[*step.route] {
			return false
		}
		errs = append(errs, step.run())
		return true
	})
	return errors.Join(errs...)
}

func (step *inverse) run() error {
	if err := step.undo(); err != nil && !gone(err) {
		return &OpError{Op: step.op, Item: step.item, Err: err, Hint: permissionHint(err)}
	}
	return nil
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
