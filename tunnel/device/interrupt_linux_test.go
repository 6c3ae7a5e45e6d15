package device

import (
	"errors"
	"os"
	"testing"
	"time"

	"culvert/internal/lab"
)

// An interrupted read ends, also one that waits, and what the kernel sends meanwhile is read afterwards.
func TestInterrupt(t *testing.T) {
	lab.NeedTun(t)
	h := lab.NewHost(t, "tun")
	d := openIn(t, h, LayerIP, TunOptions{Name: "culvert%d", MTU: 1380})
	q := d.Queues()[0]
	ended := make(chan error, 1)
	read := func() { _, _, _, err := q.Read(make([]byte, BufferSize), true); ended <- err }
	go read()
	time.Sleep(10 * time.Millisecond) // so that it waits, mostly; if not, it ends all the same
	if err := d.(Interrupter).Interrupt(true); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the read that waited: %v", err)
	}
	configure(t, h, d, "10.9.0.1/24")
	h.Shell("sh", "-c", "ping -c 1 -W 1 10.9.0.2 || true")
	if _, _, _, err := q.Read(make([]byte, BufferSize), false); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read while interrupted: %v", err)
	}
	if err := d.(Interrupter).Interrupt(false); err != nil {
		t.Fatal(err)
	}
	go read()
	if err := <-ended; err != nil {
		t.Errorf("what waited cannot be read: %v", err)
	}
}
