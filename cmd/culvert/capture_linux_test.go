package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"culvert/internal/lab"
)

// capturing is a running culvert capture, on a site.
type capturing struct {
	t      *testing.T
	site   *site
	cmd    *exec.Cmd
	stderr bytes.Buffer // to be read when it has ended
	ended  chan error
	file   string
}

// capture begins a capture of a site's tunnel into a file, and returns once it is under way.
func (s *site) capture(args ...string) *capturing {
	s.t.Helper()
	c := &capturing{t: s.t, site: s, file: filepath.Join(s.dir, "capture.pcapng"), ended: make(chan error, 1)}
	c.cmd = s.command(append([]string{"capture", "site", "-w", c.file}, args...)...)
	c.cmd.Stderr = &c.stderr
	os.Remove(c.file) // of the capture before
	if err := s.host.Start(c.cmd); err != nil {
		s.t.Fatal(err)
	}
	go func() { c.ended <- c.cmd.Wait() }()
	lab.Eventually(s.t, patience, "the capture has begun", func() bool {
		if len(c.ended) > 0 {
			s.t.Fatalf("the capture ended with %v:\n%s", <-c.ended, c.stderr.String())
		}
		st, err := os.Stat(c.file)
		return err == nil && st.Size() > 0
	})
	return c
}

// end ends the capture by Ctrl-C and returns what it said.
func (c *capturing) end() string {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		c.t.Fatal(err)
	}
	return c.wait()
}

func (c *capturing) wait() string {
	c.t.Helper()
	if err := <-c.ended; err != nil {
		c.t.Fatalf("the capture: %v\n%s", err, c.stderr.String())
	}
	return c.stderr.String()
}

// sharked is what tshark says of a packet.
type sharked struct {
	direction, peer string // epb_flags' direction, the comment
	device          string
	src, dst        string
	icmp            string // the type, of either version
	tcpPort         string // of the destination
	tcpLength       int    // of the payload
	tcpChecksum     string // its status
}

// What tshark says.
const (
	inbound      = "0x00000001"
	outbound     = "0x00000002"
	goodChecksum = "1"
)

// shark gives the file to tshark.
func (c *capturing) shark() (list []sharked) {
	c.t.Helper()
	args := []string{"-n", "-r", c.file, "-o", "tcp.check_checksum:TRUE", "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"}
	for _, f := range []string{"frame.packet_flags_direction", "frame.comment", "frame.interface_name", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst",
		"icmp.type", "icmpv6.type", "tcp.dstport", "tcp.len", "tcp.checksum.status"} {
		args = append(args, "-e", f)
	}
	cmd := exec.CommandContext(c.t.Context(), lab.NeedProgram(c.t, "tshark"), args...)
	cmd.Env = append(os.Environ(), "HOME="+c.t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			c.t.Fatalf("%v: %v\n%s", cmd.Args, err, e.Stderr)
		}
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		p := sharked{
			direction: f[0], peer: f[1], device: f[2], src: f[3] + f[4], dst: f[5] + f[6], icmp: f[7] + f[8],
			tcpPort: f[9], tcpChecksum: f[11],
		}
		if f[10] != "" {
			if p.tcpLength, err = strconv.Atoi(f[10]); err != nil {
				c.t.Fatal(err)
			}
		}
		list = append(list, p)
	}
	return list
}

// send sends so many bytes over TCP from a to an address of b, and returns when all have come.
func send(t *testing.T, a, b *site, address string, size int) {
	t.Helper()
	var l net.Listener
	b.host.Must(func() (err error) { l, err = net.Listen("tcp", address); return err })
	defer l.Close()
	come := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			come <- err
			return
		}
		defer c.Close()
		n, err := io.Copy(io.Discard, c)
		if err == nil && n != int64(size) {
			err = fmt.Errorf("%d bytes came of %d", n, size)
		}
		come <- err
	}()
	var c net.Conn
	a.host.Must(func() (err error) { c, err = net.Dial("tcp", address); return err })
	_, err := c.Write(make([]byte, size))
	if err := errors.Join(err, c.Close(), <-come); err != nil {
		t.Fatal(err)
	}
}

