package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Guest is a virtual machine under QEMU's emulation (no KVM needed, no root) that runs Debian's cloud kernel, for what
// the host's kernel lacks: kernel WireGuard, netem, bond, team, ipvlan. It boots from memory alone, runs one shell script as root and powers
// off. It shows what is correct, never what is fast.
//
// The script's standard output and error come back over a virtio-serial port; its standard input is what [Guest.Send] sends. After the
// script, init writes its exit code as the last line; a guest that ends without that line has crashed.
type Guest struct {
	t       testing.TB
	options GuestOptions
	folder  string // initramfs, kernel console
	kernel  guestKernel

	command *exec.Cmd
	asked   sync.Mutex // held by Do
	number  int        // of its commands so far
	input   io.WriteCloser
	output  guestOutput
	done    chan struct{} // closed when QEMU has ended and output is complete
	ended   error         // what QEMU ended with; read after done
}

// GuestOptions say what is in a guest.
type GuestOptions struct {
	// Modules are kernel modules to load before the script runs, without those they need. They are loaded in order; one that
	// does not load ends the guest with code 125. Modules that are put in but not listed do not exist: what is listed is also
	// what the kernel can load by itself.
	Modules []string
	// Programs are names of programs of the host (found on PATH and in the sbin folders), put into /usr/bin with their
	// libraries in place of busybox's applets of those names. One the host lacks skips the test.
	Programs []string
	// Files maps absolute paths in the guest to files of the host, executable in the guest. Programs among them get their libraries.
	Files map[string]string
	// Script is what /bin/sh runs, in / and as root, with loopback up.
	Script string
	// NICs are virtio network cards, named eth0 and so on in this order (down at first).
	NICs []GuestNIC
	// Memory is in MiB; 0 is 512.
	Memory int
	// Limit is the longest time the guest may run; 0 is five minutes. The guest also powers itself off by then, should this process be
	// killed before it can end QEMU.
	Limit time.Duration
	// Start starts QEMU; nil is (*exec.Cmd).Start. It is where a caller puts QEMU into a network namespace, for a NIC on a tap there.
	Start func(*exec.Cmd) error
}

// GuestNIC is a guest's network card. Exactly one of Tap, File, Queues, Cable and Backend is set.
type GuestNIC struct {
	Tap     string     // an existing tap device in the namespace QEMU is started in
	File    *os.File   // the descriptor of a tap or macvtap; the guest takes it over
	Queues  []*os.File // those of all queues of one; the guest takes them over
	Cable   *os.File   // one end of a [GuestCable]; the guest takes it over
	Backend string     // of QEMU's -netdev, without its id: "tap,fd={fd}" for what Start has a program replace
	MAC     string     // default 52:54:00:c0:00:NN, NN being the card's number
}

// files are the descriptors QEMU inherits.
func (nic GuestNIC) files() []*os.File {
	switch {
	case nic.File != nil:
		return []*os.File{nic.File}
	case nic.Cable != nil:
		return []*os.File{nic.Cable}
	}
	return nic.Queues
}

// GuestCable returns the two ends of a network cable; each datagram is an Ethernet frame. An end goes to a [GuestNIC] or is read and
// written by the test itself.
func GuestCable() (a, b *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(pair[0]), "cable end a"), os.NewFile(uintptr(pair[1]), "cable end b"), nil
}

// The default of GuestOptions.Limit and of Memory, and the bound on what is kept of a script's output.
const (
	guestLimit     = 5 * time.Minute
	guestMemory    = 512
	guestMaxOutput = 16 << 20
)

// ErrGuestCrashed is wrapped by what [Guest.Wait] returns for a guest that ended without an exit code.
var ErrGuestCrashed = errors.New("the guest ended without an exit code")

