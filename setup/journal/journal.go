package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// Dir is where the journals of all instances are, each in a directory of its name.
const Dir = "/var/lib/culvert"

const (
	fileName = "journal"
	newName  = "journal.new"
	lockName = "lock"

	// maxFile bounds what is read. A batch of 10,000 steps takes about 4 MB.
	maxFile = 256 << 20
)

// ErrBusy is wrapped by the refusal to open a journal that another process has open.
var ErrBusy = errors.New("another process is at work on this instance")

// line is one line of the file: beside Boot and Inode one of State, Begin and Done is set, or none; the rest with Begin or by itself.
type line struct {
	Boot    string                     `json:"boot,omitempty"`  // of State, Begin and what is by itself
	Inode   uint64                     `json:"inode,omitempty"` // of the namespace culvert runs in, as Boot
	State   *State                     `json:"state,omitempty"`
	Begin   []plan.Step                `json:"begin,omitempty"`
	Done    *Done                      `json:"done,omitempty"`
	Adopt   map[model.ID]plan.Where    `json:"adopt,omitempty"`
	Inherit map[model.ID]plan.Prior    `json:"inherit,omitempty"`
	Release map[model.ID][]model.Field `json:"release,omitempty"`
	End     bool                       `json:"end,omitempty"`
}

func (j *Journal) newLine(r plan.Records) *line {
	return &line{Boot: j.boot, Inode: j.inode, Adopt: r.Adopted, Inherit: r.Inherited, Release: r.Released}
}

func (l *line) records() plan.Records {
	return plan.Records{Adopted: l.Adopt, Inherited: l.Inherit, Released: l.Release}
}

// Journal is an open journal, locked against other processes. Its methods are not to be called concurrently.
type Journal struct {
	dir     string
	lock    *os.File
	file    *os.File
	state   State
	boot    string
	inode   uint64
	ignored []string
}

// Open opens the journal in a directory, which is made where it is missing, and takes its lock. What the file holds is read; what of
// it cannot be used is ignored.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "open journal", Path: dir, Err: syscall.ENOTDIR}
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{dir: dir, lock: lock, state: newState()}
	if err := j.load(); err != nil {
		lock.Close()
		return nil, err
	}
	return j, nil
}

func takeLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	lock, err := openFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	// One that was just removed by its owner keeps nobody out.
	mine, err := lock.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(path); err == nil && !os.SameFile(mine, there) {
			err = ErrBusy
		}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return lock, nil
}

func openFile(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
}

func (j *Journal) load() error {
	f, err := openFile(filepath.Join(j.dir, fileName), os.O_RDWR|os.O_CREATE)
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("%s is a symbolic link: %w", filepath.Join(j.dir, fileName), err)
	}
	if err != nil {
		return err
	}
	good, err := j.read(f, nil)
	if err != nil {
		f.Close()
		return err
	}
	// What is appended must not be glued to a line that is not whole.
	if err = f.Truncate(int64(good)); err == nil {
		_, err = f.Seek(int64(good), io.SeekStart)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("cut off what is damaged: %w", err)
	}
	j.file = f
	return nil
}

// Peek reads the journal in a directory without its lock, whoever has it, and without leaving a trace: for plans that are only looked
// at. It cannot be written to. One that is not there is empty.
func Peek(dir string) (*Journal, error) { return peek(dir, nil) }

// peek hands what cannot be used to damaged, where that is not nil.
func peek(dir string, damaged func(*Journal, []byte)) (*Journal, error) {
	j := &Journal{dir: dir, state: newState()}
	f, err := openFile(filepath.Join(dir, fileName), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := j.read(f, damaged); err != nil {
		return nil, err
	}
	return j, nil
}

// read takes the lines of a file, and returns the length of those that are good. What is behind them is damaged.
func (j *Journal) read(f *os.File, damaged func(*Journal, []byte)) (good int, err error) {
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return 0, fmt.Errorf("read the journal: %w", err)
	}
	if len(text) > maxFile {
		j.ignore("all of it: the file is larger than %d bytes", maxFile)
		text = nil
	}
	for n := 1; good < len(text); n++ {
		end := bytes.IndexByte(text[good:], '\n')
		if end < 0 {
			j.ignore("line %d: it is cut short", n)
			break
		}
		l, err := decode(text[good : good+end])
		if err == nil {
			err = j.take(l)
		}
		if err != nil {
			j.ignore("line %d and all behind it: %v", n, err)
			break
		}
		good += end + 1
	}
	if good < len(text) && damaged != nil {
		damaged(j, text[good:])
	}
	return good, nil
}

func (j *Journal) ignore(format string, args ...any) {
	j.ignored = append(j.ignored, fmt.Sprintf("the journal %s: ", filepath.Join(j.dir, fileName))+fmt.Sprintf(format, args...))
}

// Ignored says what of the file was not used, and why.
func (j *Journal) Ignored() []string { return j.ignored }

// State returns what the journal tells. It is the journal's.
func (j *Journal) State() *State { return &j.state }

// take applies one line.
func (j *Journal) take(l *line) error {
	switch {
	case l.State != nil:
		j.boot, j.inode = l.Boot, l.Inode
		j.state = *l.State
		j.state.fill()
	case l.Begin != nil:
		j.at(l)
		if j.state.begun != nil {
			// The batch before was left without end: the step it stopped at may have happened, as Known says.
			j.state.leave()
		}
		j.state.begun, j.state.done = l.Begin, 0
		j.state.record(l.records())
	case l.Done != nil:
		if j.state.done >= len(j.state.begun) {
			return errors.New("more steps are done than were begun")
		}
		j.state.finish(*l.Done)
	case l.Adopt != nil || l.Inherit != nil || l.Release != nil:
		if l.Boot != "" {
			j.at(l)
		}
		j.state.record(l.records())
	default:
		return errors.New("it says nothing")
	}
	return nil
}

