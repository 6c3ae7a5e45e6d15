package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// link is a netlink socket in the namespace of an interface, subscribed to the changes of all links there.
type link struct {
	file  *os.File
	conn  syscall.RawConn
	index int32
}

// openLink opens a socket in the calling thread's namespace and asks for the present state of the interface name, which
// then comes through receive like all changes.
func openLink(name string) (_ *link, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	l := &link{file: os.NewFile(uintptr(fd), "netlink")}
	defer func() {
		if err != nil {
			_ = l.close()
		}
	}()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		return nil, fmt.Errorf("subscribe to link changes: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return nil, fmt.Errorf("find the interface %s: %w", name, err)
	}
	l.index = int32(ifr.Uint32())
	if l.conn, err = l.file.SyscallConn(); err != nil {
		return nil, err
	}
	if err := l.request(); err != nil {
		return nil, fmt.Errorf("ask for the state of %s: %w", name, err)
	}
	return l, nil
}

func (l *link) close() error { return l.file.Close() }

// request asks for the interface's state.
func (l *link) request() error {
	var m struct {
		unix.NlMsghdr
		unix.IfInfomsg
	}
	m.Len, m.NlMsghdr.Type, m.NlMsghdr.Flags = uint32(unsafe.Sizeof(m)), unix.RTM_GETLINK, unix.NLM_F_REQUEST
	m.Index = l.index
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m))
	var err error
	if e := l.conn.Control(func(fd uintptr) {
		err = unix.Sendto(int(fd), raw, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); e != nil {
		return e
	}
	return err
}

// mtu reads or sets the MTU of the interface name.
func (l *link) mtu(name string, request uint, mtu int) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	ifr.SetUint32(uint32(mtu))
	if e := l.conn.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), request, ifr) }); e != nil {
		return 0, os.ErrClosed
	}
	return int(ifr.Uint32()), err
}

// receive waits for one datagram of the kernel.
func (l *link) receive(buf []byte) (n int, err error) {
	for {
		var from unix.Sockaddr
		e := l.conn.Read(func(fd uintptr) bool {
			for {
				n, from, err = unix.Recvfrom(int(fd), buf, 0)
				if err != unix.EINTR {
					return err != unix.EAGAIN
				}
			}
		})
		switch sa, ok := from.(*unix.SockaddrNetlink); {
		case e != nil:
			return 0, e
		case err != nil:
			return 0, err
		case ok && sa.Pid == 0: // any process may send to the socket, but 0 is the kernel
			return n, nil
		}
	}
}

// linkState is what the engine wants to know of an interface.
type linkState struct {
	up  bool
	mtu uint32
}

// parse calls changed for each state of the interface in the messages of one datagram; it returns true as soon as one
// says that the namespace has the interface no more.
func (l *link) parse(datagram []byte, changed func(linkState)) (deleted bool) {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return false
	}
	for i := range messages {
		m := &messages[i]
		switch m.Header.Type {
		case unix.NLMSG_ERROR: // of our request: there is no such interface
			if len(m.Data) >= 4 && int32(binary.NativeEndian.Uint32(m.Data)) == -int32(unix.ENODEV) {
				return true
			}
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			// Other families tell of the interface's life as a bridge port and the like.
			if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC ||
				int32(binary.NativeEndian.Uint32(m.Data[4:])) != l.index {
				continue
			}
			if m.Header.Type == unix.RTM_DELLINK {
				return true
			}
			state := linkState{up: binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0}
			attributes, err := syscall.ParseNetlinkRouteAttr(m)
			if err != nil {
				continue
			}
			for _, a := range attributes {
				if a.Attr.Type == unix.IFLA_MTU && len(a.Value) == 4 {
					state.mtu = binary.NativeEndian.Uint32(a.Value)
				}
			}
			changed(state)
		}
	}
	return false
}

// askAgain is how long the kernel is left alone that could not be asked for the interface's state.
const askAgain = 200 * time.Millisecond

// watchLink turns changes of the interface into events until it is deleted or the device closed.
func (d *kernelInterface) watchLink() {
	defer close(d.events)
	buf := make([]byte, 64<<10)
	var last linkState
	known := false
	l := d.link // only this goroutine replaces it
	for {
		n, err := l.receive(buf)
		lost := err != nil
		for err != nil {
			if d.closed.Load() {
				return
			}
			// Changes were lost (ENOBUFS), or may have been: what is so now is asked for, until there is an answer.
			if err = l.request(); err != nil {
				select {
				case <-d.done:
					return
				case <-time.After(askAgain):
				}
				continue
			}
			n, err = l.receive(buf)
		}
		deleted := l.parse(buf[:n], func(s linkState) {
			if !known || s.up != last.up || lost { // it may have been down meanwhile, which takes its routes
				lost = false
				if s.up {
					d.report(EventUp)
				} else {
					d.report(EventDown)
				}
			}
			if known && s.mtu != last.mtu {
				d.report(EventMTU)
			}
			last, known = s, true
		})
		if !deleted {
			continue
		}
		// If the queues are still attached, the interface lives on in another namespace.
		moved, err := d.findLink()
		if errors.Is(err, ErrGone) {
			return
		}
		if err != nil || !d.replaceLink(moved) {
			<-d.done
			return
		}
		l = moved
	}
}

func (d *kernelInterface) report(e Event) {
	select {
	case d.events <- e:
	case <-d.done:
	}
}

// replaceLink has the device use l from now on; false when it has been closed, and l with it.
func (d *kernelInterface) replaceLink(l *link) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		_ = l.close()
		return false
	}
	_ = d.link.close()
	d.link = l
	return true
}

// findLink opens a link in whichever namespace the interface is in, or, when that may not be known, in the thread's. The
// error is ErrGone when there is no interface any more.
func (d *kernelInterface) findLink() (*link, error) {
	name, err := d.Name()
	if err != nil {
		return nil, err
	}
	namespace := -1
	if err := d.control(func(fd int) (err error) {
		namespace, err = unix.IoctlRetInt(fd, unix.TUNGETDEVNETNS)
		return err
	}); err != nil {
		return openLink(name)
	}
	defer unix.Close(namespace)
	var here, there unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &here) == nil && unix.Fstat(namespace, &there) == nil &&
		here.Dev == there.Dev && here.Ino == there.Ino {
		return openLink(name)
	}
	type result struct {
		l   *link
		err error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
			results <- result{nil, fmt.Errorf("enter the interface's namespace: %w", err)}
			return
		}
		l, err := openLink(name)
		results <- result{l, err}
	}()
	r := <-results
	return r.l, r.err
}
