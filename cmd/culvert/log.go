package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// maxLog bounds a daemon's log file; one that grows beyond it starts again.
const maxLog = 4 << 20

// newLog makes a log of text lines.
func newLog(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// logFile is the log of a daemon in the background, NAME.log in the run directory. The standard streams go there as well,
// so that the output of hooks and the runtime's last words are kept.
type logFile struct {
	mu sync.Mutex
	f  *os.File
}

// openLogFile begins the log anew, or goes on with that of another process.
func openLogFile(dir, name string, goesOn bool) (*logFile, error) {
	path := logPath(dir, name)
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND | syscall.O_NOFOLLOW
	if !goesOn {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot make the log private: %w", err)
	}
	for _, fd := range []int{1, 2} {
		if err := duplicate(int(f.Fd()), fd); err != nil {
			f.Close()
			return nil, fmt.Errorf("cannot direct the output to the log: %w", err)
		}
	}
	return &logFile{f: f}, nil
}

// Write appends to the log.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st, err := l.f.Stat(); err == nil && st.Size() > maxLog {
		if err := l.f.Truncate(0); err == nil {
			fmt.Fprintf(l.f, "(the log had grown beyond %d bytes and starts again here)\n", maxLog)
		}
	}
	return l.f.Write(b)
}

func logPath(dir, name string) string { return filepath.Join(dir, name+".log") }
