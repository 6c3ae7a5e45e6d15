package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"culvert/config"
	"culvert/internal/golden"
	"culvert/setup/apply"
	"culvert/setup/journal"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
)

// everything is a file that uses all that the setup layer knows, on a machine in memory that has the devices it refers to.
type everything struct {
	t      *testing.T
	file   *config.File
	items  []model.Item
	kernel *kerneltest.Kernel
}

func newEverything(t *testing.T) *everything {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "missing", "everything.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "everything.yaml")
	for name, content := range map[string]string{"everything.yaml": string(text), "k": testPrivate + "\n", "v": testPrivate + "\n"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	e := &everything{t, file, model.Expand(&file.Setup), kerneltest.New()}
	for _, i := range e.items {
		if i.Owner == model.OwnerExternal && e.kernel.Objects[i.ID] == nil {
			e.there(i)
		}
	}
	return e
}

// there adds what somebody else is to have made.
func (e *everything) there(i model.Item) {
	switch i.ID.Kind() {
	case model.KindLink:
		typ := i.Type
		if typ == "" {
			typ = "dummy"
		}
		e.kernel.AddLink(i.ID.Link(), typ, nil)
	case model.KindSysctl:
		e.kernel.Add(i.ID, model.Fields{"value": "other"})
	default:
		e.kernel.Add(i.ID, nil)
	}
}

// refused is what apply says on a kernel; "" where it has everything. Nothing is touched.
func (e *everything) refused(kernel *kerneltest.Lacking) string {
	e.t.Helper()
	j, err := journal.Open(e.t.TempDir())
	if err != nil {
		e.t.Fatal(err)
	}
	defer j.Close()
	engine := &apply.Engine{Instance: e.file.Instance, Kernel: e.kernel, Preflight: kernel, Journal: j, Tunnels: true}
	made, _, err := engine.Plan(e.t.Context(), e.items)
	if err != nil {
		e.t.Fatal(err)
	}
	if made.HasConflict() {
		e.t.Fatalf("the file does not fit the machine of the test:\n%s", made)
	}
	missing, err := kernel.Try(e.t.Context(), made.Steps)
	if err != nil {
		e.t.Fatal(err)
	}
	if len(missing) == 0 {
		return ""
	}
	before := e.kernel.All()
	_, err = engine.Apply(e.t.Context(), e.items)
	if _, ok := errors.AsType[*apply.MissingError](err); !ok {
		e.t.Fatalf("apply says %v", err)
	}
	if !maps.EqualFunc(before, e.kernel.All(), func(a, b model.Object) bool { return maps.Equal(a.Fields, b.Fields) }) {
		e.t.Error("something was touched")
	}
	text := wordNetwork(e.file, e.items, err).Error() + "\n"
	return strings.ReplaceAll(text, filepath.Dir(e.file.Path)+"/", "")
}

// TestMissingOptions has a kernel without each of the options that are needed for anything, and holds what is said of it.
func TestMissingOptions(t *testing.T) {
	e := newEverything(t)
	if text := e.refused(&kerneltest.Lacking{}); text != "" {
		t.Fatalf("of a kernel that has everything it is said\n%s", text)
	}
	want := []string{"everything.yaml", "settings.txt"}
	for _, option := range kerneltest.Options() {
		text := e.refused(&kerneltest.Lacking{Options: []string{option}})
		if text == "" {
			t.Errorf("a kernel without %s is not refused", option)
			continue
		}
		name := strings.TrimPrefix(option, "CONFIG_") + ".txt"
		want = append(want, name)
		golden.Check(t, filepath.Join("testdata", "missing", name), text)
	}
	files, err := os.ReadDir(filepath.Join("testdata", "missing"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(want, f.Name()) {
			t.Errorf("testdata/missing/%s is of no option", f.Name())
		}
	}
}

// variants are the types that a field is of: those of links and of attachments' masters, kinds of disciplines; "" where all have it.
func variants(info *model.Info) (list []string) {
	for _, t := range info.Types {
		list = append(list, string(t))
	}
	if info.Qdisc != "" {
		list = append(list, info.Qdisc)
	}
	if list == nil {
		list = []string{""}
	}
	return list
}

// alwaysThere are the settings that every Linux has which has the thing they are of, or that no kernel has anything to do with: nothing is said
// of them alone. A kind by itself is all its settings.
var alwaysThere = map[string]string{
	"link  type":              "the kind itself, which an option brings",
	"link  mtu":               "of every device",
	"link  mac":               "of every device",
	"link  up":                "of every device",
	"link  parent":            "part of what such a device is",
	"link veth peer":          "part of what a veth is",
	"link tun owner":          "as old as the driver",
	"link tap owner":          "as old as the driver",
	"link tun group":          "Linux 2.6.23",
	"link tap group":          "Linux 2.6.23",
	"link macvlan macs":       "comes with the mode source",
	"link macvtap macs":       "comes with the mode source",
	"link bridge vlans":       "refused with an answer: BRIDGE_VLAN_FILTERING.txt",
	"link bond primary":       "as old as the driver; set once its port is there",
	"attachment  master":      "part of what a port is",
	"attachment bridge vlans": "refused with an answer: BRIDGE_VLAN_FILTERING.txt",
	"address":                 "nodad: Linux 2.6.19",
	"route":                   "as old as rtnetlink; tables: IP_MULTIPLE_TABLES.txt",
	"rule":                    "suppress_prefixlength, the newest: Linux 3.12",
	"nat":                     "one thing: NF_TABLES.txt",
	"firewall":                "refused with an answer: NFT_CT.txt, NF_CONNTRACK_MARK.txt",
	"class":                   "as old as htb",
	"filter":                  "one thing: NET_CLS_U32.txt",
	"process":                 "not the kernel's",
	"handover":                "not the kernel's",
	"dns":                     "not the kernel's",
}

// TestMissingSettings has a kernel that is deaf to each of the settings there are, and holds what is said of it: a kind or a setting that comes
// to the model has to come to everything.yaml and to settings.txt, or to be said to be in every kernel.
func TestMissingSettings(t *testing.T) {
	e := newEverything(t)
	used := make(map[string]bool)
	for _, i := range e.items {
		kind := i.ID.Kind()
		for f := range i.Fields {
			used[fmt.Sprint(kind, " ", i.Type, " ", f)], used[fmt.Sprint(kind, "  ", f)] = true, true
		}
		used[string(kind)] = true
	}
	for _, kind := range model.Kinds {
		if !used[string(kind)] {
			t.Errorf("everything.yaml has no %s", kind)
		}
	}
	var b strings.Builder
	for i := range model.Schema {
		info := &model.Schema[i]
		for _, typ := range variants(info) {
			name := fmt.Sprintf("%s %s %s", info.Kind, typ, info.Field)
			if !used[name] {
				t.Errorf("everything.yaml does not set %s", name)
				continue
			}
			said := e.refused(&kerneltest.Lacking{Deaf: func(kind model.Kind, of string, f model.Field) bool {
				return kind == info.Kind && (typ == "" || of == typ) && f == info.Field
			}})
			_, always := alwaysThere[name]
			_, kindAlways := alwaysThere[string(info.Kind)]
			switch always = always || kindAlways; {
			case said == "" && !always:
				t.Errorf("a kernel that takes no notice of %s is not refused", name)
			case said != "" && always:
				t.Errorf("%s is in every kernel, but of one without it is said\n%s", name, said)
			case said != "":
				fmt.Fprintf(&b, "# %s\n%s", strings.Join(strings.Fields(name), " "), said)
			}
		}
	}
	golden.Check(t, "testdata/missing/settings.txt", b.String())
}
