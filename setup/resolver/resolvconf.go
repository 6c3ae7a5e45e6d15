package resolver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"culvert/setup/model"
)

// The way of the program resolvconf(8), openresolv's or Debian's.

const programTime = 30 * time.Second

// orderFile is where Debian's resolvconf has patterns of interfaces' names, those first that come first.
const orderFile = "etc/resolvconf/interface-order"

// kept are the folders in which the two keep what they were told, a file for each interface.
var kept = []string{"run/resolvconf/keys", "run/resolvconf/interfaces", "run/resolvconf/interface"}

// setResolvconf tells the servers. openresolv's -x has all names asked of them, and -p only those of the domains; Debian's takes no
// notice of either.
func (k *Kernel) setResolvconf(ctx context.Context, r *record, link string) error {
	program, err := k.o.Program("resolvconf")
	if err != nil {
		return hinted(errors.New("there is no program resolvconf"), "apt install openresolv, or choose another resolver")
	}
	r.Name = interfacePrefix(filepath.Join(k.root(), orderFile)) + link
	if err := k.store.write(r); err != nil {
		return err
	}
	var in bytes.Buffer
	for _, s := range r.Servers {
		fmt.Fprintf(&in, "nameserver %s\n", s)
	}
	domains, all := routed(r.Domains)
	scope := "-p"
	if all {
		scope, domains = "-x", searched(r.Domains)
	}
	if len(domains) > 0 {
		fmt.Fprintf(&in, "search %s\n", strings.Join(domains, " "))
	}
	return runProgram(ctx, program, in.Bytes(), "-a", r.Name, "-m", "0", scope)
}

func (k *Kernel) unsetResolvconf(ctx context.Context, r *record) error {
	program, err := k.o.Program("resolvconf")
	if err != nil {
		return nil // gone, and with it what it was told
	}
	return runProgram(ctx, program, nil, "-d", r.Name, "-f")
}

// lookResolvconf tells what is still told, as far as the program's files show.
func (k *Kernel) lookResolvconf(r *record) *model.Object {
	o := r.object()
	for _, dir := range kept {
		dir = filepath.Join(k.root(), dir)
		if _, err := os.Lstat(filepath.Join(dir, r.Name)); err == nil {
			o.Fields["servers"], o.Fields["domains"] = listed(r.Servers), listed(r.Domains)
			return o
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			o.Fields["servers"], o.Fields["domains"] = "", "" // it keeps others here, or none
		}
	}
	return o
}

func runProgram(ctx context.Context, program string, in []byte, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = time.Second
	const most = 1000
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("resolvconf %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out[:min(len(out), most)]))
	}
	return nil
}

var orderLine = regexp.MustCompile(`^([A-Za-z0-9-]+)\*$`)

// interfacePrefix is what to put before the interface's name for it to rank first: Debian's resolvconf orders by the patterns of this
// file.
func interfacePrefix(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := orderLine.FindStringSubmatch(lines.Text()); m != nil {
			return m[1] + "."
		}
	}
	return ""
}

// lookProgram finds a program in PATH or where the administrator's programs lie.
func lookProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", err
}

// isResolvectl reports whether a program called resolvconf is systemd's, which only speaks to systemd-resolved.
func isResolvectl(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return err == nil && filepath.Base(real) == "resolvectl"
}
