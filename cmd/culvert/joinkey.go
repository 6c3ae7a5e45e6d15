package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"culvert/crypto"
	"culvert/crypto/enrolment"
	"culvert/server"
)

// joinKey is the key of a machine that joins. From before the server is asked until it is known what it said, a note beside the key's
// file, NAME.joining, says by which invitation the key is to be taken: where the answer is lost, or the program is killed, the next
// join by that invitation has the server take the same key, which it does though the invitation is used up.
type joinKey struct {
	private    crypto.PrivateKey
	path, note string
	again      bool // it was there, from a join whose answer is not known
}

// makeJoinKey makes a key and its files in a folder, or takes what an earlier join by the same invitation has left.
func makeJoinKey(dir, name string, link *server.Link) (*joinKey, error) {
	end, psk, err := enrolment.Derive(link.Secret, link.ServerKey)
	if err != nil {
		return nil, err
	}
	invitation := end.Public()
	end.Zero()
	psk.Zero()
	k := &joinKey{path: filepath.Join(dir, name+".key"), note: filepath.Join(dir, name+".joining")}
	if _, err := os.Lstat(k.path); err == nil {
		return k, k.takeUp(name, invitation)
	}
	if k.private, err = crypto.GeneratePrivateKey(); err != nil {
		return nil, err
	}
	// A note without its key is of a join that was ended before it asked.
	if err := os.Remove(k.note); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, permissionHint(err)
	}
	if err := writeNew(k.note, []byte(k.noteText(invitation))); err != nil {
		return nil, permissionHint(err)
	}
	if err := writeNew(k.path, []byte(k.private.Base64()+"\n")); err != nil {
		return nil, errors.Join(permissionHint(err), os.Remove(k.note))
	}
	return k, nil
}

// noteText has public keys alone. That of the invitation's end tells nothing of the secret that it is derived from.
func (k *joinKey) noteText(invitation crypto.PublicKey) string {
	return invitation.Base64() + " " + k.private.Public().Base64() + "\n"
}

// takeUp reads the key that is there, if it was left by a join by the same invitation.
func (k *joinKey) takeUp(name string, invitation crypto.PublicKey) error {
	note, err := readPrivate(k.note)
	if errors.Is(err, fs.ErrNotExist) {
		return thereAlready(k.path, name)
	}
	text, keyErr := readPrivate(k.path)
	if err := errors.Join(err, keyErr); err != nil {
		return permissionHint(err)
	}
	defer clear(text)
	if k.private, err = crypto.ParsePrivateKey(strings.TrimSpace(string(text))); err != nil {
		return fmt.Errorf("%s is there already, and holds no key", k.path)
	}
	if string(note) != k.noteText(invitation) {
		k.private.Zero()
		return hint(fmt.Errorf("%s is there already, of a join by another invitation whose answer is not known", k.path),
			"join by that one, or choose another name with --name, or remove the file and %s if its server has not taken the key", k.note)
	}
	k.again = true
	return nil
}

// readPrivate reads a file of at most a few lines that is nobody else's business, and follows no link to it.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner, ok := fi.Sys().(*syscall.Stat_t)
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o077 != 0 || !ok || owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s is not a file of this user or root that nobody else can read", path)
	}
	const most = 256
	return io.ReadAll(io.LimitReader(f, most))
}

// taken ends the joining: the server has the key.
func (k *joinKey) taken() error { return os.Remove(k.note) }

// remove removes the key, which no server has.
func (k *joinKey) remove() error { return errors.Join(os.Remove(k.path), os.Remove(k.note)) }