// at forgets what was on another boot or in another namespace than the line.
func (j *Journal) at(l *line) {
	if l.Boot != j.boot || l.Inode != j.inode {
		j.boot, j.inode, j.state = l.Boot, l.Inode, newState()
	}
}

func (s *State) fill() {
	if s.Own == nil {
		s.Own = map[model.ID]plan.Where{}
	}
	if s.Prior == nil {
		s.Prior = map[model.ID]plan.Prior{}
	}
	if s.Left == nil {
		s.Left = map[model.ID]bool{}
	}
}

// leave ends a batch that was interrupted, keeping what may have happened.
func (s *State) leave() {
	k := s.Known()
	s.Prior, s.Left = k.Prior, k.Pending
	s.begun, s.done = nil, 0
}

// Bind says on which boot and in which namespace the journal is used. What it tells of another is void, and forgotten.
func (j *Journal) Bind(sys *model.System) {
	if j.boot == sys.BootID && j.inode == sys.Inode {
		return
	}
	if j.boot != "" {
		why := "it is of another boot of the machine"
		if j.boot == sys.BootID {
			why = "it is of another network namespace"
		}
		j.ignore("all of it: %s", why)
	}
	j.boot, j.inode, j.state = sys.BootID, sys.Inode, newState()
}

// Begin writes down the steps of a batch, before the first of them, and has it reach the disk, with what is to be remembered or forgotten
// from now on besides.
func (j *Journal) Begin(steps []plan.Step, r plan.Records) error {
	if len(steps) == 0 {
		return errors.New("journal: a batch has at least one step")
	}
	l := j.newLine(r)
	l.Begin = steps
	if err := j.write(l); err != nil {
		return err
	}
	return j.sync()
}

// Record writes down what is to be remembered or forgotten though no step is done, and has it reach the disk.
func (j *Journal) Record(r plan.Records) error {
	if r.IsEmpty() {
		return nil
	}
	if err := j.write(j.newLine(r)); err != nil {
		return err
	}
	return j.sync()
}

// Done writes down that the next step of the batch is done, or has failed.
func (j *Journal) Done(d Done) error { return j.write(&line{Done: &d}) }

func (j *Journal) sync() error {
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

func (j *Journal) write(l *line) error {
	b, err := encode(l)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	at, err := j.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if _, err := j.file.Write(b); err != nil {
		return fmt.Errorf("write the journal: %w", errors.Join(err, j.cutOff(at)))
	}
	return j.take(l)
}

// cutOff takes away what a full disk has taken of a line: what is behind a line that is not whole is ignored.
func (j *Journal) cutOff(at int64) error {
	if err := j.file.Truncate(at); err != nil {
		return err
	}
	_, err := j.file.Seek(at, io.SeekStart)
	return err
}

// End ends the batch, forgets what is not there any more, and replaces the file by the sum.
func (j *Journal) End(sys *model.System) error {
	j.state.leave()
	j.state.released = nil
	j.state.Prune(sys)
	return j.Compact()
}

// Apply says what is declared from now on. The next [Journal.End] or [Journal.Keep] writes it; it reports whether that is needed.
func (j *Journal) Apply(a *Applied) (changed bool) {
	have, err := json.Marshal(j.state.Applied)
	want, wantErr := json.Marshal(a)
	j.state.Applied = a
	return err != nil || wantErr != nil || !bytes.Equal(have, want)
}

// Keep remembers a change that is to be undone unless it is confirmed; nil that there is none.
func (j *Journal) Keep(u *Unconfirmed) error {
	j.state.Unconfirmed = u
	return j.Compact()
}

// Compact replaces the file by one line with the state.
func (j *Journal) Compact() error {
	fail := func(err error) error { return fmt.Errorf("replace the journal: %w", err) }
	path := filepath.Join(j.dir, newName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	f, err := openFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return fail(err)
	}
	b, err := encode(&line{Boot: j.boot, Inode: j.inode, State: &j.state})
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path, filepath.Join(j.dir, fileName))
	}
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		f.Close()
		return fail(err)
	}
	j.file.Close()
	j.file = f
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Remove deletes the journal with its directory, where that holds nothing else, and closes it.
func (j *Journal) Remove() error {
	defer j.Close()
	for _, name := range []string{fileName, newName, lockName} {
		if err := os.Remove(filepath.Join(j.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := os.Remove(j.dir)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Close releases the lock.
func (j *Journal) Close() error {
	if j.lock == nil { // of [Peek]
		return nil
	}
	return errors.Join(j.file.Close(), j.lock.Close())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumDigits = 8

func encode(l *line) ([]byte, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(b, castagnoli), b), nil
}

func decode(b []byte) (*line, error) {
	if len(b) <= sumDigits || b[sumDigits] != ' ' {
		return nil, errors.New("it has no checksum")
	}
	want, err := strconv.ParseUint(string(b[:sumDigits]), 16, 32)
	body := b[sumDigits+1:]
	if err != nil || uint32(want) != crc32.Checksum(body, castagnoli) {
		return nil, errors.New("its checksum is wrong")
	}
	l := new(line)
	if err := json.Unmarshal(body, l); err != nil {
		return nil, err
	}
	return l, nil
}
