package top

import (
	"slices"

	tea "charm.land/bubbletea/v2"
)

// keysHelp are the keys and what they do, as the help page shows them.
var keysHelp = [][2]string{
	{"up, down, k, j", "choose a peer; also PgUp, PgDn, Home, End, g, G"},
	{"enter", "show the peer alone; esc goes back"},
	{"s, S", "sort by the next or previous column"},
	{"r", "sort the other way round"},
	{"/", "filter by words in name, key, addresses, tunnel; esc: none"},
	{"a", "all peers, those in contact, those in trouble"},
	{"t, T", "the next or previous tunnel alone, then all again"},
	{"space, p", "pause"},
	{"?, h", "this page"},
	{"q", "end"},
}

// press takes a key.
func (m *Model) press(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	switch name {
	case "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return tea.Suspend
	case "ctrl+l":
		return tea.ClearScreen
	}
	if m.typing {
		m.pressTyping(k, name)
		return nil
	}
	if m.page == helpPage {
		m.page = m.before
		return nil
	}
	switch name {
	case "q":
		return tea.Quit
	case "?", "h", "f1":
		m.before, m.page = m.page, helpPage
	case "space", "p":
		m.paused = !m.paused
		if !m.paused && !m.asking {
			m.asking = true
			return m.ask()
		}
	case "up", "k":
		m.move(m.cursor - 1)
	case "down", "j":
		m.move(m.cursor + 1)
	default:
		if m.page == detailPage {
			m.pressDetail(name)
		} else {
			m.pressList(name)
		}
	}
	return nil
}

func (m *Model) pressDetail(name string) {
	switch name {
	case "esc", "backspace", "left", "enter":
		m.page, m.scroll = listPage, 0
		m.follow()
	case "pgdown":
		m.scroll += max(1, m.height/2)
	case "pgup":
		m.scroll = max(0, m.scroll-max(1, m.height/2))
	}
}

func (m *Model) pressList(name string) {
	fits := max(1, m.layout().peers)
	switch name {
	case "pgup":
		m.move(m.cursor - fits)
	case "pgdown":
		m.move(m.cursor + fits)
	case "home", "g":
		m.move(0)
	case "end", "G":
		m.move(len(m.rows) - 1)
	case "enter", "right":
		if len(m.rows) > 0 {
			m.move(m.cursor)
			m.page = detailPage
		}
	case "s", ">", "S", "<":
		step := order(1)
		if name == "S" || name == "<" {
			step = orders - 1
		}
		m.order = (m.order + step) % orders
		m.arrange()
	case "r":
		m.reverse = !m.reverse
		m.arrange()
	case "a":
		m.which = (m.which + 1) % whiches
		m.arrange()
	case "t", "T":
		m.nextTunnel(name == "T")
	case "/":
		m.typing = true
	case "esc":
		m.filter, m.which, m.tunnel = "", everyone, tunnelID{}
		m.arrange()
	}
}

func (m *Model) nextTunnel(back bool) {
	list := append([]tunnelID{{}}, m.tunnels()...) // the zero one stands for all
	step := 1
	if back {
		step = len(list) - 1
	}
	m.tunnel = list[(max(0, slices.Index(list, m.tunnel))+step)%len(list)]
	m.arrange()
}

func (m *Model) pressTyping(k tea.KeyPressMsg, name string) {
	switch name {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
		m.arrange()
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
			m.arrange()
		}
	case "ctrl+u":
		m.filter = ""
		m.arrange()
	case "up", "down", "pgup", "pgdown": // to look at what is found
		if name == "up" || name == "pgup" {
			m.move(m.cursor - 1)
		} else {
			m.move(m.cursor + 1)
		}
	default:
		m.typeIn(k.Text)
	}
}
