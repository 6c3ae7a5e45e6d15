package scenes

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/internal/lab"
	"culvert/setup/handover"
)

// headerSize is that of struct virtio_net_hdr, in front of the frames of a device with vnet_hdr.
const headerSize = 10

// vm is a virtual machine, as far as the network can tell: a namespace whose eth0 is what is behind a descriptor.
type vm struct {
	*lab.Host
	files []*os.File
	pumps sync.WaitGroup
}

// off switches the machine off: once it returns its descriptors are closed.
func (v *vm) off() {
	for _, f := range v.files {
		f.Close()
	}
	v.pumps.Wait()
}

// newVM makes a machine with an address behind descriptors: what is read there its eth0 receives, and the other way round. mac "" lets
// the kernel choose.
func newVM(t *testing.T, files []*os.File, header bool, mac, address string) *vm {
	t.Helper()
	v := &vm{Host: lab.NewHost(t, "vm")}
	nic := v.OpenTap("eth0")
	v.files = append(v.files, nic)
	t.Cleanup(v.off)
	if mac != "" {
		v.Shell("ip", "link", "set", "eth0", "address", mac)
	}
	if address != "" {
		v.AddAddr("eth0", address)
	}
	size := 0
	if header {
		size = headerSize
	}
	for i, f := range files {
		waitable := pollable(t, f)
		files[i] = waitable
		v.files = append(v.files, waitable)
		v.pumps.Go(func() { pump(nic, waitable, 0, size) })
	}
	v.pumps.Go(func() { pump(files[0], nic, size, 0) })
	v.Up("eth0")
	return v
}

// pump copies frames until one of the files is closed: behind a header of drop bytes, or with one in front that says nothing.
func pump(to, from *os.File, add, drop int) {
	buffer := make([]byte, 1<<17)
	for {
		n, err := from.Read(buffer[add:])
		if err != nil {
			return
		}
		if n < drop {
			continue
		}
		// A device that is down takes nothing; that is no end.
		_, _ = to.Write(buffer[drop : add+n])
	}
}

// pollable turns a descriptor in blocking mode into one whose reads end when it is closed.
func pollable(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// handed starts a virtual machine on what is given out at a socket.
func (m *machine) handed(socket, mac, address string) (*vm, *handover.Offer) {
	m.Helper()
	offer, files, err := handover.Receive(m.Context(), filepath.Join(m.root, socket))
	if err != nil {
		m.Fatal(err)
	}
	return newVM(m.T, files, offer.VNetHdr, mac, address), offer
}

// attached starts a virtual machine that opens one of the machine's taps by its name, as QEMU does with ifname=.
func (m *machine) attached(tap, mac, address string) *vm {
	m.Helper()
	fd := -1
	m.host.Must(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(tap)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	return newVM(m.T, []*os.File{os.NewFile(uintptr(fd), tap)}, false, mac, address)
}
