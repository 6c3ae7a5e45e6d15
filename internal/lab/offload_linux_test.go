package lab_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"culvert/internal/lab"
	"golang.org/x/sys/unix"
)

// TestNoOffloads sends three datagrams in one train and looks whether they cross the wire together.
func TestNoOffloads(t *testing.T) {
	a, b := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	wire := lab.Link(t, a, b)
	if got := largestFrame(t, wire); got < 3000 {
		t.Errorf("with offloads the largest frame has %d bytes, want the whole train", got)
	}
	for range 2 {
		a.SetOffloads(wire.A.Device, false)
		b.SetOffloads(wire.B.Device, false)
		if got, want := largestFrame(t, wire), 14+20+8+1000; got != want {
			t.Errorf("without offloads the largest frame has %d bytes, want %d", got, want)
		}
		a.SetOffloads(wire.A.Device, true)
		b.SetOffloads(wire.B.Device, true)
		if got := largestFrame(t, wire); got < 3000 {
			t.Errorf("with offloads on again the largest frame has %d bytes, want the whole train", got)
		}
	}
}

// TestUDPTrains has the sending device's kernel cut a train, while the other device could take it whole.
func TestUDPTrains(t *testing.T) {
	a, b := lab.NewHost(t, "a"), lab.NewHost(t, "b")
	wire := lab.Link(t, a, b)
	for range 2 {
		a.SetUDPTrains(wire.A.Device, false)
		if got, want := largestFrame(t, wire), 14+20+8+1000; got != want {
			t.Errorf("without trains the largest frame has %d bytes, want %d", got, want)
		}
		a.SetUDPTrains(wire.A.Device, true)
		if got := largestFrame(t, wire); got < 3000 {
			t.Errorf("with trains on again the largest frame has %d bytes, want the whole train", got)
		}
	}
}

// largestFrame sends a train of 1000-byte datagrams over the wire and returns the size of the largest frame that
// arrives, in bytes.
func largestFrame(t *testing.T, wire lab.Wire) (largest int) {
	t.Helper()
	var capture int
	wire.B.Host.Must(func() (err error) {
		capture, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_IP)))
		return err
	})
	defer unix.Close(capture)
	timeout := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(capture, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	var conn *net.UDPConn
	wire.A.Host.Must(func() (err error) {
		conn, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: wire.B.V4.Addr().AsSlice(), Port: 9})
		return err
	})
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000) })
	if err := errors.Join(err, cerr); err != nil {
		lab.Skip(t, "needs UDP_SEGMENT: "+err.Error())
	}
	if _, err := conn.Write(make([]byte, 3000)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	for seen := 0; seen < 3000; {
		n, _, err := unix.Recvfrom(capture, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("capture: %v", err)
		}
		largest = max(largest, n)
		seen += n - (14 + 20 + 8)
	}
	return largest
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
