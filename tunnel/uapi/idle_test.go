package uapi

import (
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"culvert/tunnel"
)

// TestIdleClient: a silent client is dropped after the limit, one that says a little now and then is not, and a slow engine
// costs nobody the connection.
func TestIdleClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = time.Minute
		l := newPipe()
		f := newFakeEngine()
		f.configure = func(tunnel.Change) error {
			time.Sleep(10 * limit)
			return nil
		}
		serve(t, NewServer(f, Options{Idle: limit}), l)

		silent := l.dial(t)
		start := time.Now()
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		if waited := time.Since(start); waited != limit {
			t.Errorf("dropped after %v, want %v", waited, limit)
		}

		slow := l.dial(t)
		for _, part := range []string{"set", "=1\n", "listen_port=", "1\n"} {
			if _, err := io.WriteString(slow, part); err != nil {
				t.Fatal(err)
			}
			time.Sleep(limit - 1)
		}
		if got := ask(t, slow, "\n"); got != "errno=0\n\n" {
			t.Errorf("answer %q", got)
		}

		deaf := l.dial(t)
		if _, err := io.WriteString(deaf, "get=1\n\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(limit + 1)
		if n, err := deaf.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("an answer that waited %v: %d bytes, %v", limit+1, n, err)
		}
	})
}

// failing is a listener whose Accept fails.
type failing struct {
	*pipe
	errs chan error
}

func (f *failing) Accept() (net.Conn, error) {
	select {
	case err := <-f.errs:
		return nil, err
	default:
		return f.pipe.Accept()
	}
}

// TestAcceptErrors: too many open files pass, anything else ends Serve.
func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failing{newPipe(), make(chan error, 2)}
		l.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		l.errs <- &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}
		s := NewServer(newFakeEngine(), Options{})
		serve(t, s, l)
		if got := ask(t, l.dial(t), "get=1\n\n"); got != "errno=0\n\n" {
			t.Errorf("answer %q", got)
		}
		broken := &failing{newPipe(), make(chan error, 1)}
		broken.errs <- syscall.EINVAL
		if err := s.Serve(broken); err != syscall.EINVAL {
			t.Errorf("Serve: %v", err)
		}
		select {
		case <-broken.done:
		default:
			t.Error("Serve left its listener open")
		}
	})
}
