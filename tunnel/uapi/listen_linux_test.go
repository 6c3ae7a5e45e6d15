package uapi

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/internal/lab"
)

// testFolder returns a folder that does not exist yet, with a path short enough for sockets.
func testFolder(t testing.TB) string {
	dir, err := os.MkdirTemp("", "uapi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "wireguard")
}

func mustListen(t testing.TB, folder, name string) *Listener {
	t.Helper()
	l, err := Listen(folder, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// stale leaves the socket of a run that was killed.
func stale(t testing.TB, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func awaitRemoved(t testing.TB, l *Listener) {
	t.Helper()
	select {
	case <-l.Removed():
	case <-time.After(time.Minute):
		t.Fatal("the removal went unseen")
	}
}

func notRemoved(t testing.TB, l *Listener) {
	t.Helper()
	select {
	case <-l.Removed():
		t.Error("reported as removed")
	default:
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestListen(t *testing.T) {
	folder := testFolder(t)
	l := mustListen(t, folder, "wg0")
	if want := filepath.Join(folder, "wg0.sock"); l.Path() != want {
		t.Errorf("path %s, want %s", l.Path(), want)
	}
	for path, want := range map[string]fs.FileMode{folder: fs.ModeDir | 0o755, l.Path(): fs.ModeSocket | 0o600} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, want %v (%v)", path, info.Mode(), want, err)
		}
	}
	f := newFakeEngine()
	serve(t, NewServer(f, Options{}), l)
	c, err := net.Dial("unix", l.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := ask(t, c, "set=1\nlisten_port=7\n\n"); got != "errno=0\n\n" {
		t.Errorf("set: %q", got)
	}
	if got := ask(t, c, "get=1\n\n"); got != "listen_port=7\nerrno=0\n\n" {
		t.Errorf("get: %q", got)
	}
	notRemoved(t, l)
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if exists(l.Path()) {
		t.Error("Close left the socket's file")
	}
	notRemoved(t, l)
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 1 || entries[0].Name() != lockName {
		t.Errorf("left behind: %v", entries)
	}
}

// TestModeFromBirth: with no umask at all the socket is the owner's alone.
func TestModeFromBirth(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	folder := testFolder(t)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	path, staging := filepath.Join(folder, "x.sock"), filepath.Join(folder, ".x.new")
	killed, err := net.ListenUnix("unix", &net.UnixAddr{Name: staging, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	killed.SetUnlinkOnClose(false)
	killed.Close()
	// What a run killed at that point leaves is no obstacle.
	l, err := listen(folder, path, staging)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	if exists(staging) {
		t.Error("the staging name stayed")
	}
}

func TestListenTakesOverStaleSocket(t *testing.T) {
	folder := testFolder(t)
	first := mustListen(t, folder, "wg0")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	stale(t, first.Path())
	l := mustListen(t, folder, "wg0")
	c, err := net.Dial("unix", l.Path())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestListenRefusesLiveSocket(t *testing.T) {
	folder := testFolder(t)
	first := mustListen(t, folder, "wg0")
	_, err := Listen(folder, "wg0")
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("got %v", err)
	}
	notRemoved(t, first)
	mustListen(t, folder, "wg1")
}

// TestListenRace: of several at once, beside a stale socket, one wins and stays.
func TestListenRace(t *testing.T) {
	folder := testFolder(t)
	mustListen(t, folder, "other")
	stale(t, filepath.Join(folder, "wg0.sock"))
	const rivals = 8
	var wg sync.WaitGroup
	listeners, errs := make([]*Listener, rivals), make([]error, rivals)
	for i := range rivals {
		wg.Go(func() { listeners[i], errs[i] = Listen(folder, "wg0") })
	}
	wg.Wait()
	won := 0
	for i, l := range listeners {
		if l == nil {
			if !errors.Is(errs[i], syscall.EADDRINUSE) {
				t.Errorf("rival %d: %v", i, errs[i])
			}
			continue
		}
		won++
		notRemoved(t, l)
		defer l.Close()
	}
	if won != 1 {
		t.Errorf("%d rivals have the socket", won)
	}
}

func TestListenRefusesOtherFiles(t *testing.T) {
	folder := testFolder(t)
	mustListen(t, folder, "real")
	for name, create := range map[string]func(path string) error{
		"file":    func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"folder":  func(path string) error { return os.Mkdir(path, 0o700) },
		"symlink": func(path string) error { return os.Symlink(filepath.Join(folder, "real.sock"), path) },
	} {
		path := filepath.Join(folder, name+".sock")
		if err := create(path); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(path)
		if _, err := Listen(folder, name); !errors.Is(err, syscall.EEXIST) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: replaced", name)
		}
	}
}

func TestListenRefusesFolder(t *testing.T) {
	good := testFolder(t)
	if err := os.MkdirAll(good, 0o755); err != nil {
		t.Fatal(err)
	}
	link := good + "-link"
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{link, link + "/"} {
		if _, err := Listen(folder, "wg0"); err == nil || !errors.Is(err, syscall.EPERM) {
			t.Errorf("%s: %v", folder, err)
		}
	}
	for _, mode := range []fs.FileMode{0o757, 0o775, 0o777 | fs.ModeSticky} {
		if err := os.Chmod(good, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(good, "wg0"); !errors.Is(err, syscall.EPERM) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	file := good + "-file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file, "wg0"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(good, 0o755), os.Chown(good, 12345, 12345)); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(good, "wg0"); !errors.Is(err, syscall.EPERM) {
			t.Errorf("another's folder: %v", err)
		}
	}
}

func TestListenRefusesNames(t *testing.T) {
	folder := testFolder(t)
	for _, name := range []string{"", ".", "..", "a/b", "../x", "a b", "a\nb", "a\x00b", "sixteen-letters-"} {
		if _, err := Listen(folder, name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := Listen("/"+strings.Repeat("x", 100), "wg0"); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("long path: %v", err)
	}
	if exists(folder) {
		t.Error("created the folder nevertheless")
	}
}

func TestRemoved(t *testing.T) {
	for name, remove := range map[string]func(path string) error{
		"deleted":        os.Remove,
		"renamed":        func(path string) error { return os.Rename(path, path+".away") },
		"folder deleted": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"replaced": func(path string) error {
			other, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".other", Net: "unix"})
			if err != nil {
				return err
			}
			t.Cleanup(func() { other.Close() })
			return os.Rename(path+".other", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := mustListen(t, testFolder(t), "wg0")
			// A change that leaves the name in place is none.
			if err := os.Chmod(l.Path(), 0o600); err != nil {
				t.Fatal(err)
			}
			notRemoved(t, l)
			if err := remove(l.Path()); err != nil {
				t.Fatal(err)
			}
			awaitRemoved(t, l)
			if err := l.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if name == "replaced" && !exists(l.Path()) {
				t.Error("Close removed another's socket")
			}
		})
	}
}

// TestRemovedWithoutInotify: where the kernel has no instance left, polling does.
func TestRemovedWithoutInotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	inotify := openInotify(path)
	if inotify == nil {
		t.Fatal("no inotify instance")
	}
	inotify.Close() // reading from it fails from now on
	w := &watch{removed: make(chan struct{}), done: make(chan struct{}), inotify: inotify}
	w.run(path, own)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.removed:
	case <-time.After(time.Minute):
		t.Error("the removal went unseen")
	}
	w.stop()
	if openInotify(path) != nil {
		t.Error("an inotify instance for a file that is not there")
	}
}

// TestHandover passes the socket to a child process, as a daemon does that goes to the background.
func TestHandover(t *testing.T) {
	if folder := os.Getenv("CULVERT_TEST_ADOPT"); folder != "" {
		adoptInChild(t, folder)
		return
	}
	folder := testFolder(t)
	parent := mustListen(t, folder, "wg0")
	waiting, err := net.Dial("unix", parent.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	f, err := parent.Handover()
	if err != nil {
		t.Fatal(err)
	}
	notRemoved(t, parent)
	child := exec.Command(os.Args[0], "-test.run=^TestHandover$")
	child.Env = append(os.Environ(), "CULVERT_TEST_ADOPT="+folder)
	child.ExtraFiles = []*os.File{f}
	var output strings.Builder
	child.Stdout, child.Stderr = &output, &output
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := parent.Close(); err != nil {
		t.Errorf("Close after Handover: %v", err)
	}
	if _, err := parent.Handover(); err == nil {
		t.Error("handed over twice")
	}
	if got := ask(t, waiting, "get=1\n\n"); got != "errno=0\n\n" {
		t.Errorf("the client that waited was answered %q", got)
	}
	if _, err := Listen(folder, "wg0"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside the child: %v", err)
	}
	if err := os.Remove(parent.Path()); err != nil {
		t.Errorf("the socket's file has gone: %v", err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("child: %v\n%s", err, output.String())
	}
}

// adoptInChild serves the inherited socket until its file is removed.
func adoptInChild(t *testing.T, folder string) {
	l, err := Adopt(os.NewFile(3, "socket"), folder, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	if l.Path() != filepath.Join(folder, "wg0.sock") {
		t.Errorf("adopted as %q", l.Path())
	}
	serve(t, NewServer(newFakeEngine(), Options{}), l)
	awaitRemoved(t, l)
}

func TestAdopt(t *testing.T) {
	folder := testFolder(t)
	open := func(path string) *os.File {
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		defer l.Close()
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	path, elsewhere := filepath.Join(folder, "wg0.sock"), filepath.Join(filepath.Dir(folder), "elsewhere")

	// One made by another program, under the name itself.
	l, err := Adopt(open(path), folder, "wg0")
	if err != nil {
		t.Fatal(err)
	}
	if l.Path() != path {
		t.Errorf("adopted as %q", l.Path())
	}
	notRemoved(t, l)
	if err := l.Close(); err != nil || exists(path) {
		t.Errorf("Close: %v, file left: %v", err, exists(path))
	}

	// One whose file has gone already.
	f := open(path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if l, err = Adopt(f, folder, "wg0"); err != nil {
		t.Fatal(err)
	}
	awaitRemoved(t, l)
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}

	// One from elsewhere, whose file is not ours to touch, nor is the one that has the name.
	mine := mustListen(t, folder, "wg0")
	if l, err = Adopt(open(elsewhere), folder, "wg0"); err != nil {
		t.Fatal(err)
	}
	serve(t, NewServer(newFakeEngine(), Options{}), l)
	c, err := net.Dial("unix", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := ask(t, c, "get=1\n\n"); got != "errno=0\n\n" {
		t.Errorf("answered %q", got)
	}
	if err := l.Close(); err != nil || !exists(elsewhere) || !exists(mine.Path()) {
		t.Errorf("Close: %v; files left: %v, %v", err, exists(elsewhere), exists(mine.Path()))
	}
	notRemoved(t, l)

	// No socket at all.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := Adopt(r, folder, "wg0"); err == nil {
		t.Error("adopted a pipe")
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		lab.Skip(t, "needs TCP on loopback: "+err.Error())
	}
	defer tcp.Close()
	tf, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(tf, folder, "wg0"); !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("a TCP socket: %v", err)
	}
}
