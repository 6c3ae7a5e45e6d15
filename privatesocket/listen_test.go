//go:build unix

package privatesocket

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Sockets are private whatever the umask is, and it is the same afterwards, however many are made at once.
func TestListen(t *testing.T) {
	for name, listen := range map[string]func(string) (*net.UnixListener, error){"as here": Listen, "by the umask": listenByUmask} {
		t.Run(name, func(t *testing.T) {
			const umask = 0
			defer syscall.Umask(syscall.Umask(umask))
			dir := t.TempDir()
			var all sync.WaitGroup
			for i := range 64 {
				all.Go(func() {
					path := filepath.Join(dir, fmt.Sprint(i))
					l, err := listen(path)
					if err != nil {
						t.Error(err)
						return
					}
					defer l.Close()
					if st, err := os.Stat(path); err != nil || st.Mode() != os.ModeSocket|0o600 {
						t.Errorf("%v, %v", st, err)
					}
				})
			}
			all.Wait()
			if now := syscall.Umask(umask); now != umask {
				t.Errorf("the umask is %#o afterwards", now)
			}
			if l, err := listen(filepath.Join(dir, "missing", "s")); err == nil {
				l.Close()
				t.Error("a socket in a folder that is not there")
			}
		})
	}
}
