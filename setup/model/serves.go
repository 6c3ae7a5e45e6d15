package model

import "culvert/setup/spec"

// serves adds what tunnels need for their clients beside address translation.
func (x *expansion) serves() {
	for i := range x.spec.Links {
		l := &x.spec.Links[i]
		if l.Serves == nil {
			continue
		}
		for name, family := range spec.Forwarding() {
			if l.Serves.Forwards(family) {
				x.sysctl(l.Serves.Place, l.Netns, name, "1")
			}
		}
	}
}
