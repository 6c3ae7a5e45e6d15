package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// TestLockOthers: who waits for another instance gives up with its context, and is told for what it waited.
func TestLockOthers(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir+"/a"), open(t, dir+"/b")
	defer a.Close()
	defer b.Close()
	unlock, err := a.LockOthers(t.Context())
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockTries)
	defer cancel()
	_, err = b.LockOthers(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), dir+" is locked by a culvert apply, up, reload, down or destroy of another instance") {
		t.Errorf("error %v", err)
	}
	go func() {
		time.Sleep(lockTries)
		unlock()
	}()
	again, err := b.LockOthers(t.Context())
	check(t, err)
	again()
	again()
	unlock()
	// A lock that is free is had at once.
	ended, end := context.WithCancel(t.Context())
	end()
	unlock, err = a.LockOthers(ended)
	check(t, err)
	unlock()
}

// other writes a journal of an instance beside j, changed by edit.
func other(t *testing.T, dir string, edit func([]byte) []byte) {
	t.Helper()
	j := open(t, dir)
	check(t, j.Record(plan.Records{Adopted: map[model.ID]plan.Where{"rule - 4 1000": {Inode: 7}}}))
	check(t, j.Compact())
	check(t, j.Record(plan.Records{Adopted: map[model.ID]plan.Where{"rule - 4 1001": {Inode: 7}}}))
	check(t, j.Record(plan.Records{Adopted: map[model.ID]plan.Where{"rule - 4 1002": {Inode: 7}}}))
	check(t, j.Close())
	path := filepath.Join(dir, fileName)
	text, err := os.ReadFile(path)
	check(t, err)
	check(t, os.WriteFile(path, edit(text), 0o600))
}

func TestOthersDamaged(t *testing.T) {
	lines := func(edit func([][]byte)) func([]byte) []byte {
		return func(text []byte) []byte {
			l := bytes.SplitAfter(text, []byte("\n"))
			edit(l)
			return bytes.Join(l, nil)
		}
	}
	const known = "rule - 4 1000 rule - 4 1001 rule - 4 1002"
	for _, c := range []struct {
		name     string
		edit     func([]byte) []byte
		told     string // "": nothing
		claims   string
		doubtful bool
	}{
		{"whole", func(b []byte) []byte { return b }, "", known, false},
		{"being written", func(b []byte) []byte { return append(b, "0123"...) }, "", known, false},
		{"first checksum", lines(func(l [][]byte) { l[0][0] ^= 1 }), "line 1 and all behind it: its checksum is wrong", known, true},
		{"second checksum", lines(func(l [][]byte) { l[1][0] ^= 1 }), "line 2 and all behind it: its checksum is wrong", known, true},
		{"second undecodable", lines(func(l [][]byte) { copy(l[1][9:], "\x00\x00") }), "line 2 and all behind it", "rule - 4 1000 rule - 4 1002", true},
		{"first undecodable", lines(func(l [][]byte) { copy(l[0][9:], "\x00\x00") }), "line 1 and all behind it", "rule - 4 1001 rule - 4 1002", true},
		{"nothing but noise", func([]byte) []byte { return []byte("noise\nnoise") }, "line 1 and all behind it: it has no checksum", "", false},
		{"cut in the first", func(b []byte) []byte { return b[:40] }, "line 1: it is cut short", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			other(t, dir+"/b", c.edit)
			before, err := os.ReadFile(dir + "/b/journal")
			check(t, err)
			j := open(t, dir+"/a")
			defer j.Close()
			others, notes, err := j.Others(system)
			check(t, err)
			told := strings.Join(notes, "\n")
			if (told == "") != (c.told == "") || c.told != "" &&
				!strings.Contains(told, "what the instance b has is not known in full: the journal "+dir+"/b/journal: "+c.told) {
				t.Errorf("notes %q", told)
			}
			var ids []string
			for _, id := range []model.ID{"rule - 4 1000", "rule - 4 1001", "rule - 4 1002"} {
				for _, x := range others[id] {
					ids = append(ids, string(id))
					if !x.Made || x.Instance != "b" || x.Doubtful != c.doubtful {
						t.Errorf("claim %+v", x)
					}
				}
			}
			if got := strings.Join(ids, " "); got != c.claims {
				t.Errorf("claims on %s, want %s", got, c.claims)
			}
			if after, _ := os.ReadFile(dir + "/b/journal"); !bytes.Equal(before, after) {
				t.Error("looking has changed it")
			}
		})
	}
}

// TestOthersTooLarge: a journal above the limit is told of.
func TestOthersTooLarge(t *testing.T) {
	dir := t.TempDir()
	other(t, dir+"/b", func(b []byte) []byte { return b })
	check(t, os.Truncate(dir+"/b/journal", maxFile+1)) // sparse
	j := open(t, dir+"/a")
	defer j.Close()
	_, notes, err := j.Others(system)
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "all of it: the file is larger than") {
		t.Errorf("notes %q, error %v", notes, err)
	}
}

// TestOthersUnseen: where it cannot be seen which instances there are, that is an error; where there are none, it is not.
func TestOthersUnseen(t *testing.T) {
	dir := t.TempDir()
	none, err := Peek(dir + "/none/a")
	check(t, err)
	if _, notes, err := none.Others(system); err != nil || len(notes) > 0 {
		t.Errorf("notes %q, error %v", notes, err)
	}
	check(t, os.WriteFile(dir+"/file", nil, 0o600))
	j := &Journal{dir: dir + "/file/a"}
	if _, _, err := j.Others(system); err == nil || !strings.Contains(err.Error(), "what other instances have is not known") {
		t.Errorf("error %v", err)
	}
}

func FuzzSalvage(f *testing.F) {
	state := newState()
	state.Own["rule - 4 1000"] = plan.Where{Inode: 7}
	first, err := encode(&line{Boot: "boot-1", Inode: 7, State: &state})
	if err != nil {
		f.Fatal(err)
	}
	begin, _ := encode(&line{Boot: "boot-1", Inode: 7, Begin: batch})
	done, _ := json.Marshal(&line{Done: &Done{}})
	f.Add(append(bytes.Clone(first), begin...))
	f.Add(append(append(bytes.Clone(begin), "00000000 "...), append(done, '\n')...))
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		j := &Journal{state: newState()}
		j.salvage(text)
		j.state.claims()
	})
}
