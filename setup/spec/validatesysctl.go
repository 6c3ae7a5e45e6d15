package spec

import (
	"fmt"
	"slices"
	"strings"
)

const maxSysctl = 255 // bytes of a setting's name, and of its value

// IsSysctlName reports whether a text can name a setting of a network namespace: one below net, with dots between its parts.
func IsSysctlName(s string) bool {
	parts := strings.Split(s, ".")
	return len(s) <= maxSysctl && len(parts) > 2 && parts[0] == "net" && !slices.Contains(parts, "") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' })
}

// IsSysctlValue reports whether a text can be the value of a setting: words with one space between them.
func IsSysctlValue(s string) bool {
	return s != "" && len(s) <= maxSysctl && s == strings.Join(strings.Fields(s), " ") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

// sysctls checks settings of the kernel: those below net alone are of a network namespace.
func (v *validator) sysctls() {
	seen := make(map[string]Origin)
	needs := v.neededSettings()
	for i := range v.spec.Sysctls {
		s := &v.spec.Sysctls[i]
		v.knownNetns(s.Place, "netns", s.Netns)
		switch {
		case !IsSysctlName(s.Name):
			v.add(s.Place, "name", "%q is no setting of a network namespace", s.Name)
		case !IsSysctlValue(s.Value):
			v.add(s.Place, "value", "%q is not a value of a setting", s.Value)
		case s.Name == forwarding4Alias:
			v.add(s.Place, "name", "%s is another name of %s", s.Name, Forwarding4)
			v.hint("write %s", Forwarding4)
		case s.Value != "1" && needs[s.Netns+" "+s.Name] != "":
			v.add(s.Place, "value", "%s, and needs this setting to be 1", needs[s.Netns+" "+s.Name])
			v.hint("take the entry out: the setting is made with the tunnel")
		}
		key := s.Netns + " " + s.Name
		if first, ok := seen[key]; ok {
			v.add(s.Place, "name", "%s is set already", s.Name)
			v.hint("at %s", first)
			continue
		}
		seen[key] = s.Origin
	}
}

// neededSettings says by namespace and name, with a space between them, which tunnel needs a setting to be 1, and why.
func (v *validator) neededSettings() map[string]string {
	needs := make(map[string]string)
	for i := range v.spec.Links {
		l := &v.spec.Links[i]
		if l.Client != nil && l.Client.IsFull(4) {
			needs[l.Netns+" "+ValidMark] = l.Key + " takes all traffic"
		}
		for name, family := range Forwarding() {
			if l.Serves != nil && l.Serves.Forwards(family) {
				needs[l.Netns+" "+name] = fmt.Sprintf("%s forwards its clients' IPv%d packets", l.Key, family)
			}
		}
	}
	return needs
}