// Pings and TCP through a tunnel, captured at both ends and read back with tshark: every packet is there, with its
// direction and peer, and with a checksum that is right on the receiving side, where the wire has none.
func TestCaptureOfATunnel(t *testing.T) {
	t.Parallel()
	lab.NeedProgram(t, "tshark")
	for _, wire := range []string{"culvert", "wireguard"} {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			a, b := newSites(t)
			for _, s := range []*site{a, b} {
				text := strings.Replace(read(t, s.file), "    peers:\n", "    wire: "+wire+"\n    peers:\n", 1)
				if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				s.must("up", s.file)
			}
			a.reaches("10.20.0.2")
			a.reaches("fd20::2")
			atA, atB := a.capture(), b.capture()
			a.reaches("10.20.0.2")
			a.reaches("fd20::2")
			const size = 1 << 20
			send(t, a, b, "10.20.0.2:7000", size)
			send(t, a, b, "[fd20::2]:7000", size)
			saidA, saidB := atA.end(), atB.end()
			if !strings.HasSuffix(saidA, " packets, 0 dropped\n") || !strings.HasSuffix(saidB, " packets, 0 dropped\n") {
				t.Errorf("a: %q, b: %q", saidA, saidB)
			}
			if st, err := os.Stat(atA.file); err != nil || st.Mode() != 0o600 {
				t.Errorf("the file: %v, %v", st, err)
			}

			sharkA, sharkB := atA.shark(), atB.shark()
			for _, want := range []struct {
				name            string
				list            []sharked
				icmp, dst       string
				direction, peer string
			}{
				{"a", sharkA, "8", "10.20.0.2", outbound, "to b"}, {"a", sharkA, "0", "10.20.0.1", inbound, "from b"},
				{"b", sharkB, "8", "10.20.0.2", inbound, "from a"}, {"b", sharkB, "0", "10.20.0.1", outbound, "to a"},
				{"a", sharkA, "128", "fd20::2", outbound, "to b"}, {"a", sharkA, "129", "fd20::1", inbound, "from b"},
				{"b", sharkB, "128", "fd20::2", inbound, "from a"}, {"b", sharkB, "129", "fd20::1", outbound, "to a"},
			} {
				found := false
				for _, p := range want.list {
					if p.icmp != want.icmp || p.dst != want.dst {
						continue
					}
					found = true
					if p.direction != want.direction || p.peer != want.peer || p.device != "wg0" {
						t.Errorf("%s: %+v, want %s %q", want.name, p, want.direction, want.peer)
					}
				}
				if !found {
					t.Errorf("%s: no ICMP of type %s to %s", want.name, want.icmp, want.dst)
				}
			}

			// What is sent: super-packets. What arrives: packets as the tunnel carried them, all of them right.
			for _, dst := range []string{"10.20.0.2", "fd20::2"} {
				total, largest := 0, 0
				for _, p := range sharkA {
					if p.tcpPort == "7000" && p.dst == dst {
						total, largest = total+p.tcpLength, max(largest, p.tcpLength)
					}
				}
				if total < size || largest <= 1500 {
					t.Errorf("%s: %d bytes were sent, of %d, the most at once %d", dst, total, size, largest)
				}
				total, largest = 0, 0
				for _, p := range sharkB {
					if p.tcpPort != "7000" || p.dst != dst {
						continue
					}
					total, largest = total+p.tcpLength, max(largest, p.tcpLength)
					if p.tcpChecksum != goodChecksum || p.direction != inbound {
						t.Fatalf("%s: arrived %+v", dst, p)
					}
				}
				if total < size || largest > 1500 {
					t.Errorf("%s: %d bytes arrived, of %d, the most at once %d", dst, total, size, largest)
				}
			}
		})
	}
}

// A capture ends in order with its limits and with its daemon, prints lines, and goes through a pipe to tcpdump.
func TestCaptureOfATunnelEnds(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")

	limited := a.capture("-c", "2", "-s", "24")
	a.reaches("10.20.0.2")
	a.reaches("10.20.0.2")
	if said := limited.wait(); said != "2 packets, 0 dropped\n" {
		t.Errorf("with a limit: %q", said)
	}

	lines := a.command("capture", "site", "--text")
	stdout, err := lines.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.host.Start(lines); err != nil {
		t.Fatal(err)
	}
	line := make(chan string)
	go func() {
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			line <- scanner.Text()
		}
		close(line)
	}()
	done := make(chan struct{})
	go func() { // until it has begun
		for {
			select {
			case <-done:
				return
			default:
				a.host.Ping(netip.MustParseAddr("10.20.0.2"))
			}
		}
	}()
	if got := <-line; !strings.Contains(got, " to b: IP 10.20.0.1 > 10.20.0.2: ICMP echo request, ") &&
		!strings.Contains(got, " from b: IP 10.20.0.2 > 10.20.0.1: ICMP echo reply, ") {
		t.Errorf("line %q", got)
	}
	go func() {
		for range line {
		}
	}()

	lab.NeedProgram(t, "tcpdump")
	if err := os.Symlink(a.command().Path, filepath.Join(a.dir, "culvert")); err != nil { // the name makes it the program
		t.Fatal(err)
	}
	piped := a.host.Command(t.Context(), "sh", "-c", "./culvert capture site -c 4 | tcpdump -nr -")
	piped.Dir = a.dir
	out, err := a.host.Output(piped)
	if err != nil {
		t.Error(err)
	}
	if n := strings.Count(string(out), "ICMP echo re"); n != 4 {
		t.Errorf("tcpdump has %d of 4 packets:\n%s", n, out)
	}
	close(done)

	last := a.capture()
	a.must("down", "site")
	if said := last.wait(); !strings.HasSuffix(said, ", 0 dropped\n") {
		t.Errorf("at the daemon's end: %q", said)
	}
	if err := lines.Wait(); err != nil {
		t.Errorf("at the daemon's end: %v", err)
	}
}

// openTerminal opens a pseudo-terminal (pty(7)): what is written to one end is read from the other.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		lab.Skip(t, "needs pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { screen.Close() })
	var unlocked, number int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlocked, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return screen, terminal
}

// On a terminal packets are lines, and a file is not written there.
func TestCaptureOnATerminal(t *testing.T) {
	p := serveCaptures(t, yaml(t, capturedFile), &capturedEngine{begun: threePackets(t)})
	screen, terminal := openTerminal(t)
	p.stdout, p.stderr = terminal, io.Discard
	run := func(args ...string) error {
		root := p.root()
		root.SetArgs(append([]string{"capture", "site", "-c1"}, args...))
		return root.Execute()
	}
	if err := run("-w", "-"); exitCode(err) != exitUsage || !strings.Contains(err.Error(), "nothing for a terminal") {
		t.Errorf("-w -: %v", err)
	}
	if err := run(); err != nil {
		t.Error(err)
	}
	got, err := bufio.NewReader(screen).ReadString('\n')
	if err != nil || !strings.Contains(got, " to branch: IP 10.20.0.1 > 10.30.0.1: ICMP echo request, id 9, seq 1, length 8") {
		t.Errorf("on the screen: %q, %v", got, err)
	}
}
