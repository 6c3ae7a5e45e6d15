package rtnl

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listener hears of changes in one network namespace. It keeps the namespace alive until it is closed.
type Listener struct {
	file   *os.File
	conn   syscall.RawConn
	buffer []byte
}

// changes are the groups of what plans are about: links, addresses, routes, rules, queueing disciplines with their classes and filters.
var changes = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
	unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
}

// Listen listens in the namespace a descriptor refers to.
func Listen(netns int) (*Listener, error) {
	c, err := OpenAt(netns)
	if err != nil {
		return nil, err
	}
	for _, group := range changes {
		if err = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			break
		}
	}
	if err == nil {
		err = unix.SetNonblock(c.fd, true)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	l := &Listener{file: os.NewFile(uintptr(c.fd), "netlink"), buffer: c.buffer}
	if l.conn, err = l.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// Wait returns when something has changed, or with [os.ErrClosed] once the listener is closed. It may be called by one goroutine.
func (l *Listener) Wait() error {
	for {
		var err error
		var from unix.Sockaddr
		if e := l.conn.Read(func(fd uintptr) bool {
			err = retry(func() (err error) {
				_, from, err = unix.Recvfrom(int(fd), l.buffer, 0)
				return err
			})
			return !errors.Is(err, unix.EAGAIN)
		}); e != nil {
			return os.ErrClosed // nothing else ends a reading of this kind
		}
		if errors.Is(err, unix.ENOBUFS) { // more than there was room for
			return nil
		}
		if err != nil {
			return err
		}
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 { // the kernel's, and nobody else's
			return nil
		}
	}
}

// Close ends the listening.
func (l *Listener) Close() error { return l.file.Close() }
