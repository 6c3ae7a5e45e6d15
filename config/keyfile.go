package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// readSecret reads a key file: opened without following a symlink and without waiting for a pipe's writer, checked on
// the open file so that nothing can be put in its place in between, at most MaxKeyFile bytes. The problem says what to
// run; it never holds what the file holds.
func readSecret(path string) ([]byte, *problem, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, openProblem(path, err), err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, wrong("", "the key file %s cannot be examined: %v", quotePath(path), cause(err)), err
	}
	if !fi.Mode().IsRegular() {
		return nil, wrong("name a plain file that holds the key", "the key file %s is %s", quotePath(path), kind(fi.Mode())), nil
	}
	if p := ownedPrivately(fi, "the key file "+quotePath(path), path); p != nil {
		return nil, p, nil
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxKeyFile+1))
	if err != nil {
		return nil, wrong("", "the key file %s cannot be read: %v", quotePath(path), cause(err)), err
	}
	if len(text) > MaxKeyFile {
		return nil, wrong("name a file that holds one key and nothing else", "the key file %s is larger than %d bytes",
			quotePath(path), MaxKeyFile), nil
	}
	return text, nil, nil
}

// readPublic reads a file that is no secret: a certificate.
func readPublic(path string) ([]byte, *problem, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrong("", "the certificate file %s cannot be opened: %v", quotePath(path), cause(err)), err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return nil, wrong("name a plain file that holds the certificate", "the certificate file %s is not a regular file", quotePath(path)), err
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxCertificateFile+1))
	if err != nil {
		return nil, wrong("", "the certificate file %s cannot be read: %v", quotePath(path), cause(err)), err
	}
	if len(text) > MaxCertificateFile {
		return nil, wrong("name a file that holds a certificate and its chain, and nothing else", "the certificate file %s is larger than %d bytes",
			quotePath(path), MaxCertificateFile), nil
	}
	return text, nil, nil
}

func openProblem(path string, err error) *problem {
	switch {
	case errors.Is(err, fs.ErrNotExist) && isCredential(path):
		return wrong("name it in the unit: LoadCredential="+filepath.Base(path)+":/path/to/the/file (systemctl edit culvert@NAME)",
			"systemd has handed over no credential %s", quotePath(filepath.Base(path)))
	case errors.Is(err, fs.ErrNotExist):
		return wrong("make a key with: (umask 077; culvert genkey > "+shellWord(path)+"), or genpsk for a preshared key",
			"the key file %s does not exist", quotePath(path))
	case errors.Is(err, syscall.ELOOP):
		return wrong("name the file the link points to", "the key file %s is a symbolic link, which is not followed", quotePath(path))
	case errors.Is(err, fs.ErrPermission):
		return wrong("run as the file's owner, or: chown "+userName(os.Geteuid())+" "+shellWord(path),
			"the key file %s may not be read by this user", quotePath(path))
	}
	return wrong("", "the key file %s cannot be opened: %v", quotePath(path), cause(err))
}

// ownedPrivately checks that a file belongs to the effective user or root and that nobody else has any access to it.
func ownedPrivately(fi fs.FileInfo, what, path string) *problem {
	if p := ownedSafely(fi, what, path); p != nil {
		return p
	}
	others := fs.FileMode(0o077)
	if isCredential(path) {
		others = 0o037
	}
	if perm := fi.Mode().Perm(); perm&others != 0 {
		return wrong("run: chmod 600 "+shellWord(path),
			"%s has mode %04o, so others than its owner can get at the key in it", what, perm)
	}
	return nil
}

func ownedSafely(fi fs.FileInfo, what, path string) *problem {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return wrong("", "the owner of %s cannot be told", what)
	}
	if euid := os.Geteuid(); st.Uid != 0 && st.Uid != uint32(euid) {
		return wrong(fmt.Sprintf("run: chown %s %s", userName(euid), shellWord(path)),
			"%s belongs to user %d, neither to this user (%d) nor to root", what, st.Uid, euid)
	}
	return nil
}

func userName(uid int) string {
	if uid == 0 {
		return "root"
	}
	return fmt.Sprint(uid)
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "not a regular file"
}

// cause strips the path that a PathError repeats.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
