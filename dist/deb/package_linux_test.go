package main

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
)

// checkout copies the files of this checkout that git knows, as they are, to a folder that is no repository.
func checkout(t *testing.T, to string) {
	t.Helper()
	out, err := exec.Command("git", "-C", "../..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal("git ls-files: ", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join("../..", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed
		} else if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(to, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// command runs a program and returns what it printed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestPackage builds the package of two folders, installs, uses, upgrades, removes and purges it.
func TestPackage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program twice")
	}
	lab.NeedProgram(t, "dpkg-deb")
	lab.NeedProgram(t, "git")
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	base := t.TempDir()
	var made []string
	for _, folder := range []string{"one", "another/and/deeper"} {
		checkout(t, filepath.Join(base, folder))
		out := filepath.Join(base, "out", strconv.Itoa(len(made)))
		if err := os.MkdirAll(out, 0o700); err != nil {
			t.Fatal(err)
		}
		path, err := build(filepath.Join(base, folder), out, "amd64", 1)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, path)
	}
	t.Run("Reproducible", func(t *testing.T) {
		one, err := os.ReadFile(made[0])
		if err != nil {
			t.Fatal(err)
		}
		other, err := os.ReadFile(made[1])
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(made[0]) != filepath.Base(made[1]) || !bytes.Equal(one, other) {
			t.Errorf("%s (%d bytes) and %s (%d bytes) differ", made[0], len(one), made[1], len(other))
		}
	})
	t.Run("Content", func(t *testing.T) { testContent(t, made[0]) })
	t.Run("Manuals", func(t *testing.T) { testManuals(t, made[0]) })
	t.Run("Installed", func(t *testing.T) { testInstalled(t, made[0]) })
}

// unpack returns where the content of a package is, with its control files in DEBIAN.
func unpack(t *testing.T, deb string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "unpacked")
	command(t, "dpkg-deb", "-R", deb, dir)
	return dir
}

func testContent(t *testing.T, deb string) {
	// Names, modes and owners, as they are in the archive.
	for line := range strings.Lines(command(t, "dpkg-deb", "-c", deb)) {
		f := strings.Fields(line)
		mode, owner, date, path := f[0], f[1], f[3], f[5]
		want := map[byte]string{'d': "drwxr-xr-x", 'l': "lrwxrwxrwx", '-': "-rw-r--r--"}[mode[0]]
		if path == "./usr/bin/culvert" {
			want = "-rwxr-xr-x"
		}
		if mode != want || owner != "root/root" || date != "2023-11-14" {
			t.Errorf("%s", line)
		}
	}
	dir := unpack(t, deb)
	program, err := elf.Open(filepath.Join(dir, "usr/bin/culvert"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if libs, _ := program.ImportedLibraries(); len(libs) > 0 || slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("the program is not static: %v", libs)
	}
	for _, name := range []string{
		"usr/lib/systemd/system/culvert@.service", "usr/lib/sysusers.d/culvert.conf", "usr/lib/tmpfiles.d/culvert.conf",
		"usr/share/polkit-1/rules.d/culvert.rules",
		"usr/share/man/man1/culvert.1.gz", "usr/share/man/man5/culvert.yaml.5.gz", "usr/share/doc/culvert/copyright",
		"usr/share/doc/culvert/changelog.gz", "usr/share/doc/culvert/licenses.gz", "usr/share/doc/culvert/examples/vm-bridge.yaml",
		"usr/share/culvert/systemd/wide.conf", "usr/share/bash-completion/completions/culvert",
		"usr/share/zsh/vendor-completions/_culvert", "usr/share/fish/vendor_completions.d/culvert.fish",
	} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if conffiles, err := os.ReadFile(filepath.Join(dir, "DEBIAN/conffiles")); err != nil || string(conffiles) != "/etc/logrotate.d/culvert\n" {
		t.Errorf("conffiles: %q, %v", conffiles, err)
	}
	command(t, "bash", "-n", filepath.Join(dir, "usr/share/bash-completion/completions/culvert"))
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		command(t, "sh", "-n", filepath.Join(dir, "DEBIAN", script))
	}
}

// overstruck is how a page for a terminal has what is bold or underlined.
var overstruck = regexp.MustCompile(`.\x08`)

