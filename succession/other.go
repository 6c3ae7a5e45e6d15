//go:build !linux

package succession

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// MaxFiles is how many descriptors one message may have.
const MaxFiles = 0

var errNeedsLinux = fmt.Errorf("handing over to another process needs Linux: %w", errors.ErrUnsupported)

// Conn is one end. There are none.
type Conn struct{}

// Pair needs Linux.
func Pair() (own *Conn, other *os.File, err error) { return nil, nil, errNeedsLinux }

// Of needs Linux. The file is closed.
func Of(f *os.File) (*Conn, error) { return nil, errors.Join(errNeedsLinux, f.Close()) }

// Close has nothing to close.
func (*Conn) Close() error { return nil }

// Send needs Linux.
func (*Conn) Send(any, ...*os.File) error { return errNeedsLinux }

// Receive needs Linux.
func (*Conn) Receive(any, time.Time) ([]*os.File, error) { return nil, errNeedsLinux }

// CloseAll closes files.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// Seal needs Linux.
func Seal([]byte) (*os.File, error) { return nil, errNeedsLinux }

// Unseal needs Linux. The file is closed.
func Unseal(f *os.File, _ int64) ([]byte, error) { return nil, errors.Join(errNeedsLinux, f.Close()) }

// Erase closes the file: there is no sealed memory.
func Erase(f *os.File) error { return f.Close() }
