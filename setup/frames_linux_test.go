package setup_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup"
)

// A frame of no protocol the kernel knows crosses a wire; what is of another EtherType is not shown.
func TestOpenFrames(t *testing.T) {
	a, b := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	wire := lab.Link(t, a, b)
	open := func(h *lab.Host, device string) (f *os.File) {
		h.Must(func() (err error) {
			f, err = setup.OpenFrames(device, 0x88b5)
			return err
		})
		t.Cleanup(func() { f.Close() })
		return f
	}
	from, to := open(a, wire.A.Device), open(b, wire.B.Device)
	frame := func(etherType byte) []byte {
		header := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, 0x88, etherType)
		return append(header, bytes.Repeat([]byte("culvert "), 6)...)
	}
	for _, etherType := range []byte{0xb6, 0xb5} {
		if _, err := from.Write(frame(etherType)); err != nil {
			t.Fatal(err)
		}
	}
	to.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 2000)
	n, err := to.Read(buf)
	if err != nil || !bytes.Equal(buf[:n], frame(0xb5)) {
		t.Errorf("read %x, %v", buf[:n], err)
	}
	to.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := to.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("then read %x, %v", buf[:n], err)
	}
	a.Must(func() error {
		_, err := setup.OpenFrames("nosuch", 0x88b5)
		if e, ok := errors.AsType[*setup.OpError](err); !ok || e.Item != "nosuch" {
			t.Errorf("on a link that is not there: %v", err)
		}
		if _, ok := errors.AsType[*net.OpError](err); !ok {
			t.Errorf("the cause is lost: %v", err)
		}
		return nil
	})
}
