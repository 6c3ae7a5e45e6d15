package model

import (
	"strings"

	"culvert/setup/spec"
)

// sysctls adds settings of the kernel that are declared.
func (x *expansion) sysctls() {
	for i := range x.spec.Sysctls {
		s := &x.spec.Sysctls[i]
		x.sysctl(s.Place, s.Netns, s.Name, Text(s.Value))
	}
}

// sysctl adds a setting of the kernel. In a namespace that culvert makes, and of a device that it makes, it comes and goes with that; another
// is set back.
func (x *expansion) sysctl(place spec.Place, netns, name string, value Value) {
	item := Item{ID: SysctlID(netns, name), Place: place, Owner: OwnerExternal, Label: OwnerExternal.String(), Fields: Fields{"value": value}}
	made := func(host ID) bool {
		at, ok := x.at[host]
		return ok && x.items[at].Owner != OwnerExternal
	}
	if made(NetnsID(netns)) {
		item.Owner, item.Label = OwnerCulvert, ""
	}
	if r := item.ID.SettingOf(); r != "" {
		id := LinkID(r)
		if _, ok := x.at[id]; ok {
			item.Needs = append(item.Needs, id)
		}
		if made(id) {
			item.Owner, item.Label = OwnerCulvert, ""
		}
	}
	x.add(item)
}

// SettingOf is the device that a sysctl is one of; "" where it is none's.
func (id ID) SettingOf() Ref {
	if id.Kind() != KindSysctl {
		return ""
	}
	name := spec.SysctlDevice(id.Words()[1])
	if name == "" {
		return ""
	}
	return NewRef(id.Netns(), strings.ReplaceAll(name, "/", ".")) // as in [spec.DeviceForwarding]
}

// ChangedBy is the setting with which the kernel changes this one, as [spec.ForwardingOf] has it; "" where there is none.
func (id ID) ChangedBy() ID {
	if id.Kind() != KindSysctl {
		return ""
	}
	name := spec.ForwardingOf(id.Words()[1])
	if name == "" {
		return ""
	}
	return SysctlID(id.Netns(), name)
}
