package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"culvert/privatesocket"
	"culvert/setup"
	"golang.org/x/sys/unix"
)

// Device is what is given out, and where.
type Device struct {
	Netns  string // name of the namespace, "" for that of this process
	Name   string
	Index  int // 0: whichever has the name
	Queues int // descriptors given out at a time, 1 to [setup.MaxQueues]

	Socket string      // absolute path
	Mode   fs.FileMode // permissions, 0 for 0600
	Owner  *uint32     // user and group the socket belongs to and may connect
	Group  *uint32
}

// Listener gives a device's queues to whoever may have them.
type Listener struct {
	device Device
	logf   func(format string, args ...any)
	socket *net.UnixListener
	mark   Mark
	served sync.WaitGroup
}

// Listen makes the socket and serves it in the background until Close. A file of its name that is there already is left alone,
// unless it is the one that stale marks.
func Listen(d Device, stale *Mark, logf func(format string, args ...any)) (_ *Listener, err error) {
	fail := func(err error) (*Listener, error) {
		return nil, &setup.OpError{Op: "make the socket", Item: d.Socket, Err: err}
	}
	switch {
	case !filepath.IsAbs(d.Socket):
		return fail(errors.New("not an absolute path"))
	case d.Queues < 1 || d.Queues > setup.MaxQueues:
		return fail(fmt.Errorf("%d queues, there can be 1 to %d", d.Queues, setup.MaxQueues))
	case d.Mode&^fs.ModePerm != 0:
		return fail(fmt.Errorf("mode %o", d.Mode))
	}
	if stale != nil {
		if err := stale.Remove(d.Socket); err != nil {
			return fail(err)
		}
	}
	l := &Listener{device: d, logf: logf}
	if l.mark.Folders, err = makeFolders(filepath.Dir(d.Socket)); err != nil {
		return fail(err)
	}
	if err := l.listen(); err != nil {
		return fail(errors.Join(err, l.mark.removeFolders()))
	}
	l.served.Go(l.serve)
	return l, nil
}

// listen makes the socket without anybody else's getting at it before its owner and permissions are right.
func (l *Listener) listen() error {
	socket, err := privatesocket.Listen(l.device.Socket)
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("a file of that name is there already, and it is not culvert's: %w", err)
	}
	if err != nil {
		return err
	}
	socket.SetUnlinkOnClose(false)
	l.socket = socket
	err = l.own()
	if err != nil {
		err = errors.Join(err, socket.Close(), l.mark.Remove(l.device.Socket))
	}
	return err
}

func (l *Listener) own() error {
	fd, err := unix.Open(l.device.Socket, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("somebody has put another file in its place")
	}
	l.mark.Dev, l.mark.Inode = st.Dev, st.Ino
	id := func(p *uint32) int {
		if p == nil {
			return -1
		}
		return int(*p)
	}
	if err := unix.Fchownat(fd, "", id(l.device.Owner), id(l.device.Group), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	mode := l.device.Mode
	if mode == 0 {
		mode = 0o600
	}
	// A descriptor opened with O_PATH takes no fchmod(2); its link in /proc does.
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

// Mark is what a later process has to know to remove the socket, should this one be killed.
func (l *Listener) Mark() Mark { return l.mark }

// Close stops giving out and removes the socket.
func (l *Listener) Close() error {
	err := l.socket.Close()
	l.served.Wait()
	return errors.Join(err, l.mark.Remove(l.device.Socket))
}

// Remove removes the socket file that is marked, and the folders made for it where they are empty. Another file in its place, or none,
// is no error.
func (m *Mark) Remove(socket string) error {
	var st unix.Stat_t
	err := unix.Lstat(socket, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && st.Dev == m.Dev && st.Ino == m.Inode {
		err = os.Remove(socket)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return m.removeFolders()
}

func (m *Mark) removeFolders() error {
	for _, folder := range slices.Backward(m.Folders) {
		err := os.Remove(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// makeFolders makes a folder and those above it, and returns what was made.
func makeFolders(folder string) (made []string, err error) {
	switch err := os.Mkdir(folder, 0o755); {
	case err == nil:
		return []string{folder}, nil
	case errors.Is(err, fs.ErrExist):
		return nil, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if made, err = makeFolders(filepath.Dir(folder)); err != nil {
		return nil, err
	}
	more, err := makeFolders(folder)
	return append(made, more...), err
}

// patience is how long one receiver may keep the others waiting.
const patience = 2 * time.Second

// serve answers one after the other, so that the second of two who come at once finds the queues taken.
func (l *Listener) serve() {
	for {
		c, err := l.socket.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			l.logf("%s: %v", l.device.Socket, err)
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		if err := l.give(c); err != nil {
			l.logf("%s: %v", l.device.Socket, err)
		}
		c.Close()
	}
}

func (l *Listener) give(c *net.UnixConn) error {
	pid, err := l.admit(c)
	if err != nil {
		return errors.Join(err, send(c, &Offer{Error: err.Error()}, nil))
	}
	q, err := l.openFree()
	if err != nil {
		return errors.Join(err, send(c, &Offer{Error: err.Error()}, nil))
	}
	defer q.Close()
	defer time.AfterFunc(patience, func() { c.Close() }).Stop()
	offer := &Offer{Device: q.Device, Kind: q.Kind, MAC: q.MAC.String(), MTU: q.MTU, Queues: len(q.Files), VNetHdr: q.VNetHdr}
	if err := send(c, offer, q.Files); err != nil {
		return err
	}
	l.logf("%s: process %d has %d queues of %s", l.device.Socket, pid, len(q.Files), q.Device)
	// Until they have arrived only this copy shows that they are taken.
	if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// letGo is how long a queue that has just been closed may seem to be in use: a child that its holder forked has all descriptors until
// it has become another program.
const letGo = time.Second

// openFree opens the queues once nobody has them.
func (l *Listener) openFree() (*setup.Queues, error) {
	const pause = 20 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		q, err := setup.OpenQueues(setup.NamespacePath(l.device.Netns), l.device.Name, l.device.Index, l.device.Queues)
		if !errors.Is(err, unix.EBUSY) || waited >= letGo {
			return q, err
		}
		time.Sleep(pause)
	}
}

// admit returns the number of the process at the other end, or why it gets nothing.
func (l *Listener) admit(c *net.UnixConn) (pid int32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var groups []uint32
	var groupsErr error
	if cerr := raw.Control(func(fd uintptr) {
		if peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && l.device.Group != nil {
			groups, groupsErr = peerGroups(int(fd))
		}
	}); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	if mayHave(&l.device, peer.Uid, append(groups, peer.Gid)) {
		return peer.Pid, nil
	}
	return 0, errors.Join(fmt.Errorf("process %d of user %d may not have %s", peer.Pid, peer.Uid, l.device.Name), groupsErr)
}

// mayHave says whether a user in these groups gets the queues.
func mayHave(d *Device, uid uint32, groups []uint32) bool {
	return uid == 0 || int(uid) == os.Geteuid() || d.Owner != nil && uid == *d.Owner ||
		d.Group != nil && d.Mode&0o020 != 0 && slices.Contains(groups, *d.Group)
}

func send(c *net.UnixConn, offer *Offer, files []*os.File) error {
	line, err := json.Marshal(offer)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		descriptors := make([]int, len(files))
		for i, f := range files {
			descriptors[i] = int(f.Fd())
		}
		rights = unix.UnixRights(descriptors...)
	}
	// An empty socket's buffer has room for the whole message.
	_, _, err = c.WriteMsgUnix(append(line, '\n'), rights, nil)
	return err
}
