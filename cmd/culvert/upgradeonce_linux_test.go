package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// What is done once is not done again by an upgrade: commands run at the start and at the end, with the nice value that the first daemon was
// started with, and what a peer uses of its quota is counted once.
func TestUpgradeDoesNothingTwice(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	said := filepath.Join(a.dir, "said")
	hook := func(name string) string { return fmt.Sprintf("%s: [\"echo %s $(nice) >> %s\"]", name, name, said) }
	a.write("    hooks: {" + strings.Join([]string{hook("pre_up"), hook("post_up"), hook("pre_down"), hook("post_down")}, ", ") + "}\n" +
		accessA(b, "quota: {bytes: 1TB, every: total}"))
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	used := func() uint64 {
		t.Helper()
		q := a.tunnel().Peers[0].Access.Quota
		if q == nil {
			t.Fatal("no quota")
		}
		return q.Used
	}
	own := func() int {
		t.Helper()
		nice, err := niceOf(a.pid())
		if err != nil {
			t.Fatal(err)
		}
		return nice
	}
	nice, before := own(), uint64(0)
	for range 2 {
		a.host.Shell("ping", "-q", "-c", "20", "-i", "0.01", "-s", "1000", "10.20.0.2")
		before = used()
		a.upgraded("site")
		if now := used(); now < before || now > before+before/2 {
			t.Errorf("%d bytes of the quota are used, %d before the upgrade", now, before)
		}
		if now := own(); now != nice {
			t.Errorf("nice %d, and %d before the upgrade", now, nice)
		}
	}
	a.must("down", "site")
	started := strings.TrimSpace(a.host.Shell("nice"))
	want := fmt.Sprintf("pre_up %[1]s\npost_up %[1]s\npre_down %[1]s\npost_down %[1]s\n", started)
	if got := read(t, said); got != want {
		t.Errorf("commands have said\n%s, want\n%s", got, want)
	}
}

// A link that leads to another program now is followed. What runs in the foreground of a shell is not upgraded, nor is what wg configures.
func TestUpgradeFollowsALink(t *testing.T) {
	t.Parallel()
	s := newSite(t, "link")
	s.write("    addresses: [10.77.0.1/24]\n")
	exe := lab.Build(t, "culvert/cmd/culvert") // this test's own changes its name
	dir := t.TempDir()
	link := filepath.Join(dir, "culvert")
	lead := func(to string) {
		t.Helper()
		path := filepath.Join(dir, to)
		for _, err := range []error{exec.Command("cp", exe, path).Run(), os.Symlink(path, link+".new"), os.Rename(link+".new", link)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	linked := func(args ...string) *exec.Cmd {
		cmd := s.command(args...)
		cmd.Path, cmd.Args[0] = link, link
		return cmd
	}
	runs := func(want string) {
		t.Helper()
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.pid())); err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%s runs, not %s: %v", got, want, err)
		}
	}
	lead("one")
	if out, code := s.finish(linked("up", s.file)); code != 0 {
		t.Fatal(out)
	}
	runs("one")
	lead("two")
	s.upgraded("site")
	runs("two")
	lead("three")
	s.upgraded("site")
	runs("three")
	s.must("down", "site")

	cmd, log := s.foreground()
	s.refused(exitFailure, "takes its end for the end of the instance", "upgrade", "site")
	s.must("down", "site")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	s.must("wg", "wg7")
	s.refused(exitFailure, "wg7 is an interface for wg", "upgrade", "wg7")
	s.must("down", "wg7")
	if err := os.WriteFile(s.file, []byte("version: 1\nlinks:\n  br0: {type: bridge}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must("apply", s.file, "--confirm", "60s")
	s.refused(exitFailure, "a change that waits to be confirmed", "upgrade", "site")
	s.must("upgrade", "--all")
	s.must("down", "site")
	if s.host.HasLink("br0") {
		lab.Eventually(t, patience, "it is undone", func() bool { return !s.host.HasLink("br0") })
	}
}
