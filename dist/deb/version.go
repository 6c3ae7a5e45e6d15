package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// release is what a package is of.
type release struct {
	version string
	date    time.Time // of all files
}

var (
	changelogHead = regexp.MustCompile(`^culvert \(([0-9][0-9A-Za-z.+~-]*)\) `)
	changelogTail = regexp.MustCompile(`(?m)^ -- .*>  (.+)$`)
)

// releaseOf tells the release of a checkout. Its changelog names the version that is next, or, at a commit that has that version's tag, the one
// that this is: a commit before it has its time and revision behind a tilde, so that it is older than the version and newer than earlier
// commits. Where there is no git, the changelog's version and date are used.
func releaseOf(root string) (r release, err error) {
	text, err := os.ReadFile(filepath.Join(root, "dist/deb/changelog"))
	if err != nil {
		return r, err
	}
	head, tail := changelogHead.FindSubmatch(text), changelogTail.FindSubmatch(text)
	if head == nil || tail == nil {
		return r, errors.New("dist/deb/changelog does not begin with an entry of Debian's form")
	}
	r.version = string(head[1])
	if r.date, err = time.Parse(time.RFC1123Z, string(tail[1])); err != nil {
		return r, fmt.Errorf("dist/deb/changelog: %w", err)
	}
	if commit, err := git(root, "log", "-1", "--format=%ct %h", "--abbrev=12"); err == nil {
		seconds, revision, _ := strings.Cut(commit, " ")
		at, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil {
			return r, fmt.Errorf("git log says %q", commit)
		}
		r.date = time.Unix(at, 0)
		tag, _ := git(root, "tag", "--points-at", "HEAD", "v"+r.version)
		changed, err := git(root, "status", "--porcelain", "--untracked-files=no")
		if err != nil {
			return r, err
		}
		if tag == "" || changed != "" {
			r.version += "~" + r.date.UTC().Format("20060102150405") + "." + revision
		}
		if changed != "" {
			r.version += "+modified"
		}
	}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		at, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return r, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		r.date = time.Unix(at, 0)
	}
	r.date = r.date.UTC()
	return r, nil
}

func git(root string, args ...string) (string, error) {
	// Only where the checkout is a repository's own: not where it is unpacked somewhere inside of another.
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		return "", err
	}
	cmd := exec.Command("git", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
