package resolver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"culvert/setup/model"
)

// The way of the file: resolv.conf itself is replaced, and its original kept in the record.

// setFile writes the servers of r into its file, and keeps what was there where nothing is kept yet.
func (k *Kernel) setFile(r *record, link string) error {
	now, err := examine(r.Path)
	if err != nil {
		return err
	}
	fresh := r.Original == nil
	switch other := writtenFor(now.Text); {
	case fresh && other != "" && now.Target == "":
		return hinted(fmt.Errorf("%s was written for %s: only one tunnel can have it", r.Path, other),
			"culvert down "+other+" puts the original back; where that is lost, write the file anew")
	case fresh:
		r.Original = now
	case !r.isOurs(now) && !sameFile(now, r.Original):
		return errTaken(r.Path, k.o.Instance)
	}
	text := compose(k.o.Instance, link, r.Servers, r.Domains, r.Original.Text)
	if len(r.Written) > 0 && r.Written[0] != text {
		r.Written = []string{text, r.Written[0]}
	} else {
		r.Written = []string{text}
	}
	if fresh {
		if r.Made, err = missingFolders(filepath.Dir(r.Path)); err != nil {
			return err
		}
	}
	// From here on a crash leaves a record by which everything is set back.
	if err := k.store.write(r); err != nil {
		return err
	}
	err = os.MkdirAll(filepath.Dir(r.Path), 0o755)
	if err == nil {
		mode, of := fs.FileMode(0o644), (*owner)(nil)
		if !r.Original.Missing && r.Original.Target == "" {
			mode, of = fs.FileMode(r.Original.Mode), &owner{int(r.Original.User), int(r.Original.Group)}
		}
		err = overwrite(r.Path, text, mode, of)
	}
	if err != nil && fresh {
		return errors.Join(err, k.unsetFile(r))
	}
	if err != nil || len(r.Written) == 1 {
		return err
	}
	r.Written = r.Written[:1]
	return k.store.write(r)
}

// unsetFile puts the original back where the file is still as it was written. Its record stays.
func (k *Kernel) unsetFile(r *record) error {
	now, err := examine(r.Path)
	if err != nil {
		return err
	}
	o := r.Original
	switch {
	case !r.isOurs(now) || o.Missing && now.Missing:
	case o.Missing:
		if err := os.Remove(r.Path); err != nil {
			return err
		}
	case o.Target != "":
		if err := replaceLink(r.Path, o.Target); err != nil {
			return err
		}
	default:
		if err := overwrite(r.Path, o.Text, fs.FileMode(o.Mode), &owner{int(o.User), int(o.Group)}); err != nil {
			return err
		}
	}
	for _, dir := range slices.Backward(r.Made) {
		_ = os.Remove(dir) // others' files keep it
	}
	return nil
}

// lookFile tells whether the file is as it was written, as it was before, or somebody else's by now.
func (k *Kernel) lookFile(r *record) (o *model.Object, err error) {
	now, err := examine(r.Path)
	if err != nil {
		return nil, err
	}
	o = r.object()
	switch {
	case r.isOurs(now) && len(now.Text) > 0 && now.Text == r.Written[0]:
	case r.isOurs(now), sameFile(now, r.Original):
		o.Fields["servers"], o.Fields["domains"] = "", ""
	default:
		o.Taken = errTaken(r.Path, k.o.Instance).Error()
	}
	return o, nil
}

// errTaken refuses to overwrite what somebody else has written.
func errTaken(path, instance string) error {
	return fmt.Errorf("%s was changed by somebody else since culvert wrote it: culvert down %s (or destroy) leaves it as it is, "+
		"and the next start takes it for the original", path, instance)
}

func (r *record) isOurs(now *original) bool {
	return !now.Missing && now.Target == "" && slices.Contains(r.Written, now.Text)
}

func sameFile(a, b *original) bool {
	return a.Missing == b.Missing && a.Target == b.Target && (a.Target != "" || a.Text == b.Text)
}

// examine reads what there is at a path.
func examine(path string) (*original, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &original{Missing: true}, nil
	}
	if err != nil {
		return nil, err
	}
	o := &original{Mode: uint32(info.Mode().Perm())}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		o.User, o.Group = st.Uid, st.Gid
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if o.Target, err = os.Readlink(path); err != nil {
			return nil, err
		}
		o.Text, err = readFile(path)
		if errors.Is(err, fs.ErrNotExist) { // it leads nowhere
			err = nil
		}
		return o, err
	}
	o.Text, err = readFile(path)
	return o, err
}

// overwrite replaces a file. One that is mounted on its own, as in containers, cannot be replaced: its text is.
func overwrite(path, text string, mode fs.FileMode, of *owner) error {
	err := replaceFile(path, text, mode, of)
	if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EXDEV) {
		return err
	}
	f, errOpen := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if errOpen != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// replaceLink puts a symbolic link in the place of a file.
func replaceLink(path, target string) error {
	temporary := path + ".culvert-link"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return syncFolder(filepath.Dir(path))
}

// missingFolders are those that have to be made for a folder to be there, the outermost first.
func missingFolders(dir string) (list []string, err error) {
	for ; ; dir = filepath.Dir(dir) {
		_, err := os.Lstat(dir)
		if err == nil {
			slices.Reverse(list)
			return list, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		list = append(list, dir)
	}
}
