package transport

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"culvert/succession"
)

// Files implements [Bequeather].
func (s *udpSocket) Files() (files []SocketFile, err error) {
	for i := range 1 + len(s.joined) {
		w := s.worker(i)
		for _, f := range []*family{w.v4, w.v6} {
			if f == nil {
				continue
			}
			fd, err := succession.Copy(f.file)
			if err != nil {
				for _, f := range files {
					f.File.Close()
				}
				return nil, fmt.Errorf("copy the descriptor of a socket: %w", err)
			}
			files = append(files, SocketFile{os.NewFile(uintptr(fd), "udp"), i, f.v6})
		}
	}
	return files, nil
}

// Inherit makes a socket of the kernel's network of what [Bequeather] has given in another process. The descriptors are the socket's from then
// on, and closed also on error. Of the options Port, Workers and Steering are what they were at Open.
func Inherit(files []SocketFile, o Options) (_ Socket, err error) {
	s := newUDPSocket(o)
	s.mark.Store(o.Mark)
	s.dontFragment.Store(o.DontFragment)
	defer func() {
		for _, f := range files {
			f.File.Close()
		}
		if err != nil {
			err = errors.Join(fmt.Errorf("go on with a UDP port: %w", err), s.Close())
		}
	}()
	for _, f := range files {
		if f.Worker < 0 || f.Worker >= len(files) {
			return nil, fmt.Errorf("worker %d: %w", f.Worker, unix.EINVAL)
		}
		for f.Worker > len(s.joined) {
			s.joined = append(s.joined, worker{})
		}
		place := &s.v4
		switch {
		case f.Worker == 0 && f.V6:
			place = &s.v6
		case f.Worker > 0 && f.V6:
			place = &s.joined[f.Worker-1].v6
		case f.Worker > 0:
			place = &s.joined[f.Worker-1].v4
		}
		if *place != nil {
			return nil, fmt.Errorf("two sockets for one purpose: %w", unix.EINVAL)
		}
		if *place, err = inheritFamily(f, o); err != nil {
			return nil, err
		}
		port, err := (*place).port()
		if err != nil {
			return nil, err
		}
		if port == 0 || s.port != 0 && port != s.port {
			return nil, fmt.Errorf("ports %d and %d: %w", s.port, port, unix.EINVAL)
		}
		s.port = port
	}
	if s.v4 == nil && s.v6 == nil {
		return nil, fmt.Errorf("no socket: %w", unix.EINVAL)
	}
	s.makeReceivers()
	if !o.Unwatched {
		s.openRoutes()
	}
	return s, nil
}

// inheritFamily makes one kernel socket what openFamily makes of a new one.
func inheritFamily(f SocketFile, o Options) (_ *family, err error) {
	fd, err := succession.Copy(f.File)
	if err != nil {
		return nil, err
	}
	want, network := unix.AF_INET, "udp4"
	if f.V6 {
		want, network = unix.AF_INET6, "udp6"
	}
	made := &family{v6: f.V6}
	fail := func(err error) (*family, error) {
		unix.Close(fd)
		return nil, err
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fail(os.NewSyscallError("getsockopt SO_DOMAIN", err))
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fail(os.NewSyscallError("getsockopt SO_PROTOCOL", err))
	}
	if domain != want || protocol != unix.IPPROTO_UDP {
		return fail(fmt.Errorf("not a socket of %s: %w", network, unix.EINVAL))
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fail(err)
	}
	if o.Mark == 0 { // it may have one
		if err := markOption(0).set(fd); err != nil && !errors.Is(err, unix.EPERM) {
			return fail(err)
		}
	}
	o.joins, o.bound = false, true
	if call, err := made.setOptions(fd, o); err != nil {
		return fail(os.NewSyscallError(call, err))
	}
	made.file = os.NewFile(uintptr(fd), network)
	if made.raw, err = made.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, made.file.Close())
	}
	return made, nil
}
