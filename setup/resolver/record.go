package resolver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"culvert/setup/model"
)

// record is what was told for one tunnel, and how to take it back. It is written before anything is changed.
type record struct {
	ID      model.ID `json:"id"`
	By      string   `json:"by"` // the way: resolved, resolvconf, file
	Servers []string `json:"servers"`
	Domains []string `json:"domains"`

	Name string `json:"name,omitempty"` // of resolvconf: what the interface is called there

	// Of a file.
	Path     string    `json:"path,omitempty"`
	Original *original `json:"original,omitempty"`
	Written  []string  `json:"written,omitempty"` // the text, and that before it while one takes the other's place
	Made     []string  `json:"made,omitempty"`    // folders made for it
}

// original is a file as it was.
type original struct {
	Missing bool   `json:"missing,omitempty"`
	Target  string `json:"target,omitempty"` // of a symbolic link
	Text    string `json:"text,omitempty"`   // of a plain file, or of what the link led to
	Mode    uint32 `json:"mode,omitempty"`
	User    uint32 `json:"user,omitempty"`
	Group   uint32 `json:"group,omitempty"`
}

// store is the folder of an instance's records.
type store struct{ dir string }

const recordPrefix, recordSuffix = "dns-", ".json"

// path is the record's of a tunnel. Names of namespaces and devices have no slash.
func (s store) path(id model.ID) string {
	return filepath.Join(s.dir, recordPrefix+strings.ReplaceAll(id.Rest(), "/", "~")+recordSuffix)
}

func parseRecord(text []byte) (*record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more behind the record")
	}
	switch {
	case r.ID.Kind() != model.KindDNS || r.ID.Rest() == "" || len(r.ID.Words()) != 1:
		return nil, fmt.Errorf("%q is no tunnel's", r.ID)
	case !slices.Contains([]string{byResolved, byResolvconf, byFile}, r.By):
		return nil, fmt.Errorf("%q is no way to tell", r.By)
	case r.By == byFile && (r.Original == nil || !filepath.IsAbs(r.Path) || len(r.Written) == 0):
		return nil, errors.New("the file's original is missing")
	}
	return &r, nil
}

// read returns all records.
func (s store) read() (list []*record, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), recordPrefix) || !strings.HasSuffix(e.Name(), recordSuffix) {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		text, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken away just now
		}
		r, errParse := parseRecord([]byte(text))
		if err = errors.Join(err, errParse); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if s.path(r.ID) != path {
			return nil, fmt.Errorf("%s is the record of %s", path, r.ID)
		}
		list = append(list, r)
	}
	return list, nil
}

// find returns a tunnel's record, nil where there is none.
func (s store) find(id model.ID) (*record, error) {
	list, err := s.read()
	for _, r := range list {
		if r.ID == id {
			return r, nil
		}
	}
	return nil, err
}

// write keeps a record, durably.
func (s store) write(r *record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(text) > maxFile {
		return errors.New("the record of the name servers would be too large")
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return replaceFile(s.path(r.ID), string(text), 0o600, nil)
}

func (s store) remove(id model.ID) error {
	err := os.Remove(s.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// readFile reads a plain file of at most maxFile bytes, through symbolic links.
func readFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no plain file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return string(text), err
}

// owner is whose a file is to be.
type owner struct{ user, group int }

// replaceFile puts a file in the place of what has the name, which may be a symbolic link: whoever opens it sees the one or the other,
// whole. A nil owner leaves it to whoever runs this.
func replaceFile(path, text string, mode fs.FileMode, of *owner) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".culvert-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = io.WriteString(f, text)
	if err == nil && of != nil {
		err = f.Chown(of.user, of.group)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
