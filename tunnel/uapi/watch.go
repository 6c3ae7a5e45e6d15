//go:build unix

package uapi

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// pollInterval is how often the file is looked at where inotify has no instance left to give, or there is none.
const pollInterval = 2 * time.Second

// watch waits for the disappearance of one file.
type watch struct {
	removed chan struct{} // closed when the file has gone
	done    chan struct{} // closed by stop
	inotify *os.File
	work    sync.WaitGroup
}

// startWatch watches the file own at path; an empty path is never found missing.
func startWatch(path string, own fs.FileInfo) *watch {
	w := &watch{removed: make(chan struct{}), done: make(chan struct{})}
	if path == "" {
		return w
	}
	w.inotify = openInotify(path)
	w.run(path, own)
	return w
}

func (w *watch) run(path string, own fs.FileInfo) {
	w.work.Go(func() {
		// The watch stands before the first look, so no removal slips in between.
		for !vanished(path, own) {
			if !w.wait() {
				return
			}
		}
		close(w.removed)
	})
}

// vanished reports whether path surely no longer names the file own.
func vanished(path string, own fs.FileInfo) bool {
	info, err := os.Lstat(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	}
	return !os.SameFile(info, own)
}

// wait returns true when it is time to look again, false once the watch is stopped.
func (w *watch) wait() bool {
	if w.inotify != nil {
		var events [4096]byte
		if _, err := w.inotify.Read(events[:]); err == nil {
			return true
		}
		// stop has closed it; should it have failed of itself, polling goes on in its place.
	}
	select {
	case <-time.After(pollInterval):
		return true
	case <-w.done:
		return false
	}
}

// stop ends the watch. It is called once.
func (w *watch) stop() {
	close(w.done)
	if w.inotify != nil {
		w.inotify.Close()
	}
	w.work.Wait()
}