func testManuals(t *testing.T, deb string) {
	lab.NeedProgram(t, "mandoc")
	dir := unpack(t, deb)
	for name, words := range map[string][]string{
		"man1/culvert.1":      {"culvert status", "--dry-run", "/etc/culvert/NAME.yaml", "--wireguard"},
		"man5/culvert.yaml.5": {"private_key_file", "allowed_ips", "nsna_ping", "require_nonce"},
	} {
		path := filepath.Join(dir, "usr/share/man", name+".gz")
		out, err := exec.Command("mandoc", "-Tlint", "-Wwarning", path).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		text := command(t, "mandoc", "-Tascii", path)
		text = overstruck.ReplaceAllString(text, "")
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s has nothing of %s", name, w)
			}
		}
	}
}

// installation is a root of its own.
type installation struct {
	*testing.T
	root string
}

func (in *installation) path(p string) string { return filepath.Join(in.root, p) }

func (in *installation) dpkg(args ...string) string {
	in.Helper()
	return command(in.T, "dpkg", append([]string{"--root=" + in.root, "--force-script-chrootless", "--force-depends", "--force-confold"}, args...)...)
}

// snapshot is everything in the root but dpkg's own, by path.
func (in *installation) snapshot() map[string]string {
	in.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(in.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(in.root, path)
		switch {
		case rel == "var/lib/dpkg", rel == "var/log":
			return fs.SkipDir
		case rel == "etc/.pwd.lock", strings.HasPrefix(rel, "etc/") && strings.HasSuffix(rel, "-"): // of those who change passwd
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s := info.Sys().(*syscall.Stat_t)
		all[rel] = fmt.Sprintf("%v %d:%d", info.Mode(), s.Uid, s.Gid)
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[rel] += fmt.Sprintf(" %x", sha256.Sum256(content))
		}
		return nil
	})
	if err != nil {
		in.Fatal(err)
	}
	return all
}

// same compares two snapshots.
func (in *installation) same(got, want map[string]string) {
	in.Helper()
	for path := range got {
		if got[path] != want[path] {
			in.Errorf("%s: is %q, was %q", path, got[path], want[path])
		}
	}
	for path := range want {
		if _, ok := got[path]; !ok {
			in.Errorf("%s is gone", path)
		}
	}
}

func (in *installation) write(path string, mode fs.FileMode, content string) {
	in.Helper()
	if err := os.WriteFile(in.path(path), []byte(content), mode); err != nil {
		in.Fatal(err)
	}
}

// user returns the numbers of the service's user and group.
func (in *installation) user() (uid, gid int) {
	in.Helper()
	passwd, err := os.ReadFile(in.path("etc/passwd"))
	if err != nil {
		in.Fatal(err)
	}
	for line := range strings.Lines(string(passwd)) {
		if f := strings.Split(line, ":"); f[0] == "culvert" {
			uid, _ = strconv.Atoi(f[2])
			gid, _ = strconv.Atoi(f[3])
			return uid, gid
		}
	}
	in.Fatalf("there is no user culvert:\n%s", passwd)
	return 0, 0
}

