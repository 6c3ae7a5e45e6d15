package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"culvert/setup/handover"
	"culvert/setup/model"
	"golang.org/x/sys/unix"
)

// Options are what a supervisor needs.
type Options struct {
	Dir string // state directory of the instance
	Now func() time.Duration
	Log *slog.Logger // of what services say, too
	// Ended, where not nil, is called when everything is stopped and taken away, while no other supervisor can be there yet.
	Ended func() error
}

// The descriptors a supervisor is started with.
const (
	lockDescriptor   = 3
	socketDescriptor = 4
)

// maxKept bounds what one supervisor keeps.
const maxKept = 10000

// linger is how long a supervisor that keeps nothing waits for work.
const linger = 10 * time.Second

// supervisor keeps the services and hand-overs of an instance.
type supervisor struct {
	Options
	store  store
	boot   string
	inode  uint64
	socket net.Listener

	work sync.Mutex // one request that changes something at a time

	mu     sync.Mutex // guards what follows
	kept   map[model.ID]*kept
	ending bool

	end  chan struct{} // closed when it is to end
	idle *time.Timer
}

// kept is one thing: a service or a hand-over.
type kept struct {
	record  record
	service *service
	runner  *runner

	listener *handover.Listener
	broken   error // why there is no listener
}

// Supervise is the supervisor's process: it returns when nothing is left to keep, or, everything stopped, when ctx ends. It
// is started by a [Kernel], with the lock and the socket as its descriptors 3 and 4.
func Supervise(ctx context.Context, o Options) error {
	lock, socket, err := inherited(o.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	s := &supervisor{Options: o, store: store{o.Dir}, socket: socket, kept: map[model.ID]*kept{}, end: make(chan struct{})}
	if s.boot, err = bootID(); err != nil {
		return err
	}
	if s.inode, err = netnsInode(""); err != nil {
		return err
	}
	s.recover()
	s.idle = time.AfterFunc(linger, s.endIfIdle)
	var serving sync.WaitGroup
	serving.Go(s.serve)
	select {
	case <-s.end:
		s.Log.Info("ending, nothing is left to keep")
	case <-ctx.Done():
		s.Log.Info("ending", "because", context.Cause(ctx))
	}
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.work.Lock() // no request is at work any more, and none begins
	defer s.work.Unlock()
	err = s.leaveAll()
	err = errors.Join(err, os.Remove(filepath.Join(o.Dir, "socket")), socket.Close())
	serving.Wait()
	if err == nil && o.Ended != nil {
		err = o.Ended()
	}
	// The lock last: who waits for it looks whether it is still the file of that name.
	err = errors.Join(err, os.Remove(filepath.Join(o.Dir, "lock")))
	if rerr := os.Remove(o.Dir); rerr != nil && !errors.Is(rerr, unix.ENOTEMPTY) && !errors.Is(rerr, unix.EBUSY) {
		err = errors.Join(err, rerr)
	}
	return err
}

// CheckStarted says why this process cannot be the supervisor: it was not given the lock.
func CheckStarted(dir string) error {
	var have, want unix.Stat_t
	err := unix.Fstat(lockDescriptor, &have)
	if err == nil {
		err = unix.Stat(filepath.Join(dir, "lock"), &want)
	}
	if err == nil && (have.Dev != want.Dev || have.Ino != want.Ino) {
		err = errors.New("it was not given the lock")
	}
	if err != nil {
		return fmt.Errorf("the supervisor is started by culvert itself when there is something to keep: %w", err)
	}
	return nil
}

// inherited takes over the two descriptors.
func inherited(dir string) (lock *os.File, socket net.Listener, err error) {
	if err := CheckStarted(dir); err != nil {
		return nil, nil, err
	}
	unix.CloseOnExec(lockDescriptor)
	unix.CloseOnExec(socketDescriptor)
	lock = os.NewFile(lockDescriptor, "lock")
	file := os.NewFile(socketDescriptor, "socket")
	defer file.Close()
	if socket, err = net.FileListener(file); err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	if l, ok := socket.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	return lock, socket, nil
}

// recover takes over what the records tell of.
func (s *supervisor) recover() {
	records, err := s.store.read()
	if err != nil {
		s.Log.Warn("what an earlier supervisor left cannot all be read", "error", err)
	}
	for i := range records {
		r := &records[i]
		if r.Boot != s.boot { // nothing of it is there any more
			if err := s.store.remove(r.ID); err != nil {
				s.Log.Warn(err.Error())
			}
			continue
		}
		k := &kept{record: *r}
		if r.ID.Kind() == model.KindHandover {
			k.broken = s.listen(k)
		} else {
			err = s.run(k)
		}
		if err := errors.Join(err, k.broken); err != nil {
			s.Log.Error("cannot be taken over", "item", r.ID, "error", err)
			k.broken = err
		}
		s.kept[r.ID] = k
	}
}

func (s *supervisor) logf(id model.ID) func(string, ...any) {
	log := s.Log.With("item", id.Rest())
	return func(format string, args ...any) { log.Info(fmt.Sprintf(format, args...)) }
}