// NewGuest prepares a guest. It skips the test where QEMU, the kernel package or a program is not to be had. Whatever it
// makes is killed and removed when the test ends.
func NewGuest(t testing.TB, options GuestOptions) *Guest {
	t.Helper()
	for _, program := range []string{"qemu-system-x86_64", "busybox"} {
		if _, err := findProgram(program); err != nil {
			Skip(t, fmt.Sprintf("needs a guest: %v (apt-get install qemu-system-x86 busybox-static)", err))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), guestLimit)
	defer cancel()
	cache, err := FetchGuestKernel(ctx)
	if err != nil {
		Skip(t, fmt.Sprintf("needs a kernel for the guest: %v", err))
	}
	kernel, err := findGuestKernel(cache)
	if err != nil {
		t.Fatal(err)
	}
	if options.Limit == 0 {
		options.Limit = guestLimit
	}
	if options.Memory == 0 {
		options.Memory = guestMemory
	}
	g := &Guest{t: t, options: options, folder: t.TempDir(), kernel: kernel, done: make(chan struct{})}
	g.output.changed = sync.NewCond(&g.output.mu)
	if err := g.buildInitramfs(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			Skip(t, fmt.Sprintf("needs for the guest: %v", err))
		}
		t.Fatalf("initramfs: %v", err)
	}
	return g
}

// Run starts the guest and waits for its script. It returns the script's output and exit code, and ends the test where the
// guest crashed or did not end in time.
func (g *Guest) Run(ctx context.Context) (output string, code int) {
	g.t.Helper()
	if err := g.Start(ctx); err != nil {
		g.t.Fatalf("starting a guest: %v", err)
	}
	output, code, err := g.Wait()
	if err != nil {
		g.t.Fatalf("guest: %v", err)
	}
	return output, code
}

// Start boots the guest and returns at once. The guest is killed when ctx or the test ends.
func (g *Guest) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.options.Limit)
	g.command = exec.CommandContext(ctx, mustFind("qemu-system-x86_64"), g.arguments()...)
	for _, nic := range g.options.NICs {
		g.command.ExtraFiles = append(g.command.ExtraFiles, nic.files()...)
	}
	var problems bytes.Buffer
	g.command.Stderr = &problems
	stdout, err := g.command.StdoutPipe()
	if err != nil {
		cancel()
		return err
	}
	if g.input, err = g.command.StdinPipe(); err != nil {
		cancel()
		return err
	}
	if err := g.startQEMU(); err != nil {
		cancel()
		return err
	}
	for _, nic := range g.options.NICs {
		for _, f := range nic.files() {
			f.Close()
		}
	}
	go func() {
		defer close(g.done)
		defer cancel()
		_, readErr := io.Copy(&g.output, stdout)
		g.ended = g.command.Wait()
		switch {
		case ctx.Err() != nil:
			g.ended = context.Cause(ctx)
		case g.ended != nil:
			g.ended = fmt.Errorf("%w: %s", g.ended, lastLine(problems.Bytes()))
		case readErr != nil:
			g.ended = readErr
		}
		g.output.end()
	}()
	g.t.Cleanup(func() {
		cancel()
		<-g.done
	})
	return nil
}

// startQEMU starts QEMU so that it ends with this process, even one that is killed: the signal for that comes when the
// starting thread ends, so a thread is kept for as long as QEMU runs.
func (g *Guest) startQEMU() error {
	if g.options.Start != nil {
		return g.options.Start(g.command)
	}
	g.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := g.command.Start()
		started <- err
		if err == nil {
			<-g.done
		}
	}()
	return <-started
}

// Wait waits for the guest's end and returns its script's output and exit code. The error is what ended the guest before its script
// did; it holds the last lines of the kernel's console.
func (g *Guest) Wait() (output string, code int, err error) {
	<-g.done
	output, code, ok := splitExit(g.output.text())
	if ok {
		return output, code, nil
	}
	err = ErrGuestCrashed
	if g.ended != nil {
		err = fmt.Errorf("%w: %w", err, g.ended)
	}
	return output, -1, fmt.Errorf("%w\noutput:\n%s\nconsole:\n%s", err, tail(output, 30), tail(g.Console(), 30))
}

