package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"culvert/setup/handover"
	"culvert/setup/model"
)

// record is what a supervisor that was killed leaves to the next one about one thing.
type record struct {
	ID     model.ID     `json:"id"`
	Fields model.Fields `json:"fields"`
	Boot   string       `json:"boot"`            // of the kernel: nothing of another boot is left
	Inode  uint64       `json:"inode"`           // of the namespace it is in
	Index  int          `json:"index,omitempty"` // of a hand-over's device

	// Of a process.
	Mark    string `json:"mark,omitempty"` // in its environment
	PID     int    `json:"pid,omitempty"`  // 0 until it is started
	Started uint64 `json:"started,omitempty"`

	// Of a hand-over.
	Socket *handover.Mark `json:"socket,omitempty"`
}

// maxRecord bounds a record, a configuration file and a request, in bytes.
const maxRecord = 1 << 20

// store is the part of the state directory that holds records. Its methods are called by whoever holds the lock, but for
// reading.
type store struct{ dir string }

const (
	processes = "process"
	handovers = "handover"
)

// folder is where the files of one thing are. Names may hold slashes.
func (s store) folder(id model.ID) (string, error) {
	kind := processes
	switch id.Kind() {
	case model.KindProcess:
	case model.KindHandover:
		kind = handovers
	default:
		return "", fmt.Errorf("a %s is nothing that is kept", id.Kind())
	}
	name := url.PathEscape(id.Rest())
	if name == "" || name == "." || name == ".." || len(name) > 255 {
		return "", fmt.Errorf("%q cannot be kept under that name", id)
	}
	return filepath.Join(s.dir, kind, name), nil
}

func filesIn(folder string) files {
	in := func(name string) string { return filepath.Join(folder, name) }
	return files{config: in("config"), adapted: in("config.adapted"), pid: in("pid"), leases: in("leases"), output: in("output"), record: in("record")}
}

// write writes a file with mode 0600 so that it is there whole or not at all, also after a crash of the machine.
func write(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new")
	}
	return err
}

func (s store) write(r *record) error {
	folder, err := s.folder(r.ID)
	if err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return write(filesIn(folder).record, data)
}

// remove takes everything of a thing away, and the folders above where they are empty.
func (s store) remove(id model.ID) error {
	folder, err := s.folder(id)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	os.Remove(filepath.Dir(folder))
	return nil
}

// read returns all records that can be read, and an error for those that cannot.
func (s store) read() (list []record, err error) {
	var errs []error
	for _, kind := range []string{processes, handovers} {
		entries, err := os.ReadDir(filepath.Join(s.dir, kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(s.dir, kind, e.Name(), "record")
			data, err := readBounded(path)
			if errors.Is(err, fs.ErrNotExist) { // a crash before it was written, or someone removes it just now
				continue
			}
			var r record
			if err == nil {
				r, err = parseRecord(data)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", path, err))
				continue
			}
			if folder, err := s.folder(r.ID); err != nil || filepath.Join(folder, "record") != path {
				errs = append(errs, fmt.Errorf("%s: it is about %q", path, r.ID))
				continue
			}
			list = append(list, r)
		}
	}
	return list, errors.Join(errs...)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2*maxRecord+1))
	if err == nil && len(data) > 2*maxRecord {
		err = errors.New("too long")
	}
	return data, err
}

// parseRecord reads what write wrote.
func parseRecord(data []byte) (r record, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, err
	}
	switch kind := r.ID.Kind(); {
	case kind != model.KindProcess && kind != model.KindHandover:
		return r, fmt.Errorf("%q is nothing that is kept", r.ID)
	case kind == model.KindProcess && len(r.Mark) != 2*markSize:
		return r, errors.New("it has no mark")
	case r.PID < 0:
		return r, fmt.Errorf("process %d", r.PID)
	}
	return r, nil
}

// markSize is the length of a mark in bytes; it is written in hexadecimal.
const markSize = 16
