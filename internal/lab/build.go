package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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

// buildOnce returns what builds the program of that key, or waits for and returns what was built before. The folder is where
// all programs are.
func buildOnce(key string, in func(folder string) (string, error)) func() (string, error) {
	builds.Lock()
	defer builds.Unlock()
	build := builds.once[key]
	if build == nil {
		dir := builds.dir
		build = sync.OnceValues(func() (string, error) { return in(dir) })
		builds.once[key] = build
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
	return buildFor(t, pkg, "build")
}

// BuildTest is [Build] for the test program of a package. It has the name that the package's own program would have.
func BuildTest(t testing.TB, pkg string) string {
	t.Helper()
	return buildFor(t, pkg, "test", "-c")
}

func buildFor(t testing.TB, pkg string, command ...string) string {
	t.Helper()
	NeedProgram(t, "go")
	if err := holdBuilds(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(releaseBuilds)
	key := strings.Join(append(command, pkg), " ")
	path, err := buildOnce(key, func(dir string) (string, error) { return buildIn(dir, pkg, command...) })()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func buildIn(dir, pkg string, command ...string) (string, error) {
	dir, err := os.MkdirTemp(dir, "")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	return path, goIn("", append(command, "-o", path, pkg)...)
}

// goIn runs the go command in a folder, "" for the current one, without cgo.
func goIn(dir string, arguments ...string) error {
	cmd := exec.Command("go", arguments...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(arguments, " "), err, out)
	}
	return nil
}

// BuildAt builds main packages of a module that this one does not depend on, in the version given, and returns the path of the
// first program, with the others beside it, or what kept them from being built, such as a network that is not there. The
// module is fetched by the go command into its cache, for a module made for the moment, so that nothing of it gets into
// go.mod. As with [Build] all are built once.
func BuildAt(t testing.TB, version string, packages ...string) (string, error) {
	t.Helper()
	NeedProgram(t, "go")
	if err := holdBuilds(); err != nil {
		return "", err
	}
	t.Cleanup(releaseBuilds)
	key := strings.Join(packages, " ") + "@" + version
	return buildOnce(key, func(dir string) (string, error) { return buildAlone(dir, version, packages) })()
}

// buildAlone builds packages in a module of its own, whose go line lets any version of the language be used that there is.
func buildAlone(dir, version string, packages []string) (string, error) {
	dir, err := os.MkdirTemp(dir, "")
	if err != nil {
		return "", err
	}
	module := fmt.Sprintf("module alone\n\ngo %s\n", strings.TrimPrefix(runtime.Version(), "go"))
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(module), 0o600); err != nil {
		return "", err
	}
	get := []string{"get"}
	for _, pkg := range packages {
		get = append(get, pkg+"@"+version)
	}
	if err := goIn(dir, get...); err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(packages[0])), goIn(dir, slices.Concat([]string{"build", "-o", dir}, packages)...)
}

// BuildWireGuardGo builds the wireguard-go daemon this module depends on for its tests.
func BuildWireGuardGo(t testing.TB) string {
	t.Helper()
	return Build(t, "golang.zx2c4.com/wireguard")
}
