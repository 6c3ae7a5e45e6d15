package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"culvert/config"
)

const (
	resolvconfTime = 30 * time.Second
	interfaceOrder = "/etc/resolvconf/interface-order"
)

// applyDNS registers a tunnel's name servers with resolvconf(8), as wg-quick does, and says how to take that back. Where
// resolvconf is missing it does nothing and returns a remark.
func applyDNS(look func(program string) (path string, err error), ifname string, dns config.DNS) (remove func() error, remark string, err error) {
	if len(dns.Servers) == 0 && len(dns.Search) == 0 {
		return nil, "", nil
	}
	program, err := look("resolvconf")
	if err != nil {
		return nil, "DNS is left alone: there is no resolvconf program on this system (Debian: apt install openresolv)", nil
	}
	name := resolvconfPrefix(interfaceOrder) + ifname
	var in bytes.Buffer
	for _, a := range dns.Servers {
		fmt.Fprintf(&in, "nameserver %s\n", a)
	}
	if len(dns.Search) > 0 {
		fmt.Fprintf(&in, "search %s\n", strings.Join(dns.Search, " "))
	}
	if err := runResolvconf(program, in.Bytes(), "-a", name, "-m", "0", "-x"); err != nil {
		return nil, "", err
	}
	return func() error { return runResolvconf(program, nil, "-d", name, "-f") }, "", nil
}

func runResolvconf(program string, in []byte, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), resolvconfTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("resolvconf %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

var orderLine = regexp.MustCompile(`^([A-Za-z0-9-]+)\*$`)

// resolvconfPrefix is what to put before the interface's name for it to rank first: Debian's resolvconf orders by the
// patterns of this file.
func resolvconfPrefix(file string) string {
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
