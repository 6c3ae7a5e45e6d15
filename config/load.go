package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"culvert/setup/spec"
)

// Load reads and checks the configuration file at path: a wg-quick file where its name ends in .conf, YAML where it
// ends in .yaml or .yml. An error is always [Errors]; where the file could not be opened its only entry wraps the
// system's error (errors.Is with fs.ErrNotExist works).
//
// Key files must be regular files, no symlinks, owned by the effective user or root, without any access for others.
// So must be a wg-quick file with keys in it, except that the file itself may be reached through a symlink. A file with
// hooks, which run as root, with services or with devices to hand over must have such an owner and be writable by nobody else.
func Load(path string) (*File, error) {
	text, fi, p, err := readConfig(path)
	if p != nil {
		return nil, Errors{{Pos: Position{File: path}, Message: p.message, Hint: p.hint, Err: err}}
	}
	var f *File
	var r *report
	secrets := false
	if strings.EqualFold(filepath.Ext(path), ".conf") {
		f, r, secrets = parseWGQuick(path, text)
	} else {
		f, r = parseYAML(path, text, readSecret)
	}
	for _, p := range exposed(f, fi, secrets) {
		r.failWith(Position{File: path}, p, nil)
	}
	errs, warnings := r.finish()
	if len(errs) > 0 {
		return nil, errs
	}
	f.Warnings = warnings
	if f.Format == FormatWGQuick {
		f.linkTunnels()
	}
	return f, nil
}

// readConfig reads a configuration file of at most MaxFileSize bytes and examines it while it is open.
func readConfig(path string) ([]byte, fs.FileInfo, *problem, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".conf", ".yaml", ".yml":
	default:
		return nil, nil, wrong("name it NAME.yaml, or NAME.conf for wg-quick's format",
			"the file's name does not tell its format"), nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		hint := ""
		if errors.Is(err, fs.ErrPermission) {
			hint = "run as root, or as the file's owner"
		}
		return nil, nil, wrong(hint, "the file cannot be opened: %v", cause(err)), err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, wrong("", "the file cannot be examined: %v", cause(err)), err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, wrong("name a plain file", "this is %s", kind(fi.Mode())), nil
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, nil, wrong("", "the file cannot be read: %v", cause(err)), err
	}
	if len(text) > MaxFileSize {
		return nil, nil, wrong("split it into several instances", "the file is larger than %d bytes", MaxFileSize), nil
	}
	return text, fi, nil, nil
}

// hooked reports whether a file holds commands.
func hooked(f *File) bool {
	if len(f.On) > 0 {
		return true
	}
	for _, t := range f.Tunnels {
		if len(t.Hooks.PreUp)+len(t.Hooks.PostUp)+len(t.Hooks.PreDown)+len(t.Hooks.PostDown) > 0 {
			return true
		}
	}
	return false
}

// startsSomething reports whether a file has programs run with arguments of its own, or sockets and files made at paths of its own.
func startsSomething(f *File) bool {
	return len(f.Setup.Services) > 0 || f.Monitor.Metrics.Socket != "" || f.Monitor.Page.Socket != "" || slices.ContainsFunc(f.Setup.Links, func(l spec.Link) bool { return l.Handover != nil })
}

// exposed tells who else can read the secrets in a file or change the commands in it.
func exposed(f *File, fi fs.FileInfo, secrets bool) []*problem {
	if secrets {
		if p := ownedPrivately(fi, "the file", f.Path); p != nil {
			return []*problem{p}
		}
		return nil
	}
	what := "commands"
	if !hooked(f) {
		if !startsSomething(f) {
			return nil
		}
		what = "services and sockets"
	}
	if p := ownedSafely(fi, "the file", f.Path); p != nil {
		return []*problem{p}
	}
	if perm := fi.Mode().Perm(); perm&0o022 != 0 {
		return []*problem{wrong("run: chmod go-w "+shellWord(f.Path),
			"the file has mode %04o, so others than its owner can change the %s in it", perm, what)}
	}
	return nil
}
