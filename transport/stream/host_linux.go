package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// unsentBytes is how much the kernel takes that it cannot send yet; the rest waits in the stream's own queue, which drops.
	unsentBytes = 128 << 10
	// userTimeout is how long sent data may go unacknowledged (RFC 5482), in milliseconds.
	userTimeout = 30_000
)

// keepAlive finds a far end that has vanished: within about a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}

// kernel is the kernel's TCP in one network namespace.
type kernel struct {
	namespace *os.File // nil where it is the one that the process's other threads are in
}

// kernelHost returns the kernel's TCP of the calling thread's network namespace.
func kernelHost() (Host, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var here, process unix.Stat_t
	own := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	if err := errors.Join(unix.Stat(own, &here), unix.Stat("/proc/self/ns/net", &process)); err != nil {
		return &kernel{}, nil // without /proc there are no other namespaces to be had
	}
	if here.Ino == process.Ino && here.Dev == process.Dev {
		return &kernel{}, nil
	}
	f, err := os.Open(own)
	if err != nil {
		return nil, fmt.Errorf("the network namespace cannot be kept: %w", err)
	}
	return &kernel{namespace: f}, nil
}

// Close lets go of the namespace.
func (k *kernel) Close() error {
	if k.namespace == nil {
		return nil
	}
	return k.namespace.Close()
}

// within calls f in the namespace.
func within[T any](k *kernel, f func() (T, error)) (T, error) {
	if k.namespace == nil {
		return f()
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and nobody else gets one in the wrong namespace
		var r result
		if r.err = unix.Setns(int(k.namespace.Fd()), unix.CLONE_NEWNET); r.err != nil {
			r.err = os.NewSyscallError("setns", r.err)
		} else {
			r.value, r.err = f()
		}
		done <- r
	}()
	r := <-done
	return r.value, r.err
}

func (k *kernel) Listen(at netip.AddrPort, mark uint32) (net.Listener, error) {
	return within(k, func() (net.Listener, error) {
		c := net.ListenConfig{Control: control(mark), KeepAliveConfig: keepAlive}
		c.SetMultipathTCP(false)
		address := at.String()
		if at.Addr().IsUnspecified() && at.Addr().Is6() {
			address = fmt.Sprintf(":%d", at.Port()) // of both families
		}
		return c.Listen(context.Background(), "tcp", address)
	})
}

func (k *kernel) Dial(ctx context.Context, to netip.AddrPort, mark uint32) (net.Conn, error) {
	return within(k, func() (net.Conn, error) {
		d := net.Dialer{Control: control(mark), KeepAliveConfig: keepAlive}
		return d.DialContext(ctx, "tcp", to.String())
	})
}

func (k *kernel) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	return within(k, func() ([]netip.Addr, error) { return net.DefaultResolver.LookupNetIP(ctx, "ip", name) })
}

// control sets up a socket before it is connected or listens. Accepted connections inherit all of it.
func control(mark uint32) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		ctlErr := c.Control(func(fd uintptr) {
			if mark != 0 {
				if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
					err = os.NewSyscallError("setsockopt SO_MARK", err)
					return
				}
			}
			// What an older kernel lacks of these costs speed alone.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
		})
		return errors.Join(ctlErr, err)
	}
}

func (k *kernel) SetMark(of any, mark uint32) error {
	c, ok := of.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	})
	if err != nil {
		return os.NewSyscallError("setsockopt SO_MARK", err)
	}
	if errors.Is(ctlErr, net.ErrClosed) {
		return nil
	}
	return ctlErr
}
