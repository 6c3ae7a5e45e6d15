package kernel_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// deletions are the steps that delete links, each by what was read of it.
func (m *machine) deletions(names ...string) (steps []plan.Step) {
	for _, name := range names {
		o := m.object(model.LinkID(m.ref(name)))
		steps = append(steps, plan.Step{Op: plan.Delete, ID: o.ID, Type: string(o.Fields["type"]), Fields: o.Fields, Index: o.Index, Inode: o.Inode})
	}
	return steps
}

// Links of several namespaces and kinds go together, with what is on them; everything else stays.
func TestDeletedTogether(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.home.Shell("ip", "link", "add", "theirs", "type", "bridge")
	m.link("keep", "bridge", nil)
	before := m.read()
	var names []string
	for i := range 3 {
		br, tap, v := fmt.Sprint("br", i), fmt.Sprint("tap", i), fmt.Sprint("v", i)
		m.link(br, "bridge", nil)
		m.link(tap, "tap", nil)
		m.link(v, "veth", model.Fields{"peer": model.Link(m.ref(fmt.Sprint("other/w", i)))})
		m.link(fmt.Sprint("m", i), "macvlan", model.Fields{"parent": model.Link(model.Ref(v)), "mode": "private"})
		m.create(model.AttachmentID(model.Ref(tap)), "bridge", model.Fields{"master": model.Text(br)})
		m.link(fmt.Sprint("other/p", i), "veth", model.Fields{"peer": model.Link(m.ref(fmt.Sprint("other/q", i)))})
		names = append(names, fmt.Sprint("m", i), v, tap, br, fmt.Sprint("other/p", i), fmt.Sprint("other/q", i))
	}
	steps := m.deletions(names...)
	gone := steps[0]
	gone.ID = model.LinkID("gone")
	if err := m.k.DeleteLinks(t.Context(), append(steps, gone)); err != nil {
		t.Fatal(err)
	}
	m.same("deleted", before, m.read())
	if err := m.k.DeleteLinks(t.Context(), steps); err != nil {
		t.Errorf("what is gone: %v", err)
	}
}

// Where one of them is not to be deleted all stay, in the groups they were in.
func TestNotDeletedTogether(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, name := range []string{"a", "b", "c"} {
		m.link(name, "bridge", nil)
	}
	m.home.Shell("ip", "link", "add", "theirs", "type", "bridge")
	steps := m.deletions("a", "b", "theirs", "c")
	try := func(what, want string, steps []plan.Step) {
		t.Helper()
		before := m.read()
		if err := m.k.DeleteLinks(t.Context(), steps); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		m.same(what, before, m.read())
	}
	try("somebody else's", "delete link theirs: it is in group 0, so culvert did not make it", steps)
	steps = m.deletions("a", "b", "c")
	steps[1].Index++
	try("another index", "it is another one by now", steps)
	steps = m.deletions("a", "b", "c")
	steps[1].Inode++
	try("another namespace", "is another one than before", steps)
	steps[1].Op = plan.Change
	try("a change", "unsupported operation", steps)
}

// A link that a process which was killed had put into the group of what is to be deleted is known, deleted, or marked as before.
func TestKilledWhileDeletingTogether(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.link("a", "bridge", nil)
	m.link("b", "bridge", nil)
	before := m.read()
	doom := func(name string) {
		m.home.Must(func() error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return netlink.LinkSetGroup(l, int(model.DoomedGroup(3)))
		})
	}
	doom("a")
	doom("b")
	a := m.object("link a")
	if !model.IsOwnGroup(a.Group) || a.Group == model.Group {
		t.Fatalf("a is in group %#x", a.Group)
	}
	m.do(plan.Step{Op: plan.Change, ID: a.ID, Type: "bridge", Index: a.Index, Inode: a.Inode, Alias: a.Alias})
	m.do(plan.Step{Op: plan.Change, ID: "link b", Type: "bridge", Alias: m.object("link b").Alias})
	m.same("marked again", before, m.read())
	doom("a")
	m.remove(m.object("link a"))
	if m.read().Objects["link a"] != nil {
		t.Error("it is left")
	}
}
