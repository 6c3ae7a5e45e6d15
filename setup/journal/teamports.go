package journal

import (
	"culvert/setup/model"
	"culvert/setup/plan"
)

// takenPorts adds to what is known of an interrupted batch that teamd, from when it may have been started on, takes the ports of its
// configuration by itself, before culvert has them join: what changes of a port by joining may have changed.
func (s *State) takenPorts(k *plan.Known) {
	teams := make(map[model.Ref]bool)
	for i := range s.begun {
		step := &s.begun[i]
		switch kind := step.ID.Kind(); {
		case kind == model.KindProcess && step.Op == plan.Create && step.Fields["program"] == "teamd" && i <= s.done:
			teams[step.Fields["link"].Link()] = true
		case kind == model.KindAttachment && step.Op == plan.Create && i >= s.done && teams[step.Fields["master"].Link()]:
			sideEffect(k.Prior, k.Own, step)
		}
	}
}
