package top

import (
	"context"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"culvert/control"
	"culvert/server/terminal"
)

// Options are what a view is made of.
type Options struct {
	Ask      func(context.Context) Snapshot // asks the daemons
	Name     string                         // of the instance, where it is of one alone
	Interval time.Duration                  // between two samples
	Drawn    Drawn
	ASCII    bool // for terminals without the characters of sparklines
}

// page is what is on the screen.
type page int

const (
	listPage page = iota
	detailPage
	helpPage
)

// Model is the view. It is to be used by one goroutine.
type Model struct {
	o     Options
	look  *look
	width int
	// height is the window's; 0 is as high as it takes.
	height int

	now    time.Time // of the newest tick or sample
	asking bool
	asked  bool      // anything has been answered
	next   time.Time // when to ask again
	paused bool
	err    error // of the newest sample

	history *history
	shown   []shownInstance // what there is, and what there was a moment ago
	rows    []row           // as sorted and filtered
	total   int             // peers before that

	page    page
	before  page // where help returns to
	typing  bool
	filter  string
	which   which
	tunnel  tunnelID // shown alone; zero: all
	order   order
	reverse bool
	cursor  int
	chosen  peerID // where the cursor is, also when rows move
	offset  int    // the first row on the screen
	scroll  int    // of the detail
}

// shownInstance is one that there is, or was a moment ago.
type shownInstance struct {
	control.Instance
	gone time.Time // since when it is; zero: it is there
}

// New is a view that has seen nothing yet.
func New(o Options) *Model {
	return &Model{o: o, look: newLook(o.Drawn, o.ASCII), width: 80, height: 24, history: newHistory()}
}

type tick time.Time

// Init begins to ask.
func (m *Model) Init() tea.Cmd {
	m.asking = true
	return tea.Batch(m.ask(), m.wait())
}

func (m *Model) ask() tea.Cmd {
	ask := m.o.Ask
	return func() tea.Msg { return ask(context.Background()) }
}

// pulse is how often the view looks whether it is time to ask, at most.
const pulse = time.Second

func (m *Model) wait() tea.Cmd {
	return tea.Tick(min(pulse, m.o.Interval), func(t time.Time) tea.Msg { return tick(t) })
}

// Update takes a message.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tick:
		return m, tea.Batch(m.ticked(time.Time(msg)), m.wait())
	case Snapshot:
		m.asking = false
		m.take(&msg)
	case tea.KeyPressMsg:
		return m, m.press(msg)
	case tea.PasteMsg:
		if m.typing {
			m.typeIn(msg.Content)
		}
	}
	m.follow()
	return m, nil
}

// slack is how early a tick may be for a sample: ticks come a little late or early.
const slack = 20 * time.Millisecond

func (m *Model) ticked(now time.Time) tea.Cmd {
	if m.paused {
		return nil
	}
	m.now = now
	if m.asking || now.Add(slack).Before(m.next) {
		return nil
	}
	m.asking = true
	return m.ask()
}

// linger is how long what has gone is still shown.
const linger = 30 * time.Second

// take shows a sample.
func (m *Model) take(s *Snapshot) {
	if m.paused && m.asked {
		return
	}
	m.now, m.err, m.asked = s.At, s.Err, true
	// Many peers take the daemon a while: it is to do other things most of the time.
	m.next = s.At.Add(max(m.o.Interval-s.Took, 3*s.Took))
	m.history.take(s)
	old := m.shown
	m.shown = nil
	for i := range s.Instances {
		m.shown = append(m.shown, shownInstance{Instance: s.Instances[i]})
	}
	for _, was := range old {
		if slices.ContainsFunc(s.Instances, func(in control.Instance) bool { return in.Name == was.Name }) {
			continue
		}
		if was.gone.IsZero() {
			was.gone = s.At
		}
		if s.At.Sub(was.gone) < linger || m.o.Name != "" {
			m.shown = append(m.shown, was)
		}
	}
	slices.SortFunc(m.shown, func(a, b shownInstance) int { return strings.Compare(a.Name, b.Name) })
	if m.tunnel != (tunnelID{}) && !slices.Contains(m.tunnels(), m.tunnel) {
		m.tunnel = tunnelID{}
	}
	m.arrange()
}

// tunnels lists what is there.
func (m *Model) tunnels() (list []tunnelID) {
	for i := range m.shown {
		for j := range m.shown[i].Tunnels {
			list = append(list, tunnelID{m.shown[i].Name, m.shown[i].Tunnels[j].Interface})
		}
	}
	return list
}

// visible reports whether a tunnel is among those shown.
func (m *Model) visible(id tunnelID) bool { return m.tunnel == (tunnelID{}) || m.tunnel == id }

// arrange makes the rows of what there is.
func (m *Model) arrange() {
	words := strings.Fields(strings.ToLower(m.filter))
	m.rows, m.total = m.rows[:0], 0
	for i := range m.shown {
		in := &m.shown[i].Instance
		for j := range in.Tunnels {
			t := &in.Tunnels[j]
			if !m.visible(tunnelID{in.Name, t.Interface}) {
				continue
			}
			for k := range t.Peers {
				p := &t.Peers[k]
				r := row{id: peerID{in.Name, t.Interface, p.PublicKey}, in: in, tunnel: t, peer: p, since: -1, silent: -1}
				if r.track = m.history.peers[r.id]; r.track == nil {
					r.track = &peerTrack{inRate: unknown, outRate: unknown}
				}
				if !p.LatestHandshake.IsZero() {
					r.since = max(0, m.now.Sub(p.LatestHandshake))
				}
				if heard := lastHeard(p); !heard.IsZero() {
					r.silent = max(0, m.now.Sub(heard))
				}
				m.total++
				if m.which.has(&r) && r.matches(words) {
					m.rows = append(m.rows, r)
				}
			}
		}
	}
	clear(m.rows[len(m.rows):cap(m.rows)])
	sortRows(m.rows, m.order, m.reverse)
	m.follow()
}

// follow keeps the cursor on its peer, and the rows around it on the screen.
func (m *Model) follow() {
	if m.cursor < len(m.rows) && m.rows[m.cursor].id == m.chosen {
	} else if at := slices.IndexFunc(m.rows, func(r row) bool { return r.id == m.chosen }); at >= 0 && m.chosen != (peerID{}) {
		m.cursor = at
	} else if m.page == detailPage && m.chosen != (peerID{}) {
		return // it may come back
	} else {
		m.cursor = max(0, min(m.cursor, len(m.rows)-1))
	}
	fits := m.layout().peers
	m.offset = max(0, min(m.offset, m.cursor, len(m.rows)-fits))
	if fits > 0 && m.cursor >= m.offset+fits {
		m.offset = m.cursor - fits + 1
	}
}

// move puts the cursor elsewhere, and holds it to the peer there.
func (m *Model) move(to int) {
	m.cursor = max(0, min(to, len(m.rows)-1))
	if len(m.rows) > 0 {
		m.chosen = m.rows[m.cursor].id
	}
	m.scroll = 0
	m.follow()
}

func (m *Model) typeIn(text string) {
	for _, r := range text {
		if len(m.filter) < 60 && terminal.Safe(string(r)) == string(r) {
			m.filter += string(r)
		}
	}
	m.arrange()
}
