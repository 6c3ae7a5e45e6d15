// Package boltstore keeps what servers know in a file, one for all tunnels of an instance: a transaction is on the disk, with
// everything before it, when it returns, and a process that is killed leaves the file as it was after the last one.
package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"culvert/server"
)

// ErrBusy means that another process has the file.
var ErrBusy = errors.New("another process has the file")

// lockTime is how long a file that another process has is waited for: one that was killed lets go a moment later.
const lockTime = 3 * time.Second

// File is an open file. Tunnel gives its parts.
type File struct {
	db      *bolt.DB
	raw     *os.File // what db has open and locked
	path    string
	writing sync.Mutex            // held by a transaction that writes: db's own stays locked where undoing one meets the damage
	damaged atomic.Pointer[error] // what was found; from then on nothing is read or written any more
	using   sync.RWMutex          // held by transactions; alone, by what lets the file go and takes it again
}

// Open opens the file at path, which it makes where there is none, with mode 0600 in a folder of mode 0700. Its owner must be the
// user of the process or root, and nobody else may read it: it holds preshared keys of invitations. ErrBusy where another process has
// it; ErrDamaged where its content is no database any more.
func Open(path string) (_ *File, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	file := &File{path: path}
	return file, file.open()
}

// open opens the database.
func (file *File) open() (err error) {
	path := file.path
	defer file.guard(nil, &err)()
	file.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTime, OpenFile: func(path string, flag int, mode fs.FileMode) (_ *os.File, err error) {
		file.raw, err = openPrivate(path, flag, mode)
		return file.raw, err
	}})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s: %w", path, ErrBusy)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum):
		return file.damage(err)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := checkRuns(file.db); err != nil {
		return errors.Join(file.damage(err), file.db.Close())
	}
	return nil
}

// Release lets the file go to another process, once all transactions have ended: until Retake nothing can be read or written.
func (f *File) Release() error {
	f.using.Lock()
	defer f.using.Unlock()
	return f.Close()
}

// Retake has the file again.
func (f *File) Retake() error {
	f.using.Lock()
	defer f.using.Unlock()
	if f.damaged.Load() != nil {
		return nil
	}
	return f.open()
}

// openPrivate opens a file that is nobody else's business; it examines what it has opened, not what lay there before.
func openPrivate(path string, flag int, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil {
		err = private(fi)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func private(fi fs.FileInfo) error {
	if !fi.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("it has mode %04o, so others can read or change it: run chmod go-rwx on it", perm)
	}
	if sys, ok := fi.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to uid %d, not to uid %d or root", sys.Uid, os.Geteuid())
	}
	return nil
}

// Close closes the file, once all transactions have ended; a damaged one has been let go of before.
func (f *File) Close() error {
	if f.damaged.Load() != nil {
		return nil
	}
	return f.db.Close()
}

// Tunnel is the part of one tunnel. Closing it closes nothing: the file is closed as a whole.
func (f *File) Tunnel(name string) server.Store { return &store{f, []byte(name)} }

// store is a bucket of the file, with a bucket in it for each table.
type store struct {
	file   *File
	bucket []byte
}

func (s *store) View(f func(server.Tx) error) (err error) {
	if damage := s.file.damaged.Load(); damage != nil {
		return *damage
	}
	s.file.using.RLock()
	defer s.file.using.RUnlock()
	t := &transaction{}
	defer s.file.guard(t, &err)()
	return s.file.db.View(func(tx *bolt.Tx) error {
		t.tunnel = tx.Bucket(s.bucket)
		return t.run(f)
	})
}

func (s *store) Update(f func(server.Tx) error) (err error) {
	s.file.writing.Lock()
	defer s.file.writing.Unlock()
	if damage := s.file.damaged.Load(); damage != nil {
		return *damage
	}
	s.file.using.RLock()
	defer s.file.using.RUnlock()
	t := &transaction{}
	defer s.file.guard(t, &err)()
	return s.file.db.Update(func(tx *bolt.Tx) (err error) {
		if t.tunnel, err = tx.CreateBucketIfNotExists(s.bucket); err != nil {
			return err
		}
		return t.run(f)
	})
}

func (s *store) Close() error { return nil }

// transaction is a transaction in a tunnel's bucket, which is nil where nothing was ever written. calling is set while the code of
// whoever uses the store runs, whose panics are not the file's.
type transaction struct {
	tunnel  *bolt.Bucket
	calling bool
}

// run calls what the caller does in the transaction.
func (t *transaction) run(f func(server.Tx) error) error {
	t.calling = true
	err := f(t)
	t.calling = false
	return err
}

func (t *transaction) table(name string) *bolt.Bucket {
	if t.tunnel == nil {
		return nil
	}
	return t.tunnel.Bucket([]byte(name))
}

func (t *transaction) Get(table, key string) (value []byte) {
	t.calling = false
	if b := t.table(table); b != nil {
		value = slices.Clone(b.Get([]byte(key)))
	}
	t.calling = true
	return value
}

func (t *transaction) Put(table, key string, value []byte) error {
	if t.tunnel == nil || !t.tunnel.Writable() {
		return server.ErrReadOnly
	}
	t.calling = false
	b, err := t.tunnel.CreateBucketIfNotExists([]byte(table))
	if err == nil {
		err = b.Put([]byte(key), slices.Clone(value))
	}
	t.calling = true
	return err
}

func (t *transaction) Delete(table, key string) (err error) {
	if t.tunnel == nil || !t.tunnel.Writable() {
		return server.ErrReadOnly
	}
	t.calling = false
	if b := t.table(table); b != nil {
		err = b.Delete([]byte(key))
	}
	t.calling = true
	return err
}

func (t *transaction) Each(table string, f func(key string, value []byte) error) (err error) {
	t.calling = false
	if b := t.table(table); b != nil {
		err = b.ForEach(func(k, v []byte) error {
			key, value := string(k), slices.Clone(v)
			t.calling = true
			err := f(key, value)
			t.calling = false
			return err
		})
	}
	t.calling = true
	return err
}
