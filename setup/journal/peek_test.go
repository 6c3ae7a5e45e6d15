package journal

import (
	"os"
	"path/filepath"
	"testing"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// TestPeek: a journal can be looked at while somebody else has it, also in the middle of a line, and nothing changes by it.
func TestPeek(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "site")
	none, err := Peek(dir)
	if err != nil || !none.State().IsEmpty() {
		t.Fatalf("of none: %+v, %v", none, err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it made something: %v", err)
	}
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	j.Bind(&model.System{BootID: "b", Inode: 1})
	if err := j.Begin([]plan.Step{{Op: plan.Create, ID: "link br0"}, {Op: plan.Create, ID: "link br1"}}, plan.Records{}); err != nil {
		t.Fatal(err)
	}
	if err := j.Done(Done{Where: plan.Where{Index: 7, Inode: 1}}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("0123") // of a line that is being written
	f.Close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := Peek(dir)
	if err != nil {
		t.Fatal(err)
	}
	k := seen.State().Known()
	if k.Own["link br0"].Index != 7 || !k.Pending["link br1"] || !seen.State().Interrupted() || seen.State().IsEmpty() {
		t.Errorf("seen: %+v", k)
	}
	if err := seen.Record(plan.Records{Adopted: map[model.ID]plan.Where{"link x": {}}}); err == nil {
		t.Error("it can be written to")
	}
	if err := seen.Close(); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("looking has changed it")
	}
	if _, err := Open(dir); err == nil {
		t.Error("looking has taken the lock away")
	}
}
