package scenes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// change is an edit of a scene's file while it is up.
type change struct {
	replace []string // of the file's text: old, new, old, new
	want    []string // each is in the plan's text
}

// scene is an example with all that happens to it.
type scene struct {
	file    string
	replace []string // of the example: what the host's kernel lacks
	// guest says that only the guest's kernel can do it.
	guest bool
	// around makes what the example calls external, and what is beyond that. What it returns is run while the example is up: after
	// it was applied, and again after each change.
	around  func(m *machine) (traffic func())
	changes []change
}

// play applies, checks, changes and destroys.
func (s *scene) play(t *testing.T) {
	t.Parallel()
	if s.guest && !inGuest() {
		t.Skip("runs in the guest of TestInGuest")
	}
	m := newMachine(t)
	traffic := s.around(m)
	before := m.settledSnapshot()
	m.example(s.file, s.replace...)
	if p := m.apply(); p.IsEmpty() {
		t.Error("it plans nothing")
	}
	m.settled()
	traffic()
	for i, c := range s.changes {
		m.edit(c.replace...)
		p := m.apply()
		for _, want := range c.want {
			if !strings.Contains(p.String(), want) {
				t.Errorf("change %d: the plan does not say %q:\n%s", i, want, &p)
			}
		}
		m.settled()
		traffic()
	}
	if t.Failed() {
		return
	}
	m.destroyed(before)
	// Once more, in one go, and gone again.
	m.apply()
	m.destroyed(before)
}

// reachesFrom waits until a host reaches an address.
func reachesFrom(t *testing.T, h *lab.Host, to string) {
	t.Helper()
	lab.Eventually(t, patience, fmt.Sprintf("%s answers %s", to, h.Name), func() bool { return h.Ping(netip.MustParseAddr(to)) == nil })
}

// silent demands that an address does not answer a host.
func silent(t *testing.T, h *lab.Host, to string) {
	t.Helper()
	if h.Ping(netip.MustParseAddr(to)) == nil {
		t.Errorf("%s answers %s", to, h.Name)
	}
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }
