package main

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// tree is a package's content as it is put together: where it lies, and the release.
type tree struct {
	root   string // the checkout
	dir    string
	arch   string
	level  int
	rel    release
	native string // the program for this machine, whose help and completions are taken
}

// build makes the package of the checkout at root in the folder out, and returns its path.
func build(root, out, arch string, level int) (string, error) {
	if arch != "amd64" && arch != "arm64" {
		return "", fmt.Errorf("no package is made for %q: amd64 or arm64", arch)
	}
	rel, err := releaseOf(root)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "culvert-deb-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	t := &tree{root: root, dir: filepath.Join(dir, "root"), arch: arch, level: level, rel: rel}
	t.native = filepath.Join(dir, "culvert")
	for _, step := range []func() error{t.programs, t.configuration, t.manuals, t.completions, t.documents, t.controlFiles, t.settle} {
		if err := step(); err != nil {
			return "", err
		}
	}
	path := filepath.Join(out, fmt.Sprintf("culvert_%s_%s.deb", rel.version, arch))
	// One thread: the blocks of several would depend on the machine.
	_, err = t.run("dpkg-deb", "--root-owner-group", "-Zxz", fmt.Sprintf("-z%d", level), "--threads-max=1", "--build", t.dir, path)
	return path, err
}

// run runs a program in the checkout and returns what it prints.
func (t *tree) run(name string, args ...string) ([]byte, error) {
	return t.runIn(nil, name, args...)
}

func (t *tree) runIn(env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	if !filepath.IsAbs(name) && name == "go" {
		cmd.Dir = t.root
	}
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", t.rel.date.Unix()), "LC_ALL=C.UTF-8", "TZ=UTC")
	cmd.Env = append(cmd.Env, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// write makes a file of the package, with the folders above it.
func (t *tree) write(path string, mode fs.FileMode, content []byte) error {
	path = filepath.Join(t.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, mode)
}

// take makes a file, or all files of a folder, of the checkout's.
func (t *tree) take(from, to string) error {
	from = filepath.Join(t.root, from)
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return t.write(filepath.Join(to, rel), 0o644, content)
	})
}

// writeGzip makes a compressed file as policy wants it: best compression, without a name or time.
func (t *tree) writeGzip(path string, content []byte) error {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return t.write(path+".gz", 0o644, out.Bytes())
}