func testInstalled(t *testing.T, deb string) {
	lab.NeedRoot(t)
	lab.NeedProgram(t, "dpkg")
	lab.NeedProgram(t, "setpriv")
	base, err := os.MkdirTemp("", "culvert-installed-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil { // for the service's user
		t.Fatal(err)
	}
	in := &installation{t, base}
	for _, folder := range []string{"etc", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/log", "run"} {
		if err := os.MkdirAll(in.path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in.write("var/lib/dpkg/status", 0o644, "")
	in.write("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
	in.write("etc/group", 0o644, "root:x:0:\n")
	in.write("etc/shadow", 0o600, "root:*:19000:0:99999:7:::\n")
	in.write("etc/gshadow", 0o600, "root:*::\n")
	before := in.snapshot()

	in.dpkg("-i", deb)
	uid, gid := in.user()
	if uid == 0 || gid == 0 {
		t.Errorf("culvert is user %d of group %d", uid, gid)
	}
	installed := in.snapshot()
	for path, want := range map[string]string{
		"etc/culvert":      fmt.Sprintf("drwxr-x--- 0:%d", gid),
		"etc/culvert/keys": "drwx------ 0:0",
	} {
		if installed[path] != want {
			t.Errorf("%s is %q, want %q", path, installed[path], want)
		}
	}
	sums, err := os.ReadFile(in.path("var/lib/dpkg/info/culvert.md5sums"))
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed[name] = true
		content, err := os.ReadFile(in.path(name))
		if got := fmt.Sprintf("%x", md5.Sum(content)); err != nil || got != sum {
			t.Errorf("%s: %v, md5 %s, listed as %s", name, err, got, sum)
		}
	}
	for path, what := range installed {
		if _, ok := before[path]; !ok && what[0] == '-' && !listed[path] {
			t.Errorf("%s is not in md5sums", path)
		}
	}
	version := strings.TrimSpace(command(t, "dpkg-deb", "-f", deb, "Version"))
	if got := command(t, in.path("usr/bin/culvert"), "version"); !strings.HasPrefix(got, "culvert "+version+",") {
		t.Errorf("the program says %q, the package is %s", got, version)
	}

	in.runAsService(uid, gid)

	// An upgrade, which has another version of the conffile: this machine's stays.
	const changed = "# changed here\n"
	in.write("etc/logrotate.d/culvert", 0o644, changed)
	dir := unpack(t, deb)
	control, err := os.ReadFile(filepath.Join(dir, "DEBIAN/control"))
	if err != nil {
		t.Fatal(err)
	}
	control = bytes.Replace(control, []byte("Version: "+version), []byte("Version: 99"), 1)
	newer := filepath.Join(t.TempDir(), "newer.deb")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "DEBIAN/control"), control, 0o644),
		os.WriteFile(filepath.Join(dir, "etc/logrotate.d/culvert"), []byte("# the package's next\n"), 0o644),
		os.Remove(filepath.Join(dir, "usr/share/doc/culvert/README.md"))); err != nil {
		t.Fatal(err)
	}
	command(t, "dpkg-deb", "-Zxz", "-z0", "--root-owner-group", "--build", dir, newer)
	mine := in.snapshot()["etc/culvert/office.yaml"]
	in.dpkg("-i", newer)
	if got := command(t, "dpkg-query", "--admindir="+in.path("var/lib/dpkg"), "-W", "-f", "${Version} ${Status}", "culvert"); got != "99 install ok installed" {
		t.Errorf("after the upgrade: %s", got)
	}
	upgraded := in.snapshot()
	if content, err := os.ReadFile(in.path("etc/logrotate.d/culvert")); err != nil || string(content) != changed {
		t.Errorf("the conffile is now %q, %v", content, err)
	}
	if upgraded["etc/culvert/office.yaml"] != mine || upgraded["etc/culvert"] != installed["etc/culvert"] {
		t.Error("the upgrade has changed /etc/culvert")
	}
	if _, ok := upgraded["usr/share/doc/culvert/README.md"]; ok {
		t.Error("what is not in the newer package is still there")
	}

	in.dpkg("-r", "culvert")
	removed := in.snapshot()
	for path := range removed {
		if strings.HasPrefix(path, "usr/") {
			t.Errorf("after the removal there is %s", path)
		}
	}
	if removed["etc/culvert/office.yaml"] != mine || removed["etc/logrotate.d/culvert"] == "" {
		t.Error("the removal has taken configuration")
	}

	// What the administrator wrote stays, and what daemons have kept goes.
	if out := in.dpkg("-P", "culvert"); !strings.Contains(out, "/etc/culvert holds files of yours, and stays") {
		t.Errorf("dpkg -P says:\n%s", out)
	}
	purged := in.snapshot()
	before2 := maps.Clone(before)
	for _, path := range []string{"etc/culvert", "etc/culvert/office.yaml", "etc/culvert/keys", "etc/culvert/keys/office"} {
		if purged[path] == "" {
			t.Errorf("%s was taken away", path)
		}
		before2[path] = purged[path]
	}
	in.same(purged, before2)

	if err := os.RemoveAll(in.path("etc/culvert")); err != nil {
		t.Fatal(err)
	}
	in.dpkg("-i", deb)
	in.dpkg("-P", "culvert")
	in.same(in.snapshot(), before)
}

