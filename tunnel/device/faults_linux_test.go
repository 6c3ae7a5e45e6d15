package device

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/internal/lab"
)

// Packets that the kernel cannot hand over are lost one by one; where there is nothing else any more, the device is broken.
func TestReadFailures(t *testing.T) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC) // of which every read fails with EINVAL
	if err != nil {
		t.Fatal(err)
	}
	q := &kernelQueue{device: newInterface(LayerIP), file: os.NewFile(uintptr(fd), "epoll")}
	defer q.file.Close()
	if q.conn, err = q.file.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	q.readFunc, q.tryFunc = q.read, q.try
	buf := make([]byte, BufferSize)
	for i := range maxFailed {
		lo, hi, o, err := q.Read(buf, false)
		if err != nil || lo != hi || o.GSO != gsoUnknown {
			t.Fatalf("failure %d: [%d:%d], %+v, %v", i, lo, hi, o, err)
		}
	}
	if _, _, _, err := q.Read(buf, false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("after %d failures: %v", maxFailed, err)
	}
}

// Notifications that the kernel could not deliver are made up for by asking: the events tell what is so in the end, and that the
// interface may have been down meanwhile.
func TestLostLinkChanges(t *testing.T) {
	lab.NeedTun(t)
	h := lab.NewHost(t, "lost")
	d := openIn(t, h, LayerIP, TunOptions{Name: "culvert0", MTU: 1400}).(*kernelInterface)
	configure(t, h, d, "10.9.0.1/24")
	if err := d.link.conn.Control(func(fd uintptr) {
		err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		check(t, err)
	}); err != nil {
		t.Fatal(err)
	}
	var link netlink.Link
	change := func(f func() error) { t.Helper(); h.Must(f) }
	change(func() (err error) { link, err = netlink.LinkByName("culvert0"); return err })
	// Nobody takes events, so that the watch stops reading once as many wait as there is room for.
	for i := range cap(d.events) + 40 {
		change(func() error { return netlink.LinkSetMTU(link, 1300+i) })
	}
	change(func() error { return netlink.LinkSetDown(link) })
	change(func() error { return netlink.LinkSetUp(link) })
	change(func() error { return netlink.LinkSetMTU(link, 1280) })
	if lost := netlinkDrops(t, h, d); lost == 0 {
		t.Fatal("nothing was lost")
	}
	expect(t, d, EventUp) // past all the others
	if mtu, err := d.MTU(); mtu != 1280 || err != nil {
		t.Errorf("the MTU is %d, %v", mtu, err)
	}
	for done := false; !done; { // what else was told of
		select {
		case <-d.Events():
		case <-time.After(100 * time.Millisecond):
			done = true
		}
	}
	change(func() error { return netlink.LinkSetDown(link) })
	expect(t, d, EventDown)
	change(func() error { return netlink.LinkDel(link) })
	expectClosed(t, d)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// netlinkDrops is how many messages the kernel had no room for in the buffer of the interface's socket.
func netlinkDrops(t testing.TB, h *lab.Host, d *kernelInterface) (drops int) {
	t.Helper()
	inode := ""
	check(t, d.link.conn.Control(func(fd uintptr) {
		var st unix.Stat_t
		check(t, unix.Fstat(int(fd), &st))
		inode = strconv.FormatUint(st.Ino, 10)
	}))
	h.Must(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netlink")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); len(words) == 10 && words[9] == inode { // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
				drops, err = strconv.Atoi(words[8])
			}
		}
		return err
	})
	return drops
}
