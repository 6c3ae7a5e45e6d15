package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

const sysctlDir = "/proc/sys"

// sysctlPath is the file of a setting below net, the only ones that are read and set. A slash in its name stands for a dot, sysctl(8).
func sysctlPath(name string) (string, error) {
	words := strings.Split(name, ".")
	if words[0] != "net" || strings.Contains(name, "\x00") {
		return "", errRefused
	}
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, "/", ".")
		if strings.Trim(words[i], ".") == "" {
			return "", errRefused
		}
	}
	return filepath.Join(sysctlDir, filepath.Join(words...)), nil
}

// readSysctl reads a setting; false where there is none. What cannot be written, as in a container, and matters to nobody has no value:
// it differs from nothing.
func (n *namespace) readSysctl(name string) (*model.Object, bool) {
	if list := n.readSysctls([]string{name}); len(list) > 0 {
		return list[0], true
	}
	return nil, false
}

// readSysctls reads those settings that there are.
func (n *namespace) readSysctls(names []string) (list []*model.Object) {
	_ = n.inside(func() error {
		for _, name := range names {
			path, err := sysctlPath(name)
			if err != nil {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			o := &model.Object{ID: model.SysctlID(n.name, name), Fields: model.Fields{}, Inode: n.inode}
			if unix.Access(path, unix.W_OK) == nil || name != spec.ValidMark || hasStrictFilter() {
				o.Fields["value"] = model.Text(strings.Join(strings.Fields(string(text)), " "))
			}
			list = append(list, o)
		}
		return nil
	})
	return list
}

// readSettings reads those settings of a scope that are of a namespace, and all that the kernel changes with them.
func (r *reading) readSettings(ns *namespace, settings []model.ID) {
	var devices, names []string
	index := make(map[string]int, len(r.links[ns]))
	for _, l := range r.links[ns] {
		devices = append(devices, l.name)
		index[l.name] = l.index
	}
	for _, id := range settings {
		if id.Kind() != model.KindSysctl || id.Netns() != ns.name {
			continue
		}
		name := id.Words()[1]
		main := spec.ForwardingOf(name)
		if main == "" {
			main = name
		}
		names = append(append(names, name, main), spec.ForwardingSettings(main, devices)...)
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return
	}
	for _, o := range ns.readSysctls(names) {
		o.Index = index[o.ID.SettingOf().Name()]
		r.add(ns, o)
	}
}

// hasStrictFilter reports whether the reverse path filter is strict for any device of the calling thread's namespace.
func hasStrictFilter() bool {
	paths, _ := filepath.Glob(sysctlDir + "/net/ipv4/conf/*/rp_filter")
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(text)) == "1" {
			return true
		}
	}
	return false
}

// createSysctl sets a setting of a namespace or device that has just come to be.
func createSysctl(w *work) (apply.Done, error) {
	c := *w.step
	c.Changes = []plan.FieldChange{{Field: "value", New: c.Fields["value"]}}
	return changeSysctl(&work{k: w.k, step: &c, ns: w.ns})
}

// leaveSysctl does nothing: a setting goes with what it is of.
func leaveSysctl(*work) (apply.Done, error) { return apply.Done{}, nil }

// changeSysctl sets a setting. One that others have come to rely on meanwhile is not set back.
func changeSysctl(w *work) (apply.Done, error) {
	name := w.step.ID.Words()[1]
	path, err := sysctlPath(name)
	if err != nil {
		return apply.Done{}, err
	}
	for _, c := range w.step.Changes {
		if c.Field != "value" {
			continue
		}
		if name == spec.ValidMark && c.New != "1" {
			if rules, err := w.ns.rules(); err != nil || diverted(rules) {
				return apply.Done{}, err
			}
		}
		follows := spec.ForwardingOf(name) != ""
		if device := w.step.ID.SettingOf().Name(); device != "" && w.step.Index != 0 {
			switch l, err := w.ns.linkByName(device); {
			case err == nil && l != nil && l.index != w.step.Index && !follows:
				return apply.Done{}, another(device, l.index, w.step.Index)
			case follows && (err != nil || l == nil || l.index != w.step.Index):
				return apply.Done{}, nil // its device is gone, and what the kernel changed of it
			}
		}
		if err := w.ns.inside(func() error { return os.WriteFile(path, []byte(c.New), 0) }); err != nil {
			if follows && errors.Is(err, unix.ENOENT) {
				return apply.Done{}, nil // as above
			}
			if errors.Is(err, unix.EROFS) && name == spec.ValidMark {
				err = errors.Join(err, errors.New("rp_filter is 1 somewhere, and would drop the answers to the tunnel's datagrams"))
			}
			return apply.Done{}, &fieldError{c, err}
		}
	}
	return apply.Done{}, nil
}

// diverted reports whether a rule sends what does not carry a mark to a table, as every tunnel has one that takes all.
func diverted(rules []rule) bool {
	for _, r := range rules {
		if r.fields["not"].Bool() && r.fields["mark"] != "" {
			return true
		}
	}
	return false
}
