package boltstore

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// ErrDamaged means that the file does not hold what was written to it.
var ErrDamaged = errors.New("the file is damaged")

func (f *File) damage(found any) error {
	return fmt.Errorf("%s is damaged: %v (%w: put a copy of it back, or move it away, and then all clients have to join again)", f.path, found, ErrDamaged)
}

// guard is deferred, as guard(t, &err)(), by what has bbolt read the file for a transaction, nil for none. bbolt panics on a page that
// is not what it has to be, and reads pages where they are mapped: a wrong length in one, or a file that has become shorter, is a fault
// of the memory. Both become ErrDamaged, after which the file is not used any more. What the caller's own code does wrong stays a panic.
func (f *File) guard(t *transaction, err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		r := recover()
		switch {
		case r == nil:
			return
		case t != nil && t.calling:
			panic(r)
		}
		found := f.damage(r)
		*err = found
		if f.damaged.CompareAndSwap(nil, &found) && f.raw != nil {
			// The mapping, which only bbolt could undo and which others may still read, keeps the file open and with it the lock.
			_ = syscall.Flock(int(f.raw.Fd()), syscall.LOCK_UN)
			f.raw.Close()
		}
	}
}

// checkRuns checks that the pages in use follow each other within the file: each says how many more belong to it, and bbolt would take
// memory for up to 2^32 of them by its word. It looks at the first bytes of every page.
func checkRuns(db *bolt.DB) error {
	tx, err := db.Begin(true) // the pages that are free are only known to those that write
	if err != nil {
		return err
	}
	defer tx.Rollback()
	pages := tx.Size() / int64(db.Info().PageSize)
	for id := int64(2); id < pages; id++ {
		p, err := tx.Page(int(id))
		switch {
		case err != nil:
			return err
		case p == nil:
			return nil
		case p.Type == "free":
			continue
		}
		if id += int64(p.OverflowCount); id >= pages {
			return fmt.Errorf("page %d is said to have %d more, of %d in all", p.ID, p.OverflowCount, pages)
		}
	}
	return nil
}
