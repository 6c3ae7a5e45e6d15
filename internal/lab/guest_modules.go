package lab

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// moduleTree is the /lib/modules folder of a kernel: where each module is and which are built in.
type moduleTree struct {
	release string              // such as 6.1.0-56-cloud-amd64
	paths   map[string]string   // module name, '_' for '-', to the host's path
	builtin map[string]struct{} // same names
	root    string              // the host's path of lib/modules/RELEASE
}

// moduleInfo is what a module says of itself in its .modinfo section.
type moduleInfo struct {
	name    string // '_' for '-'
	path    string // below lib/modules/RELEASE
	depends []string
	before  []string // softdep pre: loaded before it where present
	aliases []string
}

func openModules(root string) (*moduleTree, error) {
	tree := &moduleTree{
		release: filepath.Base(root),
		root:    root,
		paths:   make(map[string]string),
		builtin: make(map[string]struct{}),
	}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.HasSuffix(file, ".ko") {
			tree.paths[moduleName(file)] = file
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(tree.paths) == 0 {
		return nil, fmt.Errorf("no uncompressed modules below %s", root)
	}
	list, err := os.ReadFile(filepath.Join(root, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for file := range strings.FieldsSeq(string(list)) {
		tree.builtin[moduleName(file)] = struct{}{}
	}
	return tree, nil
}

func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

// closure returns the named modules with everything they need, each after what it depends on. Built-in ones are left out.
func (tree *moduleTree) closure(names []string) ([]moduleInfo, error) {
	var order []moduleInfo
	visited := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if _, ok := tree.builtin[name]; ok || visited[name] {
			return nil
		}
		visited[name] = true
		file, ok := tree.paths[name]
		if !ok {
			return fmt.Errorf("kernel %s has no module %s", tree.release, name)
		}
		info, err := readModule(file)
		if err != nil {
			return err
		}
		info.name = name
		if info.path, err = filepath.Rel(tree.root, file); err != nil {
			return err
		}
		for _, need := range info.before {
			if _, ok := tree.paths[moduleName(need)]; !ok {
				continue // soft: an alias, or a driver this kernel was built without
			}
			if err := visit(need); err != nil {
				return err
			}
		}
		for _, need := range info.depends {
			if err := visit(need); err != nil {
				return fmt.Errorf("needed by %s: %w", name, err)
			}
		}
		order = append(order, info)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// readModule reads a module's .modinfo section, a sequence of NUL-terminated key=value strings.
func readModule(file string) (moduleInfo, error) {
	f, err := elf.Open(file)
	if err != nil {
		return moduleInfo{}, fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return moduleInfo{}, fmt.Errorf("%s has no .modinfo", file)
	}
	data, err := section.Data()
	if err != nil {
		return moduleInfo{}, fmt.Errorf("%s: %w", file, err)
	}
	return parseModinfo(data), nil
}

func parseModinfo(data []byte) moduleInfo {
	var info moduleInfo
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		switch key {
		case "depends":
			info.depends = append(info.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			list, found := strings.CutPrefix(value, "pre:")
			if found {
				list, _, _ = strings.Cut(list, "post:")
				info.before = append(info.before, strings.Fields(list)...)
			}
		case "alias":
			info.aliases = append(info.aliases, value)
		}
	}
	return info
}

// addTo puts modules into the archive, with the indexes modprobe reads, so that the kernel can load them by itself.
func (tree *moduleTree) addTo(a *archive, modules []moduleInfo) {
	base := "/lib/modules/" + tree.release
	byName := make(map[string]moduleInfo)
	var depends, aliases strings.Builder
	for _, module := range modules {
		a.file(base+"/"+module.path, filepath.Join(tree.root, module.path))
		byName[module.name] = module
		fmt.Fprintf(&depends, "%s:", module.path)
		for _, need := range allNeeds(byName, module) {
			fmt.Fprintf(&depends, " %s", need)
		}
		fmt.Fprintln(&depends)
		for _, alias := range module.aliases {
			fmt.Fprintf(&aliases, "alias %s %s\n", alias, module.name)
		}
	}
	a.text(base+"/modules.dep", 0o644, depends.String())
	a.text(base+"/modules.alias", 0o644, aliases.String())
	a.text(base+"/modules.symbols", 0o644, "")
}

// allNeeds lists the paths of everything a module depends on, nearest first, as modules.dep has it.
func allNeeds(byName map[string]moduleInfo, module moduleInfo) []string {
	var paths []string
	queue := slices.Clone(module.depends)
	for i := 0; i < len(queue); i++ {
		need, ok := byName[moduleName(queue[i])]
		if !ok {
			continue // built in
		}
		// What is needed by two goes after both of them: modprobe inserts from the last to the first.
		paths = append(slices.DeleteFunc(paths, func(p string) bool { return p == need.path }), need.path)
		queue = append(queue, need.depends...)
	}
	return paths
}
