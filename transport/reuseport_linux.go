package transport

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// This file is how several sockets share a port (SO_REUSEPORT), so that several goroutines receive side by side.
//
// The first socket of a family is bound without SO_REUSEPORT: a port that anybody has is an error, whether or not they would
// share it. Only then is it made to share, with sockets of its own kind that are bound after it. What remains: from then on
// another process of the same user may join the port, if it asks for that. The program that divides the datagrams gives
// such a socket none; where the kernel refused the program, it gets a part of them, none of which it can read.

// worker is one worker's sockets; nil where the host lacks the family.
type worker struct{ v4, v6 *family }

// worker returns the sockets of worker i, from 0.
func (s *udpSocket) worker(i int) worker {
	if i > 0 && i <= len(s.joined) {
		return s.joined[i-1]
	}
	return worker{s.v4, s.v6}
}

var sharePort = socketOption{"setsockopt SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1}

// join binds o.Workers-1 more sockets of each family to the port that is bound. What it has opened when it fails closes with s.
func (s *udpSocket) join(o Options) error {
	if o.Workers <= 1 {
		return nil
	}
	o.Port, o.joins = s.port, true
	s.joined = make([]worker, o.Workers-1)
	for _, first := range []*family{s.v4, s.v6} {
		if first == nil {
			continue
		}
		if err := first.setOption(sharePort); err != nil {
			return err
		}
		for i := range s.joined {
			f, err := openFamily(first.v6, o)
			if err != nil {
				return err
			}
			if first.v6 {
				s.joined[i].v6 = f
			} else {
				s.joined[i].v4 = f
			}
		}
	}
	for _, first := range []*family{s.v4, s.v6} {
		if first == nil {
			continue
		}
		if err := s.steer(first, o.Steering, o.Workers); err != nil {
			s.logf("transport: the kernel does not take a program that divides datagrams among %d sockets (%v): it goes by addresses and ports",
				o.Workers, err)
			break
		}
	}
	return nil
}

// steeringProgram is [Steering].Worker for the kernel: a classic BPF program over the UDP payload whose result is the number
// of a socket, in the order of their joining. A load from behind the end of a datagram ends it with 0.
func steeringProgram(s Steering, workers int) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(s.First), Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: uint32(s.At)},
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: uint32(s.Shift)},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(workers)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
}

// attachFunc is setsockopt SO_ATTACH_REUSEPORT_CBPF, or what a test puts in its place.
type attachFunc func(fd int, program *unix.SockFprog) error

func attachSteering(fd int, program *unix.SockFprog) error {
	return os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF",
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, program))
}

// steer gives the group that f is in its program.
func (s *udpSocket) steer(f *family, steering Steering, workers int) (err error) {
	filter := steeringProgram(steering, workers)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if f.raw.Control(func(fd uintptr) { err = s.attach(int(fd), &program) }) != nil {
		return net.ErrClosed
	}
	return err
}
