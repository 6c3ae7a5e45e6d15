package setup_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
	"culvert/setup"
	"golang.org/x/sys/unix"
)

// vnetHeader is the length of the virtio-net header in front of frames here: the kernel's default (linux/virtio_net.h).
const vnetHeader = 10

// tapOffloads are TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6 (linux/if_tun.h).
const tapOffloads = 0x01 | 0x02 | 0x04

// frameEnd is one side of a tap: frames with their virtio-net header.
type frameEnd struct {
	t  *testing.T
	fd int
}

// openTap makes a tap on the host, or opens the one there, like a tunnel and QEMU do. It goes when the test ends.
func openTap(t *testing.T, h *lab.Host, name string, offloads int) *frameEnd {
	t.Helper()
	lab.NeedTun(t)
	e := &frameEnd{t: t, fd: -1}
	h.Must(func() (err error) {
		if e.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(e.fd, unix.TUNSETIFF, ifr); err != nil {
			return fmt.Errorf("open tap %s: %w", name, err)
		}
		return unix.IoctlSetInt(e.fd, unix.TUNSETOFFLOAD, offloads)
	})
	t.Cleanup(e.close)
	return e
}

func (e *frameEnd) close() {
	if e.fd >= 0 {
		unix.Close(e.fd)
		e.fd = -1
	}
}

// newTunnel is a tap that is up, standing for a tunnel's: the descriptor is where the tunnel reads and writes.
func newTunnel(t *testing.T, h *lab.Host, name string) *frameEnd {
	t.Helper()
	e := openTap(t, h, name, tapOffloads)
	h.Sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1") // nothing but the test's frames
	h.Up(name)
	return e
}

// machine is what QEMU does with a port.
func machine(t *testing.T, h *lab.Host, a *setup.AttachedVM, offloads int) *frameEnd {
	t.Helper()
	if a.File() == nil {
		e := openTap(t, h, portName(t, a), offloads)
		// The carrier comes with the machine, the queue a moment later; until then frames to it are lost.
		lab.Eventually(t, frameWait, "the port has a queue", func() bool {
			state := h.Shell("ip", "link", "show", portName(t, a))
			return strings.Contains(state, "LOWER_UP") && !strings.Contains(state, "qdisc noop ")
		})
		return e
	}
	fd, err := unix.Dup(int(a.File().Fd()))
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
	}
	if err != nil {
		t.Fatal(err)
	}
	e := &frameEnd{t: t, fd: fd}
	t.Cleanup(e.close)
	return e
}

func portName(t *testing.T, a *setup.AttachedVM) string {
	t.Helper()
	name, err := a.Name()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func (e *frameEnd) send(header [vnetHeader]byte, frame []byte) {
	e.t.Helper()
	if _, err := unix.Write(e.fd, append(header[:], frame...)); err != nil {
		e.t.Fatalf("send: %v", err)
	}
}

// receive returns the next frame, or nil after the wait.
func (e *frameEnd) receive(wait time.Duration) (header [vnetHeader]byte, frame []byte) {
	e.t.Helper()
	buf := make([]byte, 70000)
	for end := time.Now().Add(wait); ; {
		n, err := unix.Read(e.fd, buf)
		if err == nil {
			copy(header[:], buf)
			return header, buf[vnetHeader:n]
		}
		left := time.Until(end)
		if err != unix.EAGAIN || left <= 0 {
			return header, nil
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
	}
}

const frameWait = 10 * time.Second

// crosses sends a frame and compares what comes out at the other end.
func crosses(t *testing.T, what string, from, to *frameEnd, frame []byte) {
	t.Helper()
	from.send([vnetHeader]byte{}, frame)
	header, got := to.receive(frameWait)
	// VIRTIO_NET_HDR_F_DATA_VALID is the kernel's remark that it looked at the checksum.
	if !bytes.Equal(got, frame) || header[0]&^2 != 0 || header[1] != 0 {
		t.Errorf("%s: sent %d bytes %.64x, got header %x and %d bytes %.64x", what, len(frame), frame, header, len(got), got)
	}
}

func macFrame(dst, src string, kind uint16, length int) []byte {
	frame := make([]byte, length)
	for i := range frame {
		frame[i] = byte(i * 7)
	}
	copy(frame, hexBytes(dst))
	copy(frame[6:], hexBytes(src))
	binary.BigEndian.PutUint16(frame[12:], kind)
	return frame
}

func hexBytes(mac string) (b []byte) {
	for part := range strings.SplitSeq(mac, ":") {
		var v byte
		fmt.Sscanf(part, "%x", &v)
		b = append(b, v)
	}
	return b
}

// tagged puts a VLAN tag into a frame.
func tagged(tpid, tci uint16, frame []byte) []byte {
	tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tpid), tci)
	return bytes.Join([][]byte{frame[:12], tag, frame[12:]}, nil)
}

