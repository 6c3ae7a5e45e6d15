package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"culvert/setup"
	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/rtnl"
	"culvert/setup/thread"
)

// netnsDir is where named network namespaces are mounted.
const netnsDir = "/run/netns"

// namespace is an open network namespace. It stays alive while it is open.
type namespace struct {
	name  string // "" is home
	inode uint64
	file  int
	conn  *rtnl.Conn
}

func (n *namespace) close() {
	n.conn.Close()
	unix.Close(n.file)
}

// namespace opens a namespace, or returns it where it is open already and its name still means the same. ENOENT where there is none.
func (k *Kernel) namespace(name string) (*namespace, error) {
	path := k.home
	if name != "" {
		path = filepath.Join(netnsDir, name)
	}
	inode, err := namespaceInode(path)
	if n := k.conns[name]; n != nil {
		if err == nil && n.inode == inode {
			return n, nil
		}
		n.close()
		delete(k.conns, name)
	}
	if err != nil {
		return nil, fmt.Errorf("namespace %q: %w", name, err)
	}
	n, err := openNamespace(name, path)
	if err != nil {
		return nil, fmt.Errorf("namespace %q: %w", name, err)
	}
	k.conns[name] = n
	return n, nil
}

func openNamespace(name, path string) (*namespace, error) {
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return newNamespace(name, file)
}

// newNamespace takes the descriptor over.
func newNamespace(name string, file int) (*namespace, error) {
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		unix.Close(file)
		return nil, err
	}
	conn, err := rtnl.OpenAt(file)
	if err != nil {
		unix.Close(file)
		return nil, err
	}
	return &namespace{name: name, inode: st.Ino, file: file, conn: conn}, nil
}

// namespaceInode returns the number of the namespace at a path; ENOENT where no namespace is there.
func namespaceInode(path string) (uint64, error) {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, err
	}
	// What creation leaves that was cut off is a file like any other.
	if fs.Type != unix.NSFS_MAGIC {
		return 0, unix.ENOENT
	}
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// here reports whether the calling thread is in the namespace, which takes no right. Entering it takes CAP_SYS_ADMIN.
func (n *namespace) here() bool {
	var have unix.Stat_t
	return unix.Stat("/proc/thread-self/ns/net", &have) == nil && have.Ino == n.inode
}

// inside runs f on a thread of its own in the namespace, as the settings below /proc/sys/net are those of who opens them. The thread ends
// with f.
func (n *namespace) inside(f func() error) (err error) {
	thread.Run(func() {
		if !n.here() {
			if err = unix.Setns(n.file, unix.CLONE_NEWNET); err != nil {
				err = fmt.Errorf("enter the namespace: %w", err)
				return
			}
		}
		err = f()
	})
	return err
}

// scratchNamespace makes a namespace without a name, which is gone once it is closed.
func scratchNamespace() (*namespace, error) {
	file := -1
	var err error
	thread.Run(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			file, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
	})
	if err != nil {
		return nil, err
	}
	return newNamespace("", file)
}

// readNetns adds every named namespace to a system.
func readNetns(s *model.System) error {
	entries, err := os.ReadDir(netnsDir)
	// A daemon that has given up files cannot look into a folder that was made afterwards; one that has namespaces keeps all its files.
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return &setup.OpError{Op: "list namespaces", Err: err}
	}
	for _, e := range entries {
		inode, err := namespaceInode(filepath.Join(netnsDir, e.Name()))
		if err != nil {
			continue
		}
		id := model.NetnsID(e.Name())
		s.Objects[id] = &model.Object{ID: id, Fields: model.Fields{}, Inode: inode}
	}
	return nil
}

func createNetns(w *work) (apply.Done, error) {
	name := w.step.ID.Rest()
	if err := removeDeadNetns(name); err != nil {
		return apply.Done{}, err
	}
	inode := uint64(0)
	// A namespace is marked before it has its name, on its loopback device: there is no moment in which it could be anybody's.
	err := setup.MakeNamespace(name, func() error {
		conn, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer conn.Close()
		inode, err = namespaceInode("/proc/thread-self/ns/net")
		if err != nil || w.step.Foreign {
			return err
		}
		const loopback = 1
		a := linkHead(unix.AF_UNSPEC, loopback, 0, 0)
		a.Uint32(unix.IFLA_GROUP, model.Group)
		if w.step.Alias != "" {
			a.String(unix.IFLA_IFALIAS, w.step.Alias)
		}
		return conn.Do(unix.RTM_NEWLINK, 0, a.Bytes())
	})
	if err != nil {
		return apply.Done{}, opCause(err)
	}
	return apply.Done{Inode: inode}, nil
}

// removeDeadNetns removes what is at a namespace's name without being one: an empty file, as left by a process that was killed
// between making it and mounting on it.
func removeDeadNetns(name string) error {
	path := filepath.Join(netnsDir, filepath.Base(name))
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != 0 {
		return nil
	}
	if _, err := namespaceInode(path); !errors.Is(err, unix.ENOENT) {
		return nil
	}
	return os.Remove(path)
}

func deleteNetns(w *work) (apply.Done, error) {
	name := w.step.ID.Rest()
	inode, err := namespaceInode(filepath.Join(netnsDir, filepath.Base(name)))
	if errors.Is(err, unix.ENOENT) {
		return apply.Done{}, removeDeadNetns(name)
	}
	if err != nil {
		return apply.Done{}, err
	}
	if w.step.Inode != 0 && w.step.Inode != inode {
		return apply.Done{}, fmt.Errorf("the namespace is another one than before: %w", unix.ESTALE)
	}
	if n := w.k.conns[name]; n != nil {
		n.close()
		delete(w.k.conns, name)
	}
	return apply.Done{}, opCause(setup.DeleteNamespace(name))
}

// opCause takes off the step that an error of package setup names: that of this package's names it again.
func opCause(err error) error {
	if op, ok := errors.AsType[*setup.OpError](err); ok && op.Err != nil {
		return op.Err
	}
	return err
}
