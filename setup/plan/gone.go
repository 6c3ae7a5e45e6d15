package plan

import (
	"maps"
	"slices"

	"culvert/setup/model"
)

// vanished tells, where everything is taken away, of what somebody else has taken away before, or made anew. What went with its device or
// namespace is not told of.
func (p *planner) vanished() {
	if len(p.items) > 0 || p.restore {
		return
	}
	gone := make(map[model.ID]bool)
	for _, id := range slices.Sorted(maps.Keys(p.known.Own)) {
		own, o := p.known.Own[id], p.system.Objects[id]
		gone[id] = o == nil || !own.is(o)
		if !gone[id] && !p.ours(o) && id.Kind() != model.KindSysctl { // which has no mark
			p.note("%s carries culvert's mark no longer, somebody has changed it: left alone", id.Text())
			p.release(id)
		}
	}
	for id, prior := range p.known.Prior {
		o := p.system.Objects[id]
		gone[id] = gone[id] || o == nil || !prior.is(o)
	}
	for _, id := range slices.Sorted(maps.Keys(gone)) {
		if !gone[id] || p.wentWith(id, gone) {
			continue
		}
		_, there := p.system.Objects[id]
		prior, changed := p.known.Prior[id]
		text := id.Text() + " is gone already"
		if there {
			text = id.Text() + " is another one than culvert made, and is left alone"
		}
		if changed && there {
			text = id.Text() + " is another one than before, and is left alone"
		}
		for _, f := range slices.Sorted(maps.Keys(prior.Fields)) {
			text += ": its " + string(f) + " is not set back to " + shown(prior.Fields[f].Old)
		}
		p.note("%s", text)
	}
}

// wentWith reports whether a thing's device, the device it led to, or its namespace is gone as well.
func (p *planner) wentWith(id model.ID, gone map[model.ID]bool) bool {
	r := id.Link()
	if id.Kind() == model.KindSysctl {
		r = id.SettingOf()
	}
	return r != "" && id.Kind() != model.KindLink && (gone[model.LinkID(r)] || p.system.Objects[model.LinkID(r)] == nil) ||
		id.Netns() != "" && gone[model.NetnsID(id.Netns())]
}
