package monitor

import (
	"fmt"
	"net"
	"os"

	"culvert/config"
)

// Files returns descriptors of where is listened, for [Monitor.Inherit] in another process. The caller closes them.
func (m *Monitor) Files() (files map[config.Listen]*os.File, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	files = make(map[config.Listen]*os.File)
	for at, p := range m.places {
		l, ok := p.listener.(interface{ File() (*os.File, error) })
		if !ok {
			continue
		}
		if files[at], err = l.File(); err != nil {
			for _, f := range files {
				if f != nil {
					f.Close()
				}
			}
			return nil, fmt.Errorf("%s: %w", at, err)
		}
	}
	return files, nil
}

// Inherit has Start serve at a listener of another process. The descriptor is the monitor's from then on.
func (m *Monitor) Inherit(at config.Listen, f *os.File) error {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("go on at %s: %w", at, err)
	}
	if unix, ok := l.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(true)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.given == nil {
		m.given = make(map[config.Listen]net.Listener)
	}
	m.given[at] = l
	return nil
}

// Leave ends the serving, and leaves the sockets to the process that goes on with them.
func (m *Monitor) Leave() {
	m.mu.Lock()
	for _, p := range m.places {
		if unix, ok := p.listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false)
		}
	}
	m.mu.Unlock()
	m.Close()
}