// runAsService runs the installed program as the installed unit would: as its user, with its capabilities and environment, in namespaces of the network and of
// mounts that end with it.
func (in *installation) runAsService(uid, gid int) {
	in.Helper()
	unit, err := os.ReadFile(in.path("usr/lib/systemd/system/culvert@.service"))
	if err != nil {
		in.Fatal(err)
	}
	setting := func(name string) (value string) {
		for line := range strings.Lines(string(unit)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
				value = v
			}
		}
		return value
	}
	if got := setting("User"); got != "culvert" {
		in.Fatalf("the unit runs as %q", got)
	}
	if got := setting("CapabilityBoundingSet"); got != "CAP_NET_ADMIN" {
		in.Fatalf("the unit's capabilities are %q", got)
	}
	program := setting("ExecStart")
	program = strings.NewReplacer("%i", "office", "/usr/bin/", in.path("usr/bin")+"/", "/etc/culvert/", in.path("etc/culvert")+"/").Replace(program)
	// systemd makes these.
	state := in.path("var/lib/" + setting("StateDirectory"))
	runDir := in.path("run/" + setting("RuntimeDirectory"))
	credentials := in.path("run/credentials")
	for _, dir := range []string{state, runDir, credentials} {
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chown(dir, uid, gid)); err != nil {
			in.Fatal(err)
		}
	}
	env := append(os.Environ(), strings.Fields(strings.NewReplacer("%t", in.path("run"), "%S", in.path("var/lib")).Replace(setting("Environment")))...)
	key := command(in.T, in.path("usr/bin/culvert"), "genkey")
	in.write("etc/culvert/keys/office", 0o600, key)
	in.write("run/credentials/key_office", 0o400, key)
	if err := os.Chown(in.path("run/credentials/key_office"), uid, gid); err != nil {
		in.Fatal(err)
	}
	in.write("etc/culvert/office.yaml", 0o644, `version: 1
tunnels:
  office:
    listen: 51820
    private_key_file: credential:key_office
    addresses: [10.20.0.1/24]
`)
	notify := filepath.Join(runDir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		in.Fatal(err)
	}
	defer l.Close()
	if err := os.Chown(notify, uid, gid); err != nil {
		in.Fatal(err)
	}
	args := []string{
		"--reuid", strconv.Itoa(uid), "--regid", strconv.Itoa(gid), "--clear-groups", "--inh-caps", "-all,+net_admin", "--ambient-caps", "-all,+net_admin",
		"--bounding-set", "-all,+net_admin", "--no-new-privs",
	}
	// With a /dev/net/tun that everybody may open, as udev makes it and containers may not.
	const enter = `mount --make-rprivate / && mount -t tmpfs none /dev/net && mknod -m 0666 /dev/net/tun c 10 200 && exec setpriv "$@"`
	cmd := exec.Command("sh", append(append([]string{"-c", enter, "sh"}, args...), strings.Fields(program)...)...)
	cmd.Env = append(env, "NOTIFY_SOCKET="+notify, "CREDENTIALS_DIRECTORY="+credentials)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		in.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()

	l.SetReadDeadline(time.Now().Add(time.Minute))
	for buf := make([]byte, 4096); ; {
		n, err := l.Read(buf)
		if err != nil {
			cmd.Process.Kill()
			<-ended
			in.Fatalf("the daemon is not ready: %v\n%s", err, said.Bytes())
		}
		if slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
			break
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		in.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("Uid:\t%d\t%[1]d", uid), "CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			in.Errorf("the daemon has not %q:\n%s", want, status)
		}
	}
	ask := exec.Command(in.path("usr/bin/culvert"), "status", "office", "--json")
	ask.Env = env
	out, err := ask.Output()
	var shown []struct {
		Instance string
		Tunnels  []struct {
			Interface string
			Up        bool
		}
	}
	if err := errors.Join(err, json.Unmarshal(out, &shown)); err != nil || len(shown) != 1 || shown[0].Instance != "office" ||
		len(shown[0].Tunnels) != 1 || shown[0].Tunnels[0].Interface != "office" || !shown[0].Tunnels[0].Up {
		in.Errorf("culvert status: %v\n%s", err, out)
	}
	if err := os.RemoveAll(credentials); err != nil { // systemd's, again
		in.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		in.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			in.Errorf("the daemon ended with %v\n%s", err, said.Bytes())
		}
	case <-time.After(time.Minute):
		in.Fatal("the daemon does not end")
	}
}
