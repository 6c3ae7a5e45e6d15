package lab

import (
	"bytes"
	"testing"
	"time"

	"culvert/setup"
)

// A guest on a descriptor does as it is told.
func TestGuestShellAndDescriptor(t *testing.T) {
	t.Parallel()
	host := NewHost(t, "host")
	far := host.OpenTap("office")
	host.Up("office")
	port, err := setup.AttachVM(setup.VMPort{Link: "office", Namespace: host.NetnsPath()})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Remove()
	g := NewGuest(t, GuestOptions{NICs: []GuestNIC{{File: port.File(), MAC: "52:54:00:00:00:77"}}, Script: GuestShell})
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, code, err := g.Do("echo one; echo two >&2; exit 5"); out != "one\ntwo\n" || code != 5 || err != nil {
		t.Errorf("it wrote %q and ended with %d, %v", out, code, err)
	}
	if out := g.Must("printf 'no newline'"); out != "no newline" {
		t.Errorf("it wrote %q", out)
	}
	g.Must("ip addr add 10.0.0.2/24 dev eth0\nip link set eth0 up\nping -c 1 -W 1 10.0.0.1 >/dev/null || true")
	question := append(bytes.Repeat([]byte{0xff}, 6), 0x52, 0x54, 0, 0, 0, 0x77, 8, 6) // ARP
	if err := far.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for frame := make([]byte, 2000); ; {
		n, err := far.Read(frame)
		if err != nil {
			t.Fatalf("the guest asked nobody: %v", err)
		}
		if bytes.HasPrefix(frame[:n], question) {
			break
		}
	}
	if err := g.End(); err != nil {
		t.Error(err)
	}
	if out, code, err := g.Do("true"); err == nil {
		t.Errorf("a guest that is off wrote %q and ended with %d", out, code)
	}
}
