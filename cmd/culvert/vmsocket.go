package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"culvert/control"
)

// vmHandOverTime bounds how long a client may take to receive.
const vmHandOverTime = 5 * time.Second

// handOver gives the port's descriptor to whoever connects to the socket and may have it, until a signal comes.
func (p *program) handOver(path string, g *guestLink, signals *caughtSignals) error {
	l, err := listenPrivate(path)
	if err != nil {
		return permissionHint(err)
	}
	defer l.Close() // removes the socket, too
	ended := make(chan error, 2)
	defer p.follow(g, func(err error) { ended <- err })()
	served := make(chan struct{})
	go func() {
		defer close(served)
		ended <- p.serveDescriptor(l, g)
	}()
	defer func() {
		l.Close()
		<-served
	}()
	fmt.Fprintf(p.stderr, "culvert: %s, MTU %d, is handed over at %s; a MAC address for the machine is %v\n", g.name, g.mtu, path, g.mac)
	if err := takeNotifier().send("READY=1"); err != nil {
		report(p.stderr, err)
	}
	select {
	case <-signals.c:
		return nil
	case err := <-ended:
		return err
	}
}

// listenPrivate binds a socket that only this user and root can connect to. One that a killed process left is replaced.
func listenPrivate(path string) (*net.UnixListener, error) {
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("%s is there already and is no socket", path)
	default:
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return nil, fmt.Errorf("another process listens on %s", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// Before it is bound: its file has the mode of the socket's own inode then.
		if cerr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// serveDescriptor serves one client after the other: each gets its answer at once.
func (p *program) serveDescriptor(l *net.UnixListener, g *guestLink) error {
	failing := false // told once
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if !failing {
				report(p.stderr, fmt.Errorf("cannot hand %s over, trying again until it works: %w", g.name, err))
			}
			failing = true
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		failing = false
		if err := giveDescriptor(c, g.port.File()); err != nil {
			report(p.stderr, fmt.Errorf("cannot hand %s over: %w", g.name, err))
		}
		c.Close()
	}
}

// giveDescriptor sends one byte with the descriptor beside it (SCM_RIGHTS, unix(7)).
func giveDescriptor(c *net.UnixConn, f *os.File) error {
	if err := mayHave(c); err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(vmHandOverTime)); err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) { _, _, sendErr = c.WriteMsgUnix([]byte{0}, syscall.UnixRights(int(fd)), nil) }); err != nil {
		return err
	}
	return sendErr
}

// mayHave refuses clients of other users, whatever way they came to the socket.
func mayHave(c *net.UnixConn) error {
	pid, uid, err := control.Caller(c)
	if err != nil {
		return err
	}
	if uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("process %d of user %d asked for it", pid, uid)
	}
	return nil
}
