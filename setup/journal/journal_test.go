package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"culvert/setup/model"
	"culvert/setup/plan"
)

var system = &model.System{BootID: "boot-1", Inode: 7, Objects: map[model.ID]*model.Object{
	"link br0": {ID: "link br0", Index: 9}, "link eth0": {ID: "link eth0"}, "address eth0 10.0.0.1/24": {ID: "address eth0 10.0.0.1/24"},
}}

func open(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	j.Bind(system)
	return j
}

var batch = []plan.Step{
	{N: 1, Op: plan.Create, ID: "link br0", Type: "bridge"},
	{N: 2, Op: plan.Change, ID: "link eth0", Owner: model.OwnerExternal, Index: 2, Changes: []plan.FieldChange{{Field: "mtu", Old: "1500", New: "9000"}}},
	{N: 3, Op: plan.Create, ID: "address eth0 10.0.0.1/24", Index: 2},
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestInterrupted closes the journal after each number of steps, as if the process had been killed, and looks at what the next one
// knows.
func TestInterrupted(t *testing.T) {
	for done := range len(batch) + 1 {
		dir := t.TempDir() + "/net"
		j := open(t, dir)
		check(t, j.Begin(batch, plan.Records{}))
		for i := range done {
			check(t, j.Done(Done{Where: plan.Where{Index: 10 + i, Inode: 7}}))
		}
		j.Close()
		j = open(t, dir)
		k := j.State().Known()
		if !j.State().Interrupted() || len(j.Ignored()) != 0 {
			t.Errorf("%d done: interrupted %v, ignored %q", done, j.State().Interrupted(), j.Ignored())
		}
		for i, s := range batch {
			if s.Op != plan.Create {
				continue
			}
			if _, own := k.Own[s.ID]; own != (i < done) || k.Pending[s.ID] != (i == done) {
				t.Errorf("%d done: %s is own %v, pending %v", done, s.ID, own, k.Pending[s.ID])
			}
		}
		prior, changed := k.Prior["link eth0"]
		if changed != (done >= 1) || changed && prior.Fields["mtu"] != (plan.FieldChange{Field: "mtu", Old: "1500", New: "9000"}) {
			t.Errorf("%d done: prior %v", done, prior)
		}
		// The next batch keeps what may have happened.
		check(t, j.Begin(batch[2:], plan.Records{}))
		if k := j.State().Known(); done == 0 && !k.Pending["link br0"] {
			t.Error("what may have been made is forgotten")
		}
		j.Close()
	}
}

func TestEndForgetsAndCompacts(t *testing.T) {
	dir := t.TempDir() + "/net"
	j := open(t, dir)
	size := 0
	for i := range 50 {
		steps := []plan.Step{{Op: plan.Create, ID: model.LinkID(model.Ref(fmt.Sprint("gone", i)))}, {Op: plan.Create, ID: "link br0"}}
		check(t, j.Begin(steps, plan.Records{}))
		check(t, j.Done(Done{}))
		check(t, j.Done(Done{Where: plan.Where{Index: 9}}))
		check(t, j.End(system))
		b, err := os.ReadFile(filepath.Join(dir, fileName))
		check(t, err)
		if i > 0 && len(b) != size {
			t.Fatalf("the file grows from %d to %d bytes", size, len(b))
		}
		size = len(b)
	}
	j.Close()
	j = open(t, dir)
	defer j.Close()
	if own := j.State().Own; !reflect.DeepEqual(own, map[model.ID]plan.Where{"link br0": {Index: 9}}) || j.State().Interrupted() {
		t.Errorf("own %v", own)
	}
}

// TestSetBackIsForgotten: what has the value it had before is nobody's business any more.
func TestSetBackIsForgotten(t *testing.T) {
	j := open(t, t.TempDir()+"/net")
	defer j.Close()
	change := func(old, new model.Value) {
		check(t, j.Begin([]plan.Step{{Op: plan.Change, ID: "link eth0", Owner: model.OwnerExternal, Changes: []plan.FieldChange{{Field: "mtu", Old: old, New: new}}}}, plan.Records{}))
		check(t, j.Done(Done{}))
		check(t, j.End(system))
	}
	change("1500", "9000")
	change("9000", "4000")
	if c := j.State().Prior["link eth0"].Fields["mtu"]; c.Old != "1500" || c.New != "4000" {
		t.Errorf("prior %v", c)
	}
	change("4000", "1500")
	if len(j.State().Prior) != 0 {
		t.Errorf("prior %v", j.State().Prior)
	}
}

// TestDamage cuts and flips the file everywhere: what stands before the damage is kept, and opening never fails.
func TestDamage(t *testing.T) {
	dir := t.TempDir() + "/net"
	j := open(t, dir)
	check(t, j.Begin(batch, plan.Records{}))
	for range batch {
		check(t, j.Done(Done{}))
	}
	j.Close()
	path := filepath.Join(dir, fileName)
	whole, err := os.ReadFile(path)
	check(t, err)
	lines := func(b []byte) int { return bytes.Count(b, []byte("\n")) }
	try := func(text []byte, keeps int, damaged bool) {
		t.Helper()
		check(t, os.WriteFile(path, text, 0o600))
		j := open(t, dir)
		defer j.Close()
		state := j.State()
		if got := state.done; keeps > 0 && got != keeps-1 || keeps == 0 && state.Interrupted() {
			t.Errorf("of %d good lines %d steps are known", keeps, got)
		}
		if damaged != (len(j.Ignored()) == 1) {
			t.Errorf("ignored %q", j.Ignored())
		}
		// It can be used from there on.
		check(t, j.Begin(batch, plan.Records{}))
		check(t, j.Done(Done{}))
	}
	for cut := range len(whole) {
		text := whole[:cut]
		try(text, lines(text), cut > 0 && text[cut-1] != '\n')
	}
	for at := 0; at < len(whole); at += 7 {
		text := bytes.Clone(whole)
		text[at] ^= 0x41
		try(text, lines(whole[:at]), true)
	}
}

func TestAnotherBootOrNamespace(t *testing.T) {
	for why, other := range map[string]*model.System{"another boot": {BootID: "boot-2", Inode: 7}, "another network namespace": {BootID: "boot-1", Inode: 8}} {
		dir := t.TempDir() + "/net"
		j := open(t, dir)
		check(t, j.Begin(batch, plan.Records{}))
		j.Close()
		j, err := Open(dir)
		check(t, err)
		j.Bind(other)
		if len(j.State().IDs()) != 0 || j.State().Interrupted() || len(j.Ignored()) != 1 || !strings.Contains(j.Ignored()[0], why) {
			t.Errorf("%s: %v, ignored %q", why, j.State().IDs(), j.Ignored())
		}
		j.Close()
	}
}

func TestLockAndLinks(t *testing.T) {
	dir := t.TempDir() + "/net"
	j := open(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("opened twice: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v", info.Mode())
	}
	check(t, j.Remove())
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	// Neither the file nor the directory is followed elsewhere.
	elsewhere := t.TempDir()
	check(t, os.Symlink(elsewhere, dir))
	if _, err := Open(dir); err == nil {
		t.Error("a directory that is a link is used")
	}
	check(t, os.Remove(dir))
	check(t, os.Mkdir(dir, 0o700))
	check(t, os.Symlink(filepath.Join(elsewhere, "target"), filepath.Join(dir, fileName)))
	if _, err := Open(dir); err == nil {
		t.Error("a file that is a link is used")
	}
	if files, _ := os.ReadDir(elsewhere); len(files) != 0 {
		t.Errorf("made elsewhere: %v", files)
	}
}

func TestFailedCreationIsKnownByItsMark(t *testing.T) {
	j := open(t, t.TempDir()+"/net")
	defer j.Close()
	check(t, j.Begin(batch, plan.Records{}))
	check(t, j.Done(Done{Error: "no"}))
	if k := j.State().Known(); !k.Pending["link br0"] || len(k.Own)+len(k.Prior) != 0 || j.State().Interrupted() {
		t.Errorf("%+v", k)
	}
	check(t, j.End(system)) // br0 is there without culvert's group: somebody else's
	if k := j.State().Known(); len(k.Pending) != 0 {
		t.Errorf("%+v", k)
	}
}

func FuzzJournal(f *testing.F) {
	good, err := encode(&line{Boot: "b", Begin: batch})
	if err != nil {
		f.Fatal(err)
	}
	done, _ := encode(&line{Done: &Done{}})
	f.Add(good)
	f.Add(append(bytes.Clone(good), done...))
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		j := &Journal{state: newState()}
		for l := range bytes.Lines(text) {
			body := bytes.TrimSuffix(l, []byte("\n"))
			if x, err := decode(body); err == nil {
				_ = j.take(x)
			}
			// What a checksum cannot keep out must not hurt either.
			x := new(line)
			if _, rest, ok := bytes.Cut(body, []byte(" ")); ok && json.Unmarshal(rest, x) == nil {
				_ = j.take(x)
			}
		}
		j.state.Known()
		j.state.IDs()
		j.state.leave()
	})
}
