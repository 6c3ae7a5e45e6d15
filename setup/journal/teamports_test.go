package journal

import (
	"testing"

	"culvert/setup/model"
	"culvert/setup/plan"
)

func withPort(fields model.Fields) *model.System {
	return &model.System{BootID: "boot-1", Inode: 7, Objects: map[model.ID]*model.Object{"link eth0": {ID: "link eth0", Index: 2, Fields: fields}}}
}

// What going back has set to what it was is no change to be given back later; what was changed before, or is not as it was, is.
func TestReturn(t *testing.T) {
	changed := func(fields ...plan.FieldChange) plan.Prior {
		p := plan.Prior{Where: plan.Where{Index: 2, Inode: 7}, Fields: map[model.Field]plan.FieldChange{}}
		for _, c := range fields {
			p.Fields[c.Field] = c
		}
		return p
	}
	s := newState()
	s.Prior["link eth0"] = changed(plan.FieldChange{Field: "mac", Old: "02:00:00:00:00:77", New: "02:00:00:00:00:01"},
		plan.FieldChange{Field: "mtu", Old: "1500", New: "1400"}, plan.FieldChange{Field: "up", Old: "no", New: "yes"})
	knew := plan.Known{Prior: map[model.ID]plan.Prior{"link eth0": changed(plan.FieldChange{Field: "mtu", Old: "1500", New: "1400"})}}
	before := model.Fields{"mac": "02:00:00:00:00:01", "mtu": "1400", "up": "no"}
	now := model.Fields{"mac": "02:00:00:00:00:01", "mtu": "1400", "up": "yes"}
	s.Return(knew, withPort(before), withPort(now))
	left := s.Prior["link eth0"].Fields
	if _, mac := left["mac"]; mac || left["mtu"].Old != "1500" || left["up"].Old != "no" || len(left) != 2 {
		t.Errorf("left are %v", left)
	}
	// A port's first state is told again, though it was forgotten on the way.
	delete(s.Prior, "link eth0")
	s.Return(knew, withPort(before), withPort(before))
	if old := s.Prior["link eth0"].Fields["mtu"].Old; old != "1500" {
		t.Errorf("the MTU was %q", old)
	}
	s.Return(plan.Known{}, withPort(now), withPort(now))
	if _, ok := s.Prior["link eth0"]; ok {
		t.Errorf("left are %v", s.Prior["link eth0"].Fields)
	}
}

// teamd takes its ports by itself: killed once it may run, a port that is up then was down before.
func TestTeamTakesItsPorts(t *testing.T) {
	batch := []plan.Step{
		{N: 1, Op: plan.Create, ID: "link team0", Type: "team"},
		{N: 2, Op: plan.Create, ID: "process teamd:team0", Fields: model.Fields{"program": "teamd", "link": "team0"}},
		{N: 3, Op: plan.Create, ID: "attachment eth0", Type: "team", Index: 2, Fields: model.Fields{"master": "team0"},
			Side: []plan.FieldChange{{Field: "up", Old: "no", New: "yes"}}},
	}
	for done := range batch {
		j := open(t, t.TempDir()+"/net")
		check(t, j.Begin(batch, plan.Records{}))
		for range done {
			check(t, j.Done(Done{}))
		}
		if old := j.State().Known().Prior["link eth0"].Fields["up"].Old; (old == "no") != (done >= 1) {
			t.Errorf("%d done: eth0 was up before: %q", done, old)
		}
		j.Close()
	}
}
