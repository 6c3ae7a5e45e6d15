package culvert_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "culvert"

// mayImport says which areas of the module each area may import; its own packages it always may. An area is a folder
// with all below it that is not an area itself.
var mayImport = map[string][]string{
	"":    {},
	"cmd": {"config", "confine", "control", "server", "setup", "setup/spec", "tunnel", "transport", "crypto", "tunnel/device", "succession", "privatesocket"},
	// A file is read into the types of setup/spec at once: they are what the file's schema says, without I/O and without a kernel,
	// and a second set of them in config would have to be kept equal by hand.
	"config":        {"crypto", "setup/spec"},
	"control":       {"crypto", "privatesocket"}, // what a running instance is asked: other programs import it as well
	"tunnel":        {"crypto", "transport", "tunnel/device", "privatesocket"},
	"tunnel/device": {"succession"},
	"transport":     {"succession"},
	"crypto":        {},
	// Landlock and seccomp are system calls about the whole process, no part of any of the areas that talk to the kernel about the network.
	"confine":    {},
	"succession": {}, // descriptors and secrets that pass from a process to another: what has them open knows of it, and it of nothing
	// Sockets that any area serves at: one way to make them, which another system's umask has to be changed for by one at a time.
	"privatesocket": {},
	"server":        {"crypto"},
	"setup":         {"setup/spec", "privatesocket"},
	"setup/spec":    {},
	"dist":          {}, // makes packages of what the program says and what files say
	// What exists for tests alone, and for measuring, may use what it tests.
	"internal": {"cmd", "config", "control", "setup", "setup/spec", "tunnel", "tunnel/device", "transport", "crypto"},
	"bench":    {"cmd", "config", "control", "setup", "setup/spec", "tunnel", "tunnel/device", "transport", "crypto", "internal"},
}

// kernelPackages talk to the Linux kernel.
var kernelPackages = []string{
	"golang.org/x/sys/unix", "github.com/vishvananda/netlink", "github.com/vishvananda/netns",
	"github.com/google/nftables", "github.com/mdlayher/netlink",
}

// kernelAreas may do so, in files of Linux.
var kernelAreas = []string{"transport", "tunnel/device", "setup", "internal", "confine", "succession"}

// clockFiles may read the clock: a file, or a folder with all below it. Everything else is handed the time.
var clockFiles = []string{"tunnel/clock.go", "transport/transporttest/", "cmd/", "control/", "internal/", "bench/"}

// badNames are package names that say nothing of what is inside.
var badNames = []string{"manager", "handler", "handlers", "helper", "helpers", "util", "utils", "common", "misc"}

// source is one Go file. Its folder is relative to the module's root, "" for the root itself.
type source struct {
	folder, name string
	*ast.File
}

func (s *source) path() string { return path.Join(s.folder, s.name) }

func (s *source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

func (s *source) isLinux() bool {
	return strings.HasSuffix(s.name, "_linux.go") || strings.HasSuffix(s.name, "_linux_test.go")
}

// area returns the area a folder belongs to; false where there is none.
func area(folder string) (string, bool) {
	for a := folder; ; a = path.Dir(a) {
		if a == "." {
			a = ""
		}
		if _, ok := mayImport[a]; ok && (a != "" || folder == "") {
			return a, true
		}
		if a == "" {
			return "", false
		}
	}
}

// isTestSupport reports whether a folder's package is there for tests only.
func isTestSupport(folder string) bool {
	return strings.HasPrefix(folder, "internal/") || strings.HasSuffix(folder, "test")
}

func under(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

// violations returns what a file does against the rules, and what to do instead.
func violations(s *source) (list []string) {
	own, ok := area(s.folder)
	if !ok {
		return []string{fmt.Sprintf("%s: folder %q is in no area: say in mayImport (imports_test.go) and in the design what it may import",
			s.path(), s.folder)}
	}
	say := func(format string, args ...any) { list = append(list, s.path()+": "+fmt.Sprintf(format, args...)) }
	if name := strings.TrimSuffix(s.Name.Name, "_test"); slices.Contains(badNames, name) {
		say("package name %q says nothing of what is inside: name the package after its concept", name)
	}
	for _, spec := range s.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			say("import %s: %v", spec.Path.Value, err)
			continue
		}
		switch {
		case imported == "C":
			say("imports C: the program is built without cgo, use a system call instead")
		case under(imported, module):
			list = append(list, importViolations(s, own, strings.TrimPrefix(strings.TrimPrefix(imported, module), "/"))...)
		case slices.ContainsFunc(kernelPackages, func(p string) bool { return under(imported, p) }):
			if !slices.Contains(kernelAreas, own) {
				say("imports %s, which only %s may: put what is needed there, behind a function that names its purpose",
					imported, strings.Join(kernelAreas, ", "))
			} else if !s.isLinux() {
				say("imports %s, which only files of Linux may: move it to a file called *_linux.go or *_linux_test.go", imported)
			}
		}
	}
	if !s.isTest() && !slices.ContainsFunc(clockFiles, func(c string) bool {
		return s.path() == c || strings.HasSuffix(c, "/") && strings.HasPrefix(s.path(), c)
	}) {
		for _, call := range clockReadings(s.File) {
			say("reads the clock (time.%s): take the time as an argument; only %s may read it", call, strings.Join(clockFiles, ", "))
		}
	}
	return list
}

