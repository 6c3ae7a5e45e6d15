package service

import (
	"maps"
	"slices"
	"strings"

	"culvert/setup/model"
)

func (s *supervisor) list() []Status {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.kept))
	s.mu.Unlock()
	list := make([]Status, len(all))
	for i, k := range all {
		list[i] = s.status(k)
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list
}

func (s *supervisor) status(k *kept) Status {
	st := statusOf(s.store, &k.record)
	if k.broken != nil {
		st.Orphaned, st.LastEnd = true, k.broken.Error()
	}
	if k.runner != nil {
		k.runner.fill(&st)
	}
	return st
}

// statusOf is what a record and the disk tell.
func statusOf(s store, r *record) Status {
	st := Status{ID: r.ID, Fields: maps.Clone(r.Fields), Inode: r.Inode, Index: r.Index, PID: r.PID, Started: r.Started}
	if r.ID.Kind() == model.KindProcess {
		folder, err := s.folder(r.ID)
		if err == nil {
			text, err := readBounded(filesIn(folder).config)
			if _, declared := st.Fields["config"]; declared && err == nil {
				st.Fields["config"] = model.Value(text)
			}
		}
	}
	return st
}
