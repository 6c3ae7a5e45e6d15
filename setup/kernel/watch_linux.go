package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"culvert/setup"
	"culvert/setup/rtnl"
)

// Watch calls changed, from several goroutines, whenever something changes in the namespaces that plans are about, and returns once ctx
// ends, everything let go of. Namespaces that are not there are passed over. While it watches a namespace, that does not end
// with its name: what deletes one has to end the watch first.
func (k *Kernel) Watch(ctx context.Context, netns []string, changed func()) error {
	var listeners []*rtnl.Listener
	end := func() {
		for _, l := range listeners {
			l.Close()
		}
	}
	for _, name := range netns {
		l, err := k.listen(name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			end()
			return &setup.OpError{Op: "watch namespace", Item: name, Err: err}
		}
		listeners = append(listeners, l)
	}
	var waiting sync.WaitGroup
	errs := make(chan error, len(listeners))
	for _, l := range listeners {
		waiting.Go(func() {
			for {
				if err := l.Wait(); err != nil {
					if !errors.Is(err, os.ErrClosed) {
						errs <- fmt.Errorf("watch for changes: %w", err)
					}
					return
				}
				changed()
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	end()
	waiting.Wait()
	return err
}

func (k *Kernel) listen(name string) (*rtnl.Listener, error) {
	path := k.home
	if name != "" {
		path = filepath.Join(netnsDir, name)
	}
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(file)
	return rtnl.Listen(file)
}
