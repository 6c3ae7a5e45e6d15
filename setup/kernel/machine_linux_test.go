package kernel_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"culvert/internal/lab"
	"culvert/setup/apply"
	"culvert/setup/kernel"
	"culvert/setup/model"
	"culvert/setup/plan"
)

func TestMain(m *testing.M) { lab.Main(m) }

// inGuest says that this process runs inside a guest of these tests.
const inGuest = "CULVERT_KERNEL_GUEST"

func isGuest() bool { return os.Getenv(inGuest) != "" }

// machine is a host whose namespace the empty name stands for, with a second, named one.
type machine struct {
	t     testing.TB
	k     *kernel.Kernel
	home  *lab.Host
	other *lab.Host
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, home: lab.NewHost(t, "home"), other: lab.NewHost(t, "other")}
	m.k = kernel.New(m.home.NetnsPath())
	t.Cleanup(func() { m.k.Close() })
	return m
}

// netns is the name of the second namespace.
func (m *machine) netns() string { return m.other.NetnsName() }

// ref turns "other/x" into a reference to a device of the second namespace.
func (m *machine) ref(s string) model.Ref {
	if name, ok := strings.CutPrefix(s, "other/"); ok {
		return model.NewRef(m.netns(), name)
	}
	return model.Ref(s)
}

func (m *machine) read() *model.System {
	m.t.Helper()
	s, err := m.k.Read(m.t.Context(), model.Scope{Netns: []string{"", m.netns()}})
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *machine) try(step plan.Step) (apply.Done, error) { return m.k.Do(m.t.Context(), &step) }

func (m *machine) do(step plan.Step) apply.Done {
	m.t.Helper()
	done, err := m.try(step)
	if err != nil {
		m.t.Fatal(err)
	}
	return done
}

func (m *machine) create(id model.ID, typ string, fields model.Fields) apply.Done {
	m.t.Helper()
	step := plan.Step{Op: plan.Create, ID: id, Type: typ, Fields: fields}
	if id.Kind() == model.KindLink {
		step.Alias = mark(id)
		if peer := fields["peer"].Link(); peer != "" {
			step.PeerAlias = mark(model.LinkID(peer))
		}
	}
	return m.do(step)
}

// mark is an alias as a plan gives it.
func mark(id model.ID) string {
	return model.Mark{Instance: "test", ID: id, Hash: (&model.Item{ID: id}).Hash()}.Alias()
}

// link creates a link and returns its name.
func (m *machine) link(name, typ string, fields model.Fields) {
	m.t.Helper()
	if fields == nil {
		fields = model.Fields{}
	}
	fields["type"] = model.Text(typ)
	m.create(model.LinkID(m.ref(name)), typ, fields)
}

// set changes fields of a thing.
func (m *machine) set(id model.ID, typ string, old, new model.Fields) {
	m.t.Helper()
	if err := m.trySet(id, typ, old, new); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) trySet(id model.ID, typ string, old, new model.Fields) error {
	step := plan.Step{Op: plan.Change, ID: id, Type: typ}
	for _, f := range slices.Sorted(maps.Keys(new)) {
		step.Changes = append(step.Changes, plan.FieldChange{Field: f, Old: old[f], New: new[f]})
	}
	_, err := m.try(step)
	return err
}

func (m *machine) up(names ...string) {
	m.t.Helper()
	for _, name := range names {
		m.set(model.LinkID(m.ref(name)), "", model.Fields{"up": "no"}, model.Fields{"up": "yes"})
	}
}

// remove deletes a thing as a plan does: by what was read of it.
func (m *machine) remove(o *model.Object) {
	m.t.Helper()
	m.do(plan.Step{Op: plan.Delete, ID: o.ID, Fields: o.Fields, Index: o.Index, Inode: o.Inode})
}

// object returns what was read of a thing, which must be there.
func (m *machine) object(id model.ID) *model.Object {
	m.t.Helper()
	o := m.read().Objects[id]
	if o == nil {
		m.t.Fatalf("there is no %s", id)
	}
	return o
}

// want compares fields of a thing that are declared.
func (m *machine) want(id model.ID, fields model.Fields) *model.Object {
	m.t.Helper()
	o := m.object(id)
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		if have, ok := o.Fields[f]; !ok || have != fields[f] {
			m.t.Errorf("%s: %s is %q (read: %t), want %q", id, f, have, ok, fields[f])
		}
	}
	return o
}

// text is a system as lines that can be compared, without namespaces of other tests.
func (m *machine) text(s *model.System) []string {
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(s.Objects)) {
		o := s.Objects[id]
		if id.Kind() == model.KindNetns && id.Rest() != m.netns() {
			continue
		}
		line := fmt.Sprintf("%s %d %q %v", id, o.Group, o.Alias, o.Ours)
		for _, f := range slices.Sorted(maps.Keys(o.Fields)) {
			line += fmt.Sprintf(" %s=%s", f, o.Fields[f])
		}
		lines = append(lines, line)
	}
	return lines
}

// same compares a system with one before.
func (m *machine) same(what string, before, after *model.System) {
	m.t.Helper()
	a, b := m.text(before), m.text(after)
	for _, line := range a {
		if !slices.Contains(b, line) {
			m.t.Errorf("%s: no longer there:\n%s", what, line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			m.t.Errorf("%s: not there before:\n%s", what, line)
		}
	}
}
