package service

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"culvert/setup"
	"culvert/setup/model"
	"golang.org/x/sys/unix"
)

func newMark() string {
	var b [markSize]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// service is one supervised program: its record, its files, what it says.
type service struct {
	store  store
	record record // its process is changed by launch, under the runner's order
	files  files
	output *output
	lines  *lines
}

// launch starts the program and writes down which process it is.
func (s *service) launch() (process, error) {
	name := string(s.record.Fields["program"])
	path, err := findProgram(name)
	if err != nil {
		return nil, err
	}
	files := s.files
	if programs[name].hasControl {
		files.config = files.adapted
	}
	args, err := command(s.record.Fields, files, unprivileged())
	if err != nil {
		return nil, err
	}
	// A pid file of an earlier run would keep the program from starting where another process has the number by now.
	if err := os.Remove(s.files.pid); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out, err := openFIFO(s.files.output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", markVariable + "=" + s.record.Mark}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	netns := string(s.record.Fields["netns"])
	if err := setup.StartIn(setup.NamespacePath(netns), s.record.Inode, func() error { return s.prepare(netns) }, cmd); err != nil {
		return nil, err
	}
	c, err := newChild(cmd)
	if err != nil {
		return nil, err
	}
	s.record.PID, s.record.Started = c.pid(), c.started()
	if err := s.store.write(&s.record); err != nil {
		err = errors.Join(err, c.kill())
		<-c.ended()
		return nil, err
	}
	return c, nil
}

// prepare is what the program inherits from the thread that starts it.
func (s *service) prepare(netns string) error {
	unix.Umask(0o077)
	if !programs[string(s.record.Fields["program"])].hasControl {
		return nil
	}
	if err := os.MkdirAll(teamdFolder, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(teamdFolder, 0o755); err != nil { // whatever the umask
		return err
	}
	if netns != "" {
		if err := s.mountOwn(); err != nil {
			return err
		}
	}
	return s.keepAddress()
}

// mountOwn gives teamd a folder of its own for its socket: teams of one name in two namespaces would have one. That of a team in culvert's
// own namespace is where teamdctl looks.
func (s *service) mountOwn() error {
	private := filepath.Join(filepath.Dir(s.files.record), "run")
	if err := os.Mkdir(private, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	// Unmounting elsewhere, as of a namespace that is deleted, must still come through to here.
	if err := unix.Mount("", "/", "none", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("detach mounts: %w", err)
	}
	if err := unix.Mount(private, teamdFolder, "none", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", teamdFolder, err)
	}
	// It shows the devices of the namespace that it is mounted in. It may be this one's already (EBUSY); where it is refused, as in containers,
	// addresses are not kept.
	err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}

// keepAddress has teamd leave the team the MAC address that it was given, by a file, by the way back to how it was, or by an earlier
// teamd. One that is not told so gives it that of the first port it sees, whichever that is.
func (s *service) keepAddress() error {
	config := s.record.Fields["config"]
	read := func(file string) string {
		text, _ := os.ReadFile(filepath.Join("/sys/class/net", s.device(), file))
		return strings.TrimSpace(string(text))
	}
	link, err := net.InterfaceByName(s.device())
	if err != nil {
		return err
	}
	const given = "3" // NET_ADDR_SET: not the random one that it was made with
	// /sys may show another namespace's devices, one of the same name among them.
	if address := link.HardwareAddr.String(); read("address") == address && read("addr_assign_type") == given {
		if config, err = teamdKeeping(config, address); err != nil {
			return err
		}
	}
	return write(s.files.adapted, []byte(config))
}

// isReady asks whether the program does its work.
func (s *service) isReady(p process) bool {
	if programs[string(s.record.Fields["program"])].hasControl {
		c, err := net.Dial("unixpacket", controlSocket(p.pid(), s.device()))
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	text, err := os.ReadFile(s.files.pid)
	return err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(p.pid())
}

func (s *service) device() string { return model.Ref(s.record.Fields["link"]).Name() }

// sweep ends what is left of a program that has ended.
func (s *service) sweep() error { return sweepService(&s.record) }

func sweepService(r *record) error {
	if err := sweep(r.Mark); err != nil {
		return err
	}
	if !programs[string(r.Fields["program"])].hasControl || r.Fields["netns"] != "" {
		return nil
	}
	// A teamd that was killed has left its socket.
	path := filepath.Join(teamdFolder, model.Ref(r.Fields["link"]).Name()+".sock")
	c, err := net.Dial("unixpacket", path)
	if err == nil {
		c.Close() // somebody else's
		return nil
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}

// unprivileged is the user for programs that can do without root.
func unprivileged() string {
	for _, name := range []string{"dnsmasq", "nobody"} {
		if _, err := user.Lookup(name); err == nil {
			return name
		}
	}
	return "root"
}
