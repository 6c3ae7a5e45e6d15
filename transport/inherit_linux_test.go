package transport

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A port goes on in what was made of its descriptors, with what had arrived in between, and each worker receives what is its.
func TestInherit(t *testing.T) {
	for _, workers := range []int{1, 3} {
		o := Options{Workers: workers, Steering: Steering{First: 4, At: 4}, Logf: t.Logf}
		first := openUDP(t, o)
		if err := first.Interrupt(true); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("udp4", netip.AddrPortFrom(loopback4, first.Port()).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		write := func(worker int, text string) {
			t.Helper()
			if _, err := c.Write(append([]byte{4, 0, 0, 0, byte(worker)}, text...)); err != nil {
				t.Fatal(err)
			}
		}
		for w := range workers {
			write(w, "between")
		}
		files, err := first.Files()
		if err != nil {
			t.Fatal(err)
		}
		made, err := Inherit(files, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { made.Close() })
		if made.Port() != first.Port() || len(made.Receivers()) != len(first.Receivers()) {
			t.Errorf("port %d with %d receivers, not %d with %d", made.Port(), len(made.Receivers()), first.Port(), len(first.Receivers()))
		}
		port := first.Port()
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		for w := range workers {
			write(w, "afterwards")
		}
		for _, r := range made.Receivers() {
			u := r.(*udpReceiver)
			if u.family.v6 {
				continue
			}
			for _, want := range []string{"between", "afterwards"} {
				train := []Train{{Buf: make([]byte, ReceiveBufferSize)}}
				if _, err := r.Receive(train); err != nil {
					t.Fatal(err)
				}
				if got := fmt.Sprintf("%s of worker %d", train[0].Buf[5:train[0].N], train[0].Buf[4]); got != fmt.Sprintf("%s of worker %d", want, r.Worker()) {
					t.Errorf("worker %d has received %q", r.Worker(), got)
				}
			}
		}
		got := make(chan Endpoint, 1)
		go func() {
			buf := make([]byte, 100)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) != "back" {
				t.Errorf("%q, %v", buf[:n], err)
			}
			close(got)
		}()
		to := Endpoint{Remote: c.LocalAddr().(*net.UDPAddr).AddrPort()}
		if n := made.NewWorkerSender(workers - 1).Send([]Train{{Buf: []byte("back"), N: 4, Endpoint: to}}); n != 0 {
			t.Error("not sent")
		}
		<-got
		if err := made.Close(); err != nil {
			t.Error(err)
		}
		openUDP(t, Options{Port: port}).Close()
	}
}

func TestInheritRefuses(t *testing.T) {
	files := func() []SocketFile {
		list, err := openUDP(t, Options{}).Files()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	other := func() *os.File {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "tcp")
	}
	beyond := files()
	beyond[0].Worker = 99
	for what, list := range map[string][]SocketFile{
		"nothing": nil, "TCP": {{File: other()}}, "two of a kind": append(files()[:1:1], files()[0]),
		"two ports": {files()[0], {File: files()[0].File, Worker: 1}}, "a worker beyond": beyond,
	} {
		if s, err := Inherit(list, Options{}); err == nil {
			s.Close()
			t.Errorf("%s: taken", what)
		}
		for _, f := range list {
			if f.File.Close() == nil {
				t.Errorf("%s: a descriptor is still open", what)
			}
		}
	}
}
