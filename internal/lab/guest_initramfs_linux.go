package lab

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	guestPort = "culvert.results" // the virtio-serial port's name
	guestExit = "guest exit "     // the last line is this and the code
)

// guestBaseModules are what every guest needs to talk to QEMU.
var guestBaseModules = []string{"virtio_pci", "virtio_console", "virtio_net", "virtio_rng"}

// guestInit is the first process: it mounts, loads, runs the script, reports and powers off. The port may be opened only once, so all
// share its descriptor.
const guestInit = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
(sleep {{LIMIT}}; poweroff -f) </dev/null >/dev/null 2>&1 &
for module in {{BASE}}; do modprobe $module; done
port=
while [ -z "$port" ]; do
	for candidate in /sys/class/virtio-ports/*; do
		[ "$(cat $candidate/name 2>/dev/null)" = {{PORT}} ] && [ -c /dev/${candidate##*/} ] && port=/dev/${candidate##*/}
	done
done
exec <>$port >&0 2>&0
code=0
for module in {{MODULES}}; do
	modprobe $module || { echo "guest: module $module does not load"; code=125; }
done
ip link set lo up
if [ $code = 0 ]; then
	cd /
	sh /script
	code=$?
fi
printf '\n{{EXIT}}%d\n' $code
poweroff -f
`

// buildInitramfs writes the guest's first and only root file system.
func (g *Guest) buildInitramfs() error {
	file, err := os.Create(g.file("initramfs"))
	if err != nil {
		return err
	}
	defer file.Close()
	buffered := bufio.NewWriterSize(file, 1<<20)
	a := newArchive(buffered)

	tree, err := openModules(g.kernel.modules)
	if err != nil {
		return err
	}
	modules, err := tree.closure(slices.Concat(guestBaseModules, g.options.Modules))
	if err != nil {
		return err
	}
	tree.addTo(a, modules)

	for _, name := range []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/etc", "/var"} {
		a.directory(name)
	}
	a.symlink("/var/run", "/run")
	a.text("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
	a.text("/etc/group", 0o644, "root:x:0:\n")
	a.text("/init", 0o755, strings.NewReplacer(
		"{{LIMIT}}", fmt.Sprint(int(g.options.Limit.Seconds())),
		"{{BASE}}", strings.Join(guestBaseModules, " "),
		"{{MODULES}}", strings.Join(g.options.Modules, " "),
		"{{PORT}}", guestPort,
		"{{EXIT}}", guestExit,
	).Replace(guestInit))
	a.text("/script", 0o755, g.options.Script)

	// The host's shell: busybox's prefers its own applets over the programs put in.
	shell, err := findProgram("sh")
	if err != nil {
		return err
	}
	a.program("/bin/sh", shell)
	taken := map[string]bool{"sh": true} // base names that are no applet of busybox here
	for _, name := range g.options.Programs {
		host, err := findProgram(name)
		if err != nil {
			return err
		}
		a.program("/usr/bin/"+name, host)
		taken[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(g.options.Files)) {
		a.program(name, g.options.Files[name])
		taken[path.Base(name)] = true
	}
	if err := addBusybox(a, taken); err != nil {
		return err
	}
	if err := a.close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// addBusybox puts in busybox and all its applets but the taken ones.
func addBusybox(a *archive, taken map[string]bool) error {
	host, err := findProgram("busybox")
	if err != nil {
		return err
	}
	libraries, err := sharedLibraries(host)
	if err != nil {
		return err
	}
	if len(libraries) != 0 {
		return fmt.Errorf("%s is not static (apt-get install busybox-static): %w", host, exec.ErrNotFound)
	}
	a.file("/bin/busybox", host)
	list, err := exec.Command(host, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("%s --list-full: %w", host, err)
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if !taken[path.Base(applet)] && !a.has(applet) {
			a.symlink(applet, "/bin/busybox")
		}
	}
	// The kernel asks for modules by this name.
	if !a.has("/sbin/modprobe") {
		a.symlink("/sbin/modprobe", "/bin/busybox")
	}
	return nil
}

// findProgram looks a program up on PATH and, for ordinary users, in the sbin folders.
func findProgram(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err == nil {
		return found, nil
	}
	for _, folder := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if found, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return found, nil
		}
	}
	return "", err
}

// mustFind is findProgram for what NewGuest has found before.
func mustFind(name string) string {
	found, err := findProgram(name)
	if err != nil {
		return name // starting it gives the reason
	}
	return found
}
