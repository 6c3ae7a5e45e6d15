package journal

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"culvert/internal/lab"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// A disk that is full takes a part of a line, or nothing. What is written once there is room again is read by the next one.
func TestFullDisk(t *testing.T) {
	dir := lab.SmallDisk(t, 16<<10)
	j := open(t, dir+"/net")
	check(t, j.Begin(batch, plan.Records{}))
	check(t, j.Done(Done{}))
	free := lab.FillUp(t, dir)
	var err error
	wrote := 0
	for ; err == nil; wrote++ { // until the last page of the file is full
		if wrote > 1000 {
			t.Fatal("the disk is never full")
		}
		id := model.ID(fmt.Sprint("link e", wrote))
		err = j.Record(plan.Records{Adopted: map[model.ID]plan.Where{id: {Index: wrote + 10}}})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := j.Compact(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("compacting on a full disk: %v", err)
	}
	free()
	check(t, j.Done(Done{}))
	check(t, j.Close())
	j = open(t, dir+"/net")
	defer j.Close()
	if ignored := j.Ignored(); len(ignored) != 0 {
		t.Errorf("ignored: %q", ignored)
	}
	k := j.State().Known()
	if _, ok := k.Own["link e0"]; !ok || wrote < 2 || !k.Pending["address eth0 10.0.0.1/24"] {
		t.Errorf("%d were written: %+v", wrote, k)
	}
}
