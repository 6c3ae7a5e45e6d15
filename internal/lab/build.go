package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// builds holds the programs built so far by this process.
var builds struct {
	sync.Mutex
	dir   string
	once  map[string]func() (string, error)
	users int // the folder goes with the last one
}

func holdBuilds() error {
	builds.Lock()
	defer builds.Unlock()
	if builds.users == 0 {
		dir, err := os.MkdirTemp("", "culvert-lab-")
		if err != nil {
			return err
		}
		builds.dir, builds.once = dir, map[string]func() (string, error){}
	}
	builds.users++
	return nil
}

func releaseBuilds() {
	builds.Lock()
	defer builds.Unlock()
	if builds.users--; builds.users == 0 {
		os.RemoveAll(builds.dir)
	}
}

func buildOf(pkg string) func() (string, error) {
	builds.Lock()
	defer builds.Unlock()
	build := builds.once[pkg]
	if build == nil {
		dir := builds.dir
		build = sync.OnceValues(func() (string, error) { return buildIn(dir, pkg) })
		builds.once[pkg] = build
	}
	return build
}

// Main is for a TestMain of packages whose tests build programs: func TestMain(m *testing.M) { lab.Main(m) }. It runs
// the tests, removes what Build built, and exits.
func Main(m *testing.M) {
	if err := holdBuilds(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	releaseBuilds()
	os.Exit(code)
}

// Build builds a main package of this module, or of one it depends on, without cgo, and returns the program's path.
// Each package is built once and removed after the last test that uses Build, or at the end of [Main] where the
// test package has it.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	NeedProgram(t, "go")
	if err := holdBuilds(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(releaseBuilds)
	path, err := buildOf(pkg)()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func buildIn(dir, pkg string) (string, error) {
	dir, err := os.MkdirTemp(dir, "")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// BuildWireGuardGo builds the wireguard-go daemon this module depends on for its tests.
func BuildWireGuardGo(t testing.TB) string {
	t.Helper()
	return Build(t, "golang.zx2c4.com/wireguard")
}
