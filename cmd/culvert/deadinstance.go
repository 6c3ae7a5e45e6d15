package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"culvert/control"
	"culvert/tunnel/uapi"
)

// clearRun removes what a daemon of the instance that was killed has left in the run directory and, of the interfaces with those
// names, beside wg's other sockets.
func (p *program) clearRun(name string, interfaces []string) error {
	if control.Left(p.runDir, name) {
		l, err := control.Listen(p.runDir, name) // takes over what is stale
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	var errs []error
	for _, log := range []string{name, serviceLogName(name)} {
		if err := os.Remove(logPath(p.runDir, log)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, p.clearSockets(interfaces))...)
}

// clearSockets removes what killed daemons have left of interfaces beside wg's other sockets. What a process answers at stays.
func (p *program) clearSockets(interfaces []string) error {
	var errs []error
	for _, device := range interfaces {
		if !exists(filepath.Join(p.wgDir, device+".sock")) {
			continue
		}
		if l, err := uapi.Listen(p.wgDir, device); err == nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}
