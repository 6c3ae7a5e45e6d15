package succession

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type note struct{ Text string }

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, other, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = Of(other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestMessagesAndDescriptors(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(a.Send(note{"one"}), a.Send(note{"two"}, w, w), w.Close()); err != nil {
		t.Fatal(err)
	}
	var n note
	if files, err := b.Receive(&n, time.Time{}); err != nil || n.Text != "one" || files != nil {
		t.Fatalf("%v, %v, %v", n, files, err)
	}
	files, err := b.Receive(&n, time.Time{})
	if err != nil || n.Text != "two" || len(files) != 2 {
		t.Fatalf("%v, %v, %v", n, files, err)
	}
	for _, f := range files {
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("programs that are started would have it, too: %x, %v", flags, err)
		}
	}
	if _, err := files[1].WriteString("through"); err != nil {
		t.Fatal(err)
	}
	CloseAll(files)
	if got, err := io.ReadAll(r); string(got) != "through" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.Receive(&n, time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing was sent: %v", err)
	}
	if err := a.Send(note{strings.Repeat("x", maxMessage)}); err == nil {
		t.Error("too long a message is sent")
	}
	a.Close()
	if _, err := b.Receive(&n, time.Time{}); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestSealedMemory(t *testing.T) {
	secret := bytes.Repeat([]byte("secret"), 1<<19)
	f, err := Seal(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1); !errors.Is(err, unix.EPERM) {
		t.Errorf("it can be shortened: %v", err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(fd), "other")
	defer other.Close()
	got, err := Unseal(f, 1<<30)
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	rest, err := io.ReadAll(io.NewSectionReader(other, 0, 1<<30))
	if err != nil || len(rest) != len(secret) || len(bytes.Trim(rest, "\x00")) != 0 {
		t.Errorf("it is not erased: %d bytes, %v", len(rest), err)
	}
	if f, err = Seal(secret); err != nil {
		t.Fatal(err)
	}
	if _, err := Unseal(f, 10); err == nil {
		t.Error("more is taken than allowed")
	}
	plain, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Unseal(plain, 10); err == nil {
		t.Error("a file is taken for sealed memory")
	}
}