func forKinds(t *testing.T, test func(t *testing.T, kind setup.VMPortKind)) {
	t.Helper()
	for _, kind := range []setup.VMPortKind{setup.VMPortMacvtap, setup.VMPortTap} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// attach makes a port and removes it at the end of the test.
func attach(t *testing.T, h *lab.Host, p setup.VMPort) *setup.AttachedVM {
	t.Helper()
	p.Namespace = h.NetnsPath()
	a, err := setup.AttachVM(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := a.Verify(); err != nil {
		t.Error(err)
	}
	return a
}

// operation is what the kernel changes by itself a while after a device's making.
var operation = regexp.MustCompile(`NO-CARRIER,|,LOWER_UP| state [A-Z]+`)

// devices is what a host has of devices, queueing disciplines and classifiers.
func devices(h *lab.Host) string {
	var b strings.Builder
	b.WriteString(operation.ReplaceAllString(h.Shell("ip", "-d", "link"), ""))
	b.WriteString(h.Shell("tc", "qdisc", "show"))
	for _, name := range strings.Fields(h.Shell("sh", "-c", "ls /proc/sys/net/ipv4/conf")) {
		if name != "all" && name != "default" {
			fmt.Fprintln(&b, name, h.Shell("tc", "filter", "show", "dev", name, "ingress"))
		}
	}
	return b.String()
}

// Frames cross as they are, both ways, whatever is in them.
func TestVMPortCarriesEveryFrame(t *testing.T) {
	t.Parallel()
	forKinds(t, func(t *testing.T, kind setup.VMPortKind) {
		h := lab.NewHost(t, "a")
		tunnel := newTunnel(t, h, "office")
		h.SetMTU("office", 9000)
		before := devices(h)
		a := attach(t, h, setup.VMPort{Link: "office", Kind: kind, Name: "vm1"})
		if mtu, err := a.MTU(); mtu != 9000 || err != nil {
			t.Errorf("MTU %d, %v", mtu, err)
		}
		vm := machine(t, h, a, tapOffloads)
		const one, two = "52:54:00:00:00:01", "02:aa:00:00:00:02"
		plain := macFrame(one, two, 0x88b5, 1514)
		for _, f := range []struct {
			name  string
			frame []byte
		}{
			{"unicast", plain},
			{"shortest", macFrame(one, two, 0x88b5, 60)},
			{"universally administered", macFrame("00:1b:21:00:00:01", "00:1b:21:00:00:02", 0x88b5, 100)},
			{"broadcast", macFrame("ff:ff:ff:ff:ff:ff", two, 0x0806, 60)},
			{"IPv4 multicast", macFrame("01:00:5e:01:02:03", two, 0x88b5, 200)},
			{"solicited node", macFrame("33:33:ff:12:34:56", two, 0x88b5, 86)},
			{"spanning tree", macFrame("01:80:c2:00:00:00", two, 38, 60)},
			{"LLDP", macFrame("01:80:c2:00:00:0e", two, 0x88cc, 60)},
			{"802.3 length", macFrame(one, two, 1000, 1014)},
			{"jumbo", macFrame(one, two, 0x88b5, 9014)},
			{"VLAN 10", tagged(0x8100, 10, plain)},
			{"VLAN 4094 with priority", tagged(0x8100, 0xeffe, plain)},
			{"priority alone", tagged(0x8100, 0xa000, plain)},
			{"VLAN broadcast", tagged(0x8100, 20, macFrame("ff:ff:ff:ff:ff:ff", two, 0x0806, 60))},
			{"two tags", tagged(0x88a8, 100, tagged(0x8100, 7, plain))},
			{"two tags of one type", tagged(0x8100, 100, tagged(0x8100, 7, plain))},
			{"jumbo in a VLAN", tagged(0x8100, 10, macFrame(one, two, 0x88b5, 9014))},
		} {
			crosses(t, f.name+" to the machine", tunnel, vm, f.frame)
			crosses(t, f.name+" from the machine", vm, tunnel, f.frame)
		}
		// Neither end sees its own.
		for name, e := range map[string]*frameEnd{"tunnel": tunnel, "machine": vm} {
			if _, frame := e.receive(20 * time.Millisecond); frame != nil {
				t.Errorf("the %s received another frame %.64x", name, frame)
			}
		}
		vm.close()
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
		if err := a.Remove(); err != nil {
			t.Errorf("second removal: %v", err)
		}
		if after := devices(h); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		if err := a.Verify(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("verification of what is removed: %v", err)
		}
	})
}

// superFrame is a TCP segment over IPv4 of that many bytes, to be cut into pieces of 1400, in a VLAN or none, with its
// virtio-net header (VIRTIO 1.2, section 5.1.6).
func superFrame(vlan uint16, payload int) (header [vnetHeader]byte, frame []byte) {
	const ip, tcp = 20, 20
	frame = macFrame("52:54:00:00:00:01", "52:54:00:00:00:02", 0x0800, 14+ip+tcp+payload)
	p := frame[14:]
	copy(p, []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[10:], ^onesSum(p[:ip]))
	copy(p[ip:], []byte{0x30, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x10, 0xff, 0xff, 0, 0, 0, 0})
	pseudo := append(bytes.Clone(p[12:20]), 0, 6, 0, 0)
	binary.BigEndian.PutUint16(pseudo[10:], uint16(tcp+payload))
	binary.BigEndian.PutUint16(p[ip+16:], onesSum(pseudo))
	start := 14 + ip
	if vlan != 0 {
		frame = tagged(0x8100, vlan, frame)
		start += 4
	}
	header[0], header[1] = 1, 1 // NEEDS_CSUM, GSO_TCPV4
	for i, v := range []uint16{uint16(start + tcp), 1400, uint16(start), 16} {
		binary.LittleEndian.PutUint16(header[2+2*i:], v)
	}
	return header, frame
}

func onesSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// Super-frames stay whole where the other side takes them, and are cut where it does not.
func TestVMPortCarriesSuperFrames(t *testing.T) {
	t.Parallel()
	forKinds(t, func(t *testing.T, kind setup.VMPortKind) {
		for _, vlan := range []uint16{0, 10} {
			h := lab.NewHost(t, "a")
			tunnel := newTunnel(t, h, "office")
			a := attach(t, h, setup.VMPort{Link: "office", Kind: kind})
			vm := machine(t, h, a, tapOffloads)
			const payload = 30000
			header, frame := superFrame(vlan, payload)
			for name, way := range map[string][2]*frameEnd{"to the machine": {tunnel, vm}, "from the machine": {vm, tunnel}} {
				way[0].send(header, frame)
				gotHeader, got := way[1].receive(frameWait)
				// The length of the headers is a hint, and the kernel's own.
				copy(gotHeader[2:4], header[2:4])
				if !bytes.Equal(got, frame) || gotHeader != header {
					t.Errorf("VLAN %d, %s: %d bytes with header %x came out as %d with %x", vlan, name, len(frame), header, len(got), gotHeader)
				}
			}
			for _, e := range []*frameEnd{tunnel, vm} {
				if err := unix.IoctlSetInt(e.fd, unix.TUNSETOFFLOAD, 0); err != nil {
					t.Fatal(err)
				}
			}
			headers := len(frame) - payload
			for name, way := range map[string][2]*frameEnd{"to the machine": {tunnel, vm}, "from the machine": {vm, tunnel}} {
				way[0].send(header, frame)
				var data []byte
				for len(data) < payload {
					gotHeader, got := way[1].receive(frameWait)
					if len(got) <= headers || len(got) > headers+1400 || gotHeader[0]&1 != 0 || gotHeader[1] != 0 {
						t.Fatalf("VLAN %d, %s: a piece of %d bytes with header %x", vlan, name, len(got), gotHeader)
					}
					ip := got[headers-40:]
					pseudo := append(bytes.Clone(ip[12:20]), 0, 6, 0, 0)
					binary.BigEndian.PutUint16(pseudo[10:], uint16(len(ip)-20))
					if onesSum(append(pseudo, ip[20:]...)) != 0xffff {
						t.Errorf("VLAN %d, %s: a piece's checksum is wrong", vlan, name)
					}
					data = append(data, got[headers:]...)
				}
				if !bytes.Equal(data, frame[headers:]) {
					t.Errorf("VLAN %d, %s: the pieces do not make the whole", vlan, name)
				}
			}
		}
	})
}

// Ports in one namespace, and in namespaces whose devices have the same numbers, do not meet.
func TestVMPortsSideBySide(t *testing.T) {
	t.Parallel()
	var tunnels, machines []*frameEnd
	var all []*setup.AttachedVM
	for i := range 2 {
		h := lab.NewHost(t, fmt.Sprint(i))
		for _, p := range []setup.VMPort{
			{Link: "office", Kind: setup.VMPortMacvtap},
			{Link: "branch", Kind: setup.VMPortTap},
			{Link: "lab", Kind: setup.VMPortTap},
			{Link: "home", Kind: setup.VMPortMacvtap},
		} {
			tunnels = append(tunnels, newTunnel(t, h, p.Link))
			a := attach(t, h, p)
			if want := fmt.Sprintf("vmtap%d", len(all)%4); portName(t, a) != want {
				t.Errorf("the port on %s is called %s, want %s", p.Link, portName(t, a), want)
			}
			all = append(all, a)
			machines = append(machines, machine(t, h, a, tapOffloads))
		}
	}
	for i := range tunnels {
		frame := macFrame("ff:ff:ff:ff:ff:ff", "52:54:00:00:00:01", uint16(0x8900+i), 100)
		tunnels[i].send([vnetHeader]byte{}, frame)
		machines[i].send([vnetHeader]byte{}, frame)
	}
	for i := range tunnels {
		want := macFrame("ff:ff:ff:ff:ff:ff", "52:54:00:00:00:01", uint16(0x8900+i), 100)
		for what, e := range map[string]*frameEnd{"tunnel": tunnels[i], "machine": machines[i]} {
			if _, got := e.receive(frameWait); !bytes.Equal(got, want) {
				t.Errorf("%s %d received %.20x, want %.20x", what, i, got, want)
			}
			if _, more := e.receive(5 * time.Millisecond); more != nil {
				t.Errorf("%s %d received %.20x as well", what, i, more)
			}
		}
	}
	// One that goes leaves the others.
	if err := all[1].Remove(); err != nil {
		t.Error(err)
	}
	for i, a := range all {
		if i == 1 {
			continue
		}
		if err := a.Verify(); err != nil {
			t.Error(err)
		}
		crosses(t, fmt.Sprint("afterwards ", i), tunnels[i], machines[i], macFrame("52:54:00:00:00:09", "52:54:00:00:00:01", 0x88b5, 100))
	}
}

// What is refused, or fails half-way, changes nothing, and devices of others stay.
func TestVMPortRefusals(t *testing.T) {
	t.Parallel()
	forKinds(t, func(t *testing.T, kind setup.VMPortKind) {
		h := lab.NewHost(t, "a")
		for _, name := range []string{"office", "ported", "shaped", "carrier", "joined"} {
			newTunnel(t, h, name)
		}
		addTun(t, h, "wg0")
		h.Shell("ip", "tuntap", "add", "mode", "tap", "name", "foreign")
		h.Shell("ip", "link", "add", "br0", "type", "bridge")
		h.Shell("ip", "link", "set", "ported", "master", "br0")
		h.Shell("ip", "link", "add", "mv0", "link", "carrier", "type", "macvlan", "mode", "bridge")
		h.Shell("tc", "qdisc", "add", "dev", "shaped", "ingress")
		h.Shell("tc", "filter", "add", "dev", "shaped", "parent", "ffff:", "protocol", "all", "u32", "match", "u8", "0", "0",
			"action", "mirred", "egress", "redirect", "dev", "foreign")
		attach(t, h, setup.VMPort{Link: "joined", Kind: setup.VMPortTap, Name: "first"})
		before := devices(h)
		for _, test := range []struct {
			link, name string
			want       string
			errno      error
			only       setup.VMPortKind
		}{
			{link: "office", name: "foreign", want: "already", only: 9},
			{link: "office", name: "br0", want: "already", only: 9},
			{link: "office", name: "office", want: "already", only: 9},
			{link: "office", name: "a name", want: "cannot contain", only: 9},
			{link: "office", name: "sixteen-bytes-xx", want: "15 bytes", only: 9},
			{link: "ported", want: "a port of br0", errno: unix.EBUSY, only: 9},
			{link: "carrier", want: "carries the macvlan mv0", errno: unix.EBUSY, only: 9},
			{link: "joined", want: "joined with another", errno: unix.EBUSY, only: 9},
			{link: "wg0", want: "it is a tun, not a tap", only: 9},
			{link: "br0", want: "it is a bridge, not a tap", only: 9},
			{link: "nowhere", want: "not found", only: 9},
			{link: "shaped", want: "classifiers already", errno: unix.EEXIST, only: setup.VMPortTap},
		} {
			if test.only != 9 && test.only != kind {
				continue
			}
			a, err := setup.AttachVM(setup.VMPort{Link: test.link, Namespace: h.NetnsPath(), Kind: kind, Name: test.name})
			if err == nil {
				a.Remove()
				t.Errorf("%s on %s was made", test.name, test.link)
				continue
			}
			if _, ok := errors.AsType[*setup.OpError](err); !ok || !strings.Contains(err.Error(), test.want) ||
				test.errno != nil && !errors.Is(err, test.errno) {
				t.Errorf("%s on %s: %v, want %q", test.name, test.link, err, test.want)
			}
			if after := devices(h); after != before {
				t.Fatalf("%s on %s: before:\n%s\nafter:\n%s", test.name, test.link, before, after)
			}
		}
	})
}

// An ingress queueing discipline that does nothing is used, and left.
func TestVMPortLeavesEmptyIngress(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	tunnel := newTunnel(t, h, "office")
	h.Shell("tc", "qdisc", "add", "dev", "office", "ingress")
	before := devices(h)
	a := attach(t, h, setup.VMPort{Link: "office", Kind: setup.VMPortTap})
	crosses(t, "unicast", tunnel, machine(t, h, a, 0), macFrame("52:54:00:00:00:09", "52:54:00:00:00:01", 0x88b5, 100))
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	if after := devices(h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestVMPortOwner is the process that TestKilledVMPortIsReaped kills.
func TestVMPortOwner(t *testing.T) {
	netns := os.Getenv("CULVERT_TEST_VMPORT_NETNS")
	if netns == "" {
		t.Skip("runs as a child of TestKilledVMPortIsReaped")
	}
	for link, kind := range map[string]setup.VMPortKind{"office": setup.VMPortMacvtap, "branch": setup.VMPortTap} {
		if _, err := setup.AttachVM(setup.VMPort{Link: link, Namespace: netns, Kind: kind}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fmt.Println("attached")
	select {}
}

func TestKilledVMPortIsReaped(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "a")
	tunnels := map[string]*frameEnd{}
	for _, name := range []string{"office", "branch", "live"} {
		tunnels[name] = newTunnel(t, h, name)
	}
	live := attach(t, h, setup.VMPort{Link: "live", Kind: setup.VMPortTap, Name: "live1"})
	h.Shell("ip", "tuntap", "add", "mode", "tap", "name", "foreign")
	h.Shell("ip", "link", "set", "foreign", "alias", "culvert-vm:nonsense")
	before := devices(h)
	kill := func() {
		owner := exec.Command(os.Args[0], "-test.run", "^TestVMPortOwner$", "-test.v")
		owner.Env = append(os.Environ(), "CULVERT_TEST_VMPORT_NETNS="+h.NetnsPath())
		out, err := owner.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := owner.Start(); err != nil {
			t.Fatal(err)
		}
		defer owner.Wait()
		defer owner.Process.Kill()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "attached" {
				if removed, err := setup.ReapVMPorts(h.NetnsPath()); len(removed) != 0 || err != nil {
					t.Errorf("reaped %v of a living process, %v", removed, err)
				}
				return
			}
			t.Log(lines.Text())
		}
		t.Fatal("the owner has attached nothing")
	}
	kill()
	if devices(h) == before {
		t.Fatal("nothing was left to be reaped")
	}
	if removed, err := setup.ReapVMPorts(h.NetnsPath()); len(removed) != 2 || err != nil {
		t.Errorf("reaped %v, %v, want two", removed, err)
	}
	if after := devices(h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}

	// The next port on the tunnel takes the place of the one that is left; of a tap that somebody deleted the redirect is left.
	kill()
	h.DeleteLink(strings.TrimSpace(h.Shell("sh", "-c", "ip -br link show type tun | grep -o 'vmtap[0-9]*'")))
	for name, kind := range map[string]setup.VMPortKind{"office": setup.VMPortTap, "branch": setup.VMPortMacvtap} {
		a := attach(t, h, setup.VMPort{Link: name, Kind: kind})
		vm := machine(t, h, a, 0)
		crosses(t, name, tunnels[name], vm, macFrame("52:54:00:00:00:09", "52:54:00:00:00:01", 0x88b5, 100))
		crosses(t, name, vm, tunnels[name], macFrame("52:54:00:00:00:01", "52:54:00:00:00:09", 0x88b5, 100))
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
		vm.close()
	}
	if after := devices(h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if err := live.Verify(); err != nil {
		t.Error(err)
	}
}

// follow runs Follow until the test ends and returns where its error comes.
func follow(t *testing.T, a *setup.AttachedVM) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- a.Follow(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return ended
}

// MTU and carrier of the port are those of the tunnel's tap.
func TestVMPortFollows(t *testing.T) {
	t.Parallel()
	forKinds(t, func(t *testing.T, kind setup.VMPortKind) {
		h := lab.NewHost(t, "a")
		tunnel := newTunnel(t, h, "office")
		a := attach(t, h, setup.VMPort{Link: "office", Kind: kind})
		vm := machine(t, h, a, 0)
		ended := follow(t, a)
		name := portName(t, a)
		carrier := func() bool { return strings.Contains(h.Shell("ip", "link", "show", name), "LOWER_UP") }
		for _, mtu := range []int{1400, 9000, 1500} {
			h.SetMTU("office", mtu)
			lab.Eventually(t, frameWait, fmt.Sprint("MTU ", mtu), func() bool { got, _ := a.MTU(); return got == mtu })
		}
		for range 2 {
			if err := unix.IoctlSetPointerInt(tunnel.fd, unix.TUNSETCARRIER, 0); err != nil {
				t.Fatal(err)
			}
			lab.Eventually(t, frameWait, "no carrier", func() bool { return !carrier() })
			if err := unix.IoctlSetPointerInt(tunnel.fd, unix.TUNSETCARRIER, 1); err != nil {
				t.Fatal(err)
			}
			lab.Eventually(t, frameWait, "carrier", carrier)
		}
		crosses(t, "unicast", tunnel, vm, macFrame("52:54:00:00:00:09", "52:54:00:00:00:01", 0x88b5, 100))

		tunnel.close() // its tap goes
		if kind == setup.VMPortMacvtap {
			if err := <-ended; !errors.Is(err, setup.ErrPortGone) {
				t.Errorf("Follow ended with %v, want %v", err, setup.ErrPortGone)
			}
			return
		}
		lab.Eventually(t, frameWait, "no carrier without a tunnel", func() bool { return !carrier() })
		tunnel = newTunnel(t, h, "office")
		lab.Eventually(t, frameWait, "joined again", func() bool { return a.Verify() == nil && carrier() })
		crosses(t, "unicast again", tunnel, vm, macFrame("52:54:00:00:00:09", "52:54:00:00:00:01", 0x88b5, 100))
		crosses(t, "unicast back", vm, tunnel, macFrame("52:54:00:00:00:01", "52:54:00:00:00:09", 0x88b5, 100))
		before := h.Shell("ip", "link", "show", "office")
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
		if got := h.Shell("tc", "qdisc", "show", "dev", "office"); strings.Contains(got, "ingress") {
			t.Errorf("%s\nhas\n%s", before, got)
		}
	})
}

// Verify sees what others changed.
func TestVMPortVerify(t *testing.T) {
	t.Parallel()
	forKinds(t, func(t *testing.T, kind setup.VMPortKind) {
		damages := map[string]func(h *lab.Host){
			"down": func(h *lab.Host) { h.Down("vm1") },
			"MTU":  func(h *lab.Host) { h.SetMTU("vm1", 1300) },
			"gone": func(h *lab.Host) { h.DeleteLink("vm1") },
		}
		if kind == setup.VMPortTap {
			damages["redirect"] = func(h *lab.Host) { h.Shell("tc", "qdisc", "del", "dev", "office", "ingress") }
			damages["redirect back"] = func(h *lab.Host) { h.Shell("tc", "qdisc", "del", "dev", "vm1", "ingress") }
		}
		for name, damage := range damages {
			h := lab.NewHost(t, "a")
			newTunnel(t, h, "office")
			before := devices(h)
			a := attach(t, h, setup.VMPort{Link: "office", Kind: kind, Name: "vm1"})
			damage(h)
			if err := a.Verify(); err == nil {
				t.Errorf("%s: not seen", name)
			}
			if err := a.Remove(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if after := devices(h); after != before {
				t.Errorf("%s: before:\n%s\nafter:\n%s", name, before, after)
			}
		}
	})
}