func importViolations(s *source, own, folder string) (list []string) {
	theirs, ok := area(folder)
	if isTestSupport(folder) && (s.isTest() || isTestSupport(s.folder) || own == "bench") {
		return nil
	}
	if isTestSupport(folder) {
		return []string{fmt.Sprintf("%s: imports %s/%s, which is for tests only: use it in *_test.go", s.path(), module, folder)}
	}
	if !ok || theirs == own || slices.Contains(mayImport[own], theirs) {
		return nil
	}
	allowed := "no other area"
	if may := mayImport[own]; len(may) > 0 {
		allowed = "only " + strings.Join(may, ", ")
	}
	return []string{fmt.Sprintf("%s: imports %s/%s, but %q may import %s: hand over what is needed as a value or a function, or let cmd join the two",
		s.path(), module, folder, own, allowed)}
}

// clockReadings returns the functions of package time used in the file that read the clock.
func clockReadings(f *ast.File) (names []string) {
	local := "time"
	for _, spec := range f.Imports {
		if spec.Path.Value == `"time"` && spec.Name != nil {
			local = spec.Name.Name
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if ok && pkg.Name == local && slices.Contains([]string{"Now", "Since", "Until"}, sel.Sel.Name) {
			names = append(names, sel.Sel.Name)
		}
		return true
	})
	return names
}

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir string
	Standard        bool
	CgoFiles        []string
}

func goList(t *testing.T, args ...string) (pkgs []listed) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Standard,CgoFiles"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// TestImports reads every Go file of every package, whatever its build constraints.
func TestImports(t *testing.T) {
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range goList(t, "./...") {
		folder, err := filepath.Rel(root, pkg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if folder = filepath.ToSlash(folder); folder == "." {
			folder = ""
		}
		files, err := filepath.Glob(filepath.Join(pkg.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, v := range violations(&source{folder, filepath.Base(file), parsed}) {
				t.Error(v)
			}
		}
	}
}

// TestProgramHasNoCgo looks at everything the program is linked from; the standard library does without cgo when it is
// switched off.
func TestProgramHasNoCgo(t *testing.T) {
	for _, pkg := range goList(t, "-deps", "./cmd/culvert") {
		if !pkg.Standard && len(pkg.CgoFiles) > 0 {
			t.Errorf("the program depends on %s, which needs cgo (%v): use another library", pkg.ImportPath, pkg.CgoFiles)
		}
	}
}

// TestRulesBite gives the rules files that break them.
func TestRulesBite(t *testing.T) {
	for src, want := range map[string]map[string]string{ // source -> file -> part of the message, "" where allowed
		`package p; import "culvert/tunnel"`: {
			"crypto/a.go": `"crypto" may import no other area`, "config/a.go": "may import only crypto, setup/spec", "transport/a_test.go": "may import only succession",
			"tunnel/device/a.go": "may import only succession", "cmd/culvert/a.go": "", "tunnel/uapi/a.go": "", "internal/interop/a_test.go": "",
		},
		`package p; import "culvert/setup"`:         {"tunnel/a.go": "may import only", "cmd/culvert/a.go": "", "internal/lab/a.go": ""},
		`package p; import "culvert/setup/spec"`:    {"config/a.go": "", "setup/plan/a.go": "", "tunnel/a.go": "may import only"},
		`package p; import "culvert/setup/plan"`:    {"config/a.go": "may import only", "setup/spec/a.go": "no other area"},
		`package p; import "culvert/crypto/noise"`:  {"crypto/a.go": "", "tunnel/a.go": "", "setup/a.go": "may import only setup/spec"},
		`package p; import "culvert/tunnel/device"`: {"tunnel/a.go": "", "transport/a.go": "may import only succession"},
		`package p; import "culvert/internal/lab"`: {"setup/a.go": "for tests only", "setup/a_linux_test.go": "", "bench/a.go": "",
			"cmd/culvert/a.go": "for tests only"},
		`package p; import "culvert/transport/transporttest"`: {"tunnel/a.go": "for tests only", "tunnel/a_test.go": "",
			"transport/a.go": "for tests only"},
		`package p; import "culvert/transport"`: {"transport/transporttest/a.go": "", "newfolder/a.go": "in no area"},
		`package p; import "golang.org/x/sys/unix"`: {"transport/a.go": "only files of Linux", "transport/a_linux.go": "",
			"tunnel/a_linux.go": "which only transport", "tunnel/device/a_linux_test.go": "", "cmd/culvert/a_linux.go": "which only transport"},
		`package p; import "github.com/vishvananda/netlink/nl"`: {"setup/a_linux.go": "", "config/a_linux.go": "which only"},
		`package p; import "C"`:                                 {"cmd/culvert/a.go": "without cgo"},
		`package p; import "time"; var x = time.Now()`:          {"tunnel/a.go": "time.Now", "tunnel/clock.go": "", "tunnel/a_test.go": "", "cmd/culvert/a.go": ""},
		`package p; import t "time"; var x = t.Since`:           {"crypto/a.go": "time.Since", "transport/transporttest/a.go": ""},
		`package p; import "time"; var x = time.Until(y)`:       {"tunnel/device/a.go": "time.Until"},
		`package p; import "time"; var x = time.After(1)`:       {"tunnel/a.go": ""},
		`package utils`:        {"setup/utils/a.go": "says nothing"},
		`package manager_test`: {"tunnel/a_test.go": "says nothing"},
		`package culvert`:      {"doc.go": ""},
	} {
		parsed, err := parser.ParseFile(token.NewFileSet(), "", src, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range slices.Sorted(maps.Keys(want)) {
			folder := strings.TrimSuffix(path.Dir(file), ".")
			got := strings.Join(violations(&source{folder, path.Base(file), parsed}), "\n")
			if part := want[file]; (part == "") != (got == "") || !strings.Contains(got, part) {
				t.Errorf("%s in %s: %q, want %q", src, file, got, part)
			}
		}
	}
}