// Await waits until the script has written text and returns nil, or an error where the guest ended before.
func (g *Guest) Await(text string) error {
	if g.output.await(text) {
		return nil
	}
	_, code, err := g.Wait()
	if err == nil {
		err = fmt.Errorf("the script ended with %d", code)
	}
	return fmt.Errorf("waiting for %q: %w", text, err)
}

// Send writes a line to the script's standard input.
func (g *Guest) Send(line string) error {
	_, err := io.WriteString(g.input, line+"\n")
	return err
}

// Console is what the kernel has said so far.
func (g *Guest) Console() string {
	text, err := os.ReadFile(g.file("console"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (g *Guest) file(name string) string { return filepath.Join(g.folder, name) }

func (g *Guest) arguments() []string {
	arguments := []string{
		"-accel", "tcg", "-cpu", "max", "-m", strconv.Itoa(g.options.Memory),
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", g.kernel.image, "-initrd", g.file("initramfs"),
		// no_timer_check: the kernel believes the timer broken when a busy host lets the emulator wait.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check",
		"-chardev", "file,id=console,path=" + g.file("console"), "-serial", "chardev:console",
		"-chardev", "stdio,id=results,signal=off",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=results,name=" + guestPort,
	}
	descriptor := 3 // the first of exec.Cmd's ExtraFiles
	for i, nic := range g.options.NICs {
		mac := nic.MAC
		if mac == "" {
			mac = fmt.Sprintf("52:54:00:c0:00:%02x", i)
		}
		backend, card := nic.Backend, ""
		switch {
		case nic.Tap != "":
			backend = "tap,ifname=" + nic.Tap + ",script=no,downscript=no"
		case nic.File != nil:
			backend = fmt.Sprintf("tap,fd=%d", descriptor)
		case len(nic.Queues) > 0:
			backend = "tap,vhost=off,fds=" + strconv.Itoa(descriptor)
			for n := range len(nic.Queues) - 1 {
				backend += ":" + strconv.Itoa(descriptor+1+n)
			}
			card = fmt.Sprintf(",mq=on,vectors=%d", 2*len(nic.Queues)+2) // an interrupt for each direction of each queue, two for the rest
		case nic.Cable != nil:
			backend = fmt.Sprintf("dgram,local.type=fd,local.str=%d", descriptor)
		}
		descriptor += len(nic.files())
		kind, rest, _ := strings.Cut(backend, ",")
		arguments = append(arguments, "-netdev", fmt.Sprintf("%s,id=net%d,%s", kind, i, rest),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,mac=%s,romfile=%s", i, mac, card))
	}
	return arguments
}

// guestOutput collects what the script writes, up to a bound, and lets others wait for it.
type guestOutput struct {
	mu      sync.Mutex
	changed *sync.Cond
	data    []byte
	ended   bool
}

func (o *guestOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data = append(o.data, p...)
	if excess := len(o.data) - guestMaxOutput; excess > 0 {
		o.data = o.data[excess:] // the end holds the exit code
	}
	o.changed.Broadcast()
	return len(p), nil
}

func (o *guestOutput) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.changed.Broadcast()
}

func (o *guestOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.data)
}

func (o *guestOutput) await(text string) bool {
	return o.awaitThat(func(data []byte) bool { return bytes.Contains(data, []byte(text)) })
}

// awaitThat waits until what was written so far satisfies a condition; false where the guest ends before.
func (o *guestOutput) awaitThat(holds func(data []byte) bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if holds(o.data) {
			return true
		}
		if o.ended {
			return false
		}
		o.changed.Wait()
	}
}

// splitExit separates the script's output from the line that init wrote after it.
func splitExit(text string) (output string, code int, ok bool) {
	at := strings.LastIndex(text, "\n"+guestExit)
	if at < 0 {
		return text, 0, false
	}
	code, err := strconv.Atoi(strings.TrimSuffix(text[at+1+len(guestExit):], "\n"))
	if err != nil {
		return text, 0, false
	}
	return text[:at], code, true
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// lockFolder keeps other processes out of the cache until unlock is called.
func lockFolder(folder string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { f.Close() }, nil
}