func (t *tree) link(path, to string) error {
	path = filepath.Join(t.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(to, path)
}

// programs builds the binary, and one for this machine.
func (t *tree) programs() error {
	compile := func(arch, to string) error {
		_, err := t.runIn([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT="},
			"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid= -X main.packaged="+t.rel.version, "-o", to, "./cmd/culvert")
		return err
	}
	program := filepath.Join(t.dir, "usr/bin/culvert")
	if err := compile(t.arch, program); err != nil {
		return err
	}
	if t.arch == runtime.GOARCH && runtime.GOOS == "linux" {
		t.native = program
	} else if _, err := t.runIn([]string{"CGO_ENABLED=0"}, "go", "build", "-o", t.native, "./cmd/culvert"); err != nil {
		return err
	}
	return t.link("usr/bin/culvert-wg", "culvert")
}

func (t *tree) configuration() error {
	for from, to := range map[string]string{
		"dist/systemd/culvert@.service": "usr/lib/systemd/system/culvert@.service",
		"dist/systemd/low-ports.conf":   "usr/share/culvert/systemd/low-ports.conf",
		"dist/systemd/wide.conf":        "usr/share/culvert/systemd/wide.conf",
		"dist/sysusers.d/culvert.conf":  "usr/lib/sysusers.d/culvert.conf",
		"dist/tmpfiles.d/culvert.conf":  "usr/lib/tmpfiles.d/culvert.conf",
		"dist/polkit-1/culvert.rules":   "usr/share/polkit-1/rules.d/culvert.rules",
		"dist/logrotate.d/culvert":      "etc/logrotate.d/culvert",
		"docs/culvert.schema.json":      "usr/share/culvert/culvert.schema.json",
		"docs/grafana":                  "usr/share/culvert/grafana",
		"LICENSE":                       "usr/share/doc/culvert/LICENSE",
		"dist/deb/copyright":            "usr/share/doc/culvert/copyright",
		"README.md":                     "usr/share/doc/culvert/README.md",
		"examples":                      "usr/share/doc/culvert/examples",
	} {
		if err := t.take(from, to); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) manuals() error {
	page, err := commandsPage(t.run, t.native, t.rel)
	if err != nil {
		return err
	}
	if err := t.writeGzip("usr/share/man/man1/culvert.1", page); err != nil {
		return err
	}
	if err := t.link("usr/share/man/man1/culvert-wg.1.gz", "culvert.1.gz"); err != nil {
		return err
	}
	page, err = filePage(t.root, t.rel)
	if err != nil {
		return err
	}
	return t.writeGzip("usr/share/man/man5/culvert.yaml.5", page)
}

func (t *tree) completions() error {
	for shell, path := range map[string]string{
		"bash": "usr/share/bash-completion/completions/culvert",
		"zsh":  "usr/share/zsh/vendor-completions/_culvert",
		"fish": "usr/share/fish/vendor_completions.d/culvert.fish",
	} {
		text, err := t.run(t.native, "completion", shell)
		if err != nil {
			return err
		}
		if err := t.write(path, 0o644, text); err != nil {
			return err
		}
	}
	return nil
}

// documents are what is read, and the licenses of everything that is linked into the program.
func (t *tree) documents() error {
	docs, err := filepath.Glob(filepath.Join(t.root, "docs/*.md"))
	if err != nil {
		return err
	}
	for _, path := range docs {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := t.writeGzip("usr/share/doc/culvert/docs/"+filepath.Base(path), content); err != nil {
			return err
		}
	}
	changelog, err := os.ReadFile(filepath.Join(t.root, "dist/deb/changelog"))
	if err != nil {
		return err
	}
	if err := t.writeGzip("usr/share/doc/culvert/changelog", changelog); err != nil {
		return err
	}
	text, err := t.licenses()
	if err != nil {
		return err
	}
	return t.writeGzip("usr/share/doc/culvert/licenses", text)
}

func (t *tree) licenses() ([]byte, error) {
	list, err := t.runIn([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + t.arch}, "go", "list", "-deps",
		"-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}", "./cmd/culvert")
	if err != nil {
		return nil, err
	}
	goroot, err := t.run("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	modules := strings.Split(strings.TrimSpace(string(list)), "\n")
	modules = append(modules, "the Go standard library "+runtime.Version()+"\t"+strings.TrimSpace(string(goroot)))
	slices.Sort(modules)
	var out bytes.Buffer
	for _, m := range slices.Compact(modules) {
		name, dir, ok := strings.Cut(m, "\t")
		if !ok {
			continue
		}
		found := false
		for _, file := range []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING", "NOTICE"} {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, err
			}
			found = true
			fmt.Fprintf(&out, "==== %s: %s\n\n%s\n\n", name, file, bytes.TrimSpace(text))
		}
		if !found {
			return nil, fmt.Errorf("%s has no license in %s", name, dir)
		}
	}
	return out.Bytes(), nil
}

// controlFiles makes what dpkg reads.
func (t *tree) controlFiles() error {
	var sums, conffiles bytes.Buffer
	var size int64 // KiB
	err := filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		size++ // a folder, a link, or what a file's last block has too much
		if !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(t.dir, path)
		if err != nil {
			return err
		}
		size += int64(len(content)) / 1024
		if strings.HasPrefix(rel, "etc/") {
			fmt.Fprintf(&conffiles, "/%s\n", rel)
		}
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(content), rel)
		return nil
	})
	if err != nil {
		return err
	}
	control, err := os.ReadFile(filepath.Join(t.root, "dist/deb/control"))
	if err != nil {
		return err
	}
	name, rest, _ := bytes.Cut(control, []byte("\n"))
	control = fmt.Appendf(nil, "%s\nVersion: %s\nArchitecture: %s\nInstalled-Size: %d\n%s", name, t.rel.version, t.arch, size, rest)
	for path, content := range map[string][]byte{"control": control, "md5sums": sums.Bytes(), "conffiles": conffiles.Bytes()} {
		if err := t.write("DEBIAN/"+path, 0o644, content); err != nil {
			return err
		}
	}
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		script, err := os.ReadFile(filepath.Join(t.root, "dist/deb/scripts", name))
		if err != nil {
			return err
		}
		if err := t.write("DEBIAN/"+name, 0o755, script); err != nil {
			return err
		}
	}
	return nil
}

// settle gives everything its mode, whatever the umask, and its time.
func (t *tree) settle() error {
	var all []string
	err := filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(all) { // folders after what is in them
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			continue // dpkg-deb sets no later time than SOURCE_DATE_EPOCH, which every link's is
		}
		mode := fs.FileMode(0o644)
		if info.IsDir() || info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
		if err := os.Chtimes(path, t.rel.date, t.rel.date); err != nil {
			return err
		}
	}
	return nil
}
