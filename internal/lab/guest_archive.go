package lab

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// archive writes a cpio archive in the "newc" format, the one the kernel unpacks into its first root file system
// (Documentation/driver-api/early-userspace/buffer-format.rst). Directories above an entry are made as needed. The
// first error sticks and is returned by close.
type archive struct {
	w       io.Writer
	written int64
	inode   uint32
	seen    map[string]bool
	err     error
}

// File types in the mode field of an entry (cpio uses those of inode(7)).
const (
	cpioDirectory = 0o040000
	cpioFile      = 0o100000
	cpioSymlink   = 0o120000
)

func newArchive(w io.Writer) *archive {
	return &archive{w: w, seen: make(map[string]bool)}
}

// has tells whether name is in the archive already.
func (a *archive) has(name string) bool { return a.seen[path.Clean("/"+name)] }

func (a *archive) directory(name string) { a.entry(name, cpioDirectory|0o755, 0, nil) }

func (a *archive) symlink(name, target string) {
	a.entry(name, cpioSymlink|0o777, int64(len(target)), strings.NewReader(target))
}

func (a *archive) text(name string, mode uint32, content string) {
	a.entry(name, cpioFile|mode, int64(len(content)), strings.NewReader(content))
}

// file copies a file of the host, following symlinks; it is executable in the guest.
func (a *archive) file(name, host string) {
	f, err := os.Open(host)
	if err != nil {
		a.fail(err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		a.fail(err)
		return
	}
	if !info.Mode().IsRegular() {
		a.fail(fmt.Errorf("%s is no regular file", host))
		return
	}
	a.entry(name, cpioFile|0o755, info.Size(), f)
}

// program copies a program of the host with the loader and the libraries it needs, to where its loader looks for them.
func (a *archive) program(name, host string) {
	a.file(name, host)
	libraries, err := sharedLibraries(host)
	if err != nil {
		a.fail(err)
		return
	}
	for _, library := range libraries {
		if !a.has(library) {
			a.file(library, library)
		}
	}
}

// close writes the trailer and returns the first error there was.
func (a *archive) close() error {
	a.header("TRAILER!!!", 0, 0)
	a.align()
	return a.err
}

func (a *archive) entry(name string, mode uint32, size int64, content io.Reader) {
	name = path.Clean("/" + name)
	if a.seen[name] {
		if mode&cpioDirectory == 0 {
			a.fail(fmt.Errorf("%s is in the archive twice", name))
		}
		return
	}
	a.seen[name] = true
	if parent := path.Dir(name); parent != "/" {
		a.directory(parent)
	}
	if size >= 1<<32 {
		a.fail(fmt.Errorf("%s is too large for a cpio archive", name))
		return
	}
	a.header(strings.TrimPrefix(name, "/"), mode, size)
	if content != nil && a.err == nil {
		n, err := io.Copy(a.w, io.LimitReader(content, size))
		a.written += n
		if err == nil && n != size {
			err = fmt.Errorf("%s: %d bytes instead of %d", name, n, size)
		}
		a.fail(err)
	}
	a.align()
}

// header writes the 110 bytes of magic and eight-digit hexadecimal fields, and the padded name.
func (a *archive) header(name string, mode uint32, size int64) {
	a.inode++
	const (
		owner, group, links, modified       = 0, 0, 1, 0
		major, minor, deviceMajor, devMinor = 0, 0, 0, 0
		checksum                            = 0
	)
	a.print("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", a.inode, mode, owner, group, links, modified,
		size, major, minor, deviceMajor, devMinor, len(name)+1, checksum, name)
	a.align()
}

func (a *archive) align() { a.print("%s", strings.Repeat("\x00", int(-a.written&3))) }

func (a *archive) print(format string, args ...any) {
	if a.err != nil {
		return
	}
	n, err := fmt.Fprintf(a.w, format, args...)
	a.written += int64(n)
	a.fail(err)
}

func (a *archive) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// sharedLibraries returns the absolute paths of the loader and all libraries a program needs; none for a static one and
// for a script.
func sharedLibraries(program string) ([]string, error) {
	f, err := elf.Open(program)
	if _, notELF := errors.AsType[*elf.FormatError](err); notELF {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dynamic := false
	for _, segment := range f.Progs {
		dynamic = dynamic || segment.Type == elf.PT_INTERP
	}
	if !dynamic {
		return nil, nil
	}
	out, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, out)
	}
	return parseLDD(program, string(out))
}

// parseLDD reads lines like "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)" and "/lib64/ld-linux... (0x...)".
func parseLDD(program, out string) ([]string, error) {
	var libraries []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("ldd %s: %s", program, strings.TrimSpace(line))
		}
		for _, field := range strings.Fields(line) {
			if filepath.IsAbs(field) {
				libraries = append(libraries, field)
			}
		}
	}
	return libraries, nil
}
