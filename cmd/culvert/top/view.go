package top

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"culvert/control"
	"culvert/server/terminal"
)

// View draws the screen.
func (m *Model) View() tea.View {
	v := tea.NewView(strings.Join(m.Frame(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "culvert top"
	return v
}

// Frame is the screen in lines, none of them wider than the window. They hold escape sequences for colours alone, if any.
func (m *Model) Frame() []string {
	var body []string
	switch m.page {
	case helpPage:
		body = m.helpLines()
	case detailPage:
		body = m.detailLines()
	default:
		body = m.listLines()
	}
	if m.height > 0 {
		last := m.height - 1
		body = body[:min(last, len(body))]
		for len(body) < last {
			body = append(body, "")
		}
		body = append(body, m.keyLine())
	}
	for i, line := range body {
		if ansi.StringWidth(line) > m.width { // of the lines that do not ask how wide it is
			body[i] = ansi.Truncate(line, m.width, "")
		}
	}
	return body
}

func (m *Model) paint(p paint, text string) string { return m.look.paint(p, text) }

// titleLine is the bar at the top.
func (m *Model) titleLine(what string) string {
	clock := ""
	if !m.now.IsZero() {
		clock = m.now.Format("15:04:05")
	}
	if m.paused {
		clock = "PAUSED  " + clock
	} else if m.height > 0 && m.width >= 76 {
		clock = "every " + m.o.Interval.String() + "  " + clock
	}
	left := " culvert top  " + what
	room := m.width - len(clock) - 2
	if room < len(" culvert top") {
		return m.paint(title, cell(left, m.width))
	}
	return m.paint(title, cell(left, room)+" "+clock+" ")
}

// notice is what is to be told besides, "" where nothing is.
func (m *Model) notice() string {
	var parts []string
	for i := range m.shown {
		if in := &m.shown[i]; !in.gone.IsZero() {
			parts = append(parts, fmt.Sprintf("%s does not run any more, since %s", in.Name, in.gone.Format("15:04:05")))
		}
	}
	switch {
	case m.err != nil && (len(parts) == 0 || m.o.Name == ""):
		parts = append(parts, terminal.Safe(m.err.Error()))
	case m.asking && m.asked && !m.paused && m.now.Sub(m.next) > 3*time.Second:
		parts = append(parts, fmt.Sprintf("no answer for %s", age(m.now.Sub(m.next))))
	}
	var only []string
	if m.tunnel != (tunnelID{}) {
		only = append(only, "tunnel "+terminal.Safe(m.tunnel.tunnel))
	}
	if m.which != everyone {
		only = append(only, whichNames[m.which])
	}
	if m.filter != "" && !m.typing {
		only = append(only, "/"+m.filter)
	}
	if len(only) > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d peers: %s (esc: all)", len(m.rows), m.total, strings.Join(only, ", ")))
	}
	return strings.Join(parts, "; ")
}

func (m *Model) listLines() []string {
	l := m.layout()
	var lines []string
	gap := func() {
		if l.airy {
			lines = append(lines, "")
		}
	}
	lines = append(lines, m.titleLine(m.summary()), m.totalsLine())
	if l.notice {
		lines = append(lines, m.paint(warning, cell(" "+m.notice(), m.width)))
	}
	gap()
	if len(m.shown) == 0 {
		text := "asking..."
		if m.asked {
			text = "nothing is running; this waits until something does"
		}
		return append(lines, " "+cell(text, m.width-1))
	}
	c := columnsFor(m.width, len(m.tunnels()) > 1)
	if l.tunnels > 0 {
		lines = append(lines, m.tunnelLines(&c, l.tunnels)...)
		gap()
	}
	lines = append(lines, m.peerLines(&c, l.peers)...)
	if l.drops > 0 {
		gap()
		lines = append(lines, m.dropLines(l.drops)...)
	}
	return lines
}

// summary words what there is.
func (m *Model) summary() string {
	tunnels, peers, inContact := 0, 0, 0
	for i := range m.shown {
		in := &m.shown[i]
		for j := range in.Tunnels {
			tunnels++
			peers += len(in.Tunnels[j].Peers)
			inContact += m.inContact(in, &in.Tunnels[j])
		}
	}
	switch {
	case !m.asked:
		return ""
	case tunnels == 0:
		return "no tunnels"
	}
	text := plural(tunnels, "tunnel")
	if m.o.Name != "" {
		text = terminal.Safe(m.o.Name) + ": " + text
	}
	return fmt.Sprintf("%s, %d of %s in contact", text, inContact, plural(peers, "peer"))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// inContact counts the peers of a tunnel that are reached.
func (m *Model) inContact(in *shownInstance, t *control.Tunnel) (n int) {
	if !in.gone.IsZero() {
		return 0
	}
	for k := range t.Peers {
		if r := (row{peer: &t.Peers[k]}); r.state() == reached {
			n++
		}
	}
	return n
}

// totalsLine is the sum of all that is shown.
func (m *Model) totalsLine() string {
	f, in, out, drops := &m.history.all, m.history.inRate, m.history.outRate, float32(0)
	if t := m.history.tunnels[m.tunnel]; m.tunnel != (tunnelID{}) && t != nil {
		f, in, out = &t.flow, t.inRate, t.outRate
	}
	for id, t := range m.history.tunnels {
		if m.visible(id) && known(t.dropRate) {
			drops += t.dropRate
		}
	}
	room := (m.width - 46) / 2
	way := func(p paint, arrow string, s series, v float32) string {
		text := fmt.Sprintf(" %s %s bit/s ", arrow, right(rate(v), rateWidth))
		if room >= 4 {
			text += m.flow(s, min(room, 60))
		}
		return m.paint(p, text)
	}
	line := way(inward, m.look.in, f.in, in) + " " + way(outward, m.look.out, f.out, out)
	if m.width >= 60 {
		p := plain
		if drops > 0 {
			p = warning
		}
		line += "  " + m.paint(p, "dropped "+rate(drops)+"/s")
	}
	return line
}

// least is the rate that fills a sparkline at least, in bits a second: handshakes and keepalives alone are to look like little.
const least = 10e3

// flow draws rates.
func (m *Model) flow(s series, width int) string {
	values := s.last(m.history.n, width)
	return m.look.spark(values, max(least, largest(values)))
}

// header is a column's title, marked where rows are sorted by it.
func (m *Model) header(o order, text string) string {
	if m.order != o {
		return text
	}
	return text + m.look.sorted
}

// rateHeads are the titles of the columns at the right edge.
func (m *Model) rateHeads(c *columns, in, out string) string {
	w := rateWidth
	if c.spark > 0 {
		w += c.spark + 1
		in, out = strings.Replace(in, "IN", "IN bit/s", 1), strings.Replace(out, "OUT", "OUT bit/s", 1)
	} else {
		in, out = strings.Replace(in, " ", "", 1), strings.Replace(out, " ", "", 1)
	}
	return right(in, w) + "  " + right(out, w)
}

// rates are these columns.
func (m *Model) rates(c *columns, f *flow, in, out float32, painted bool) string {
	way := func(p paint, s series, v float32) string {
		text := right(rate(v), rateWidth)
		if c.spark > 0 {
			text = m.flow(s, c.spark) + " " + text
		}
		switch {
		case !painted:
			return text
		case !known(v) || v == 0:
			return m.paint(faint, text)
		}
		return m.paint(p, text)
	}
	return way(inward, f.in, in) + "  " + way(outward, f.out, out)
}

// part is a cell with how it is painted.
type part struct {
	paint paint
	text  string
}

// join puts cells side by side; where the whole line is painted, as one.
func (m *Model) join(painted bool, parts []part) string {
	var b strings.Builder
	for _, p := range parts {
		if painted {
			b.WriteString(m.paint(p.paint, p.text))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

func (m *Model) tunnelLines(c *columns, rows int) []string {
	head := "  " + cell("TUNNEL", c.tunnelName)
	for _, h := range []struct {
		width int
		text  string
	}{{c.instance, "INSTANCE"}, {c.port, "PORT"}, {c.mtu, "MTU"}, {c.contact, "PEERS"}, {c.drops, "DROP/s"}} {
		if h.width == c.instance && h.text == "INSTANCE" && h.width > 0 {
			head += " " + cell(h.text, h.width)
		} else if h.width > 0 {
			head += " " + right(h.text, h.width)
		}
	}
	head += " " + m.rateHeads(c, m.look.inHead+"IN", m.look.outHead+"OUT")
	lines := []string{m.paint(heading, cell(head, m.width))}
	left := len(m.tunnels())
	for i := range m.shown {
		in := &m.shown[i]
		for j := range in.Tunnels {
			if len(lines) == rows && left > 1 { // the last line says how many there are besides
				return append(lines, m.paint(faint, cell(fmt.Sprintf("  and %s more", plural(left, "tunnel")), m.width)))
			}
			lines = append(lines, m.tunnelLine(c, in, &in.Tunnels[j]))
			left--
		}
	}
	return lines
}

func (m *Model) tunnelLine(c *columns, in *shownInstance, t *control.Tunnel) string {
	id := tunnelID{in.Name, t.Interface}
	track := m.history.tunnels[id]
	if track == nil {
		track = &tunnelTrack{inRate: unknown, outRate: unknown, dropRate: unknown}
	}
	mark, markPaint := m.look.reached, good
	switch {
	case !in.gone.IsZero() || !t.Up:
		mark, markPaint = m.look.trying, bad
	case t.Switch != nil && t.Switch.Blocked, t.UnderLoad:
		markPaint = warning
	}
	mainPaint := plain
	if !in.gone.IsZero() || !m.visible(id) {
		mainPaint = faint
	}
	name := terminal.Safe(t.Interface)
	switch {
	case !in.gone.IsZero():
		name += " (gone)"
	case !t.Up:
		name += " (down)"
	case t.Switch != nil && t.Switch.Blocked:
		name += " (loop: blocked)"
	case t.UnderLoad:
		name += " (under load)"
	}
	parts := []part{{markPaint, mark + " "}, {mainPaint, cell(name, c.tunnelName)}}
	add := func(width int, p paint, text string) {
		if width > 0 {
			parts = append(parts, part{p, " " + right(text, width)})
		}
	}
	if c.instance > 0 {
		parts = append(parts, part{mainPaint, " " + cell(terminal.Safe(in.Name), c.instance)})
	}
	port := "-"
	if t.ListenPort != 0 {
		port = strconv.Itoa(int(t.ListenPort))
	}
	add(c.port, mainPaint, port)
	add(c.mtu, mainPaint, strconv.Itoa(t.MTU))
	add(c.contact, mainPaint, fmt.Sprintf("%s/%s", count(uint64(m.inContact(in, t))), count(uint64(len(t.Peers)))))
	dropPaint := mainPaint
	if known(track.dropRate) && track.dropRate > 0 {
		dropPaint = warning
	}
	add(c.drops, dropPaint, rate(track.dropRate))
	return m.join(true, parts) + " " + m.rates(c, &track.flow, track.inRate, track.outRate, true)
}

func (m *Model) peerLines(c *columns, rows int) []string {
	head := "  " + cell(m.header(byName, "PEER"), c.name)
	put := func(width int, text string, align func(string, int) string) {
		if width > 0 {
			head += " " + align(text, width)
		}
	}
	put(c.tunnel, m.header(byTunnel, "TUNNEL"), cell)
	put(c.endpoint, "ENDPOINT", cell)
	put(c.allowed, "ALLOWED IPS", cell)
	put(c.seen, m.header(bySeen, "SEEN"), right)
	put(c.rtt, m.header(byRTT, "RTT"), right)
	put(c.loss, m.header(byLoss, "LOSS"), right)
	put(c.total, m.header(byTotal, "TOTAL"), right)
	in, out := m.header(byIn, m.look.inHead+"IN"), m.header(byOut, m.look.outHead+"OUT")
	if m.order == byRate {
		in, out = in+m.look.sorted, out+m.look.sorted
	}
	head += " " + m.rateHeads(c, in, out)
	lines := []string{m.paint(heading, cell(head, m.width))}
	if len(m.rows) == 0 {
		text := "no peers"
		if m.total > 0 {
			text = "no peer is like that; esc shows all"
		}
		return append(lines, m.paint(faint, "  "+cell(text, m.width-2)))
	}
	for i := m.offset; i < min(len(m.rows), m.offset+rows); i++ {
		lines = append(lines, m.peerLine(c, &m.rows[i], m.height > 0 && i == m.cursor))
	}
	return lines
}

func (m *Model) peerLine(c *columns, r *row, under bool) string {
	mark, markPaint := m.mark(r)
	p := plain
	if r.track.seen != m.history.n {
		p, markPaint = faint, faint
	}
	parts := []part{{markPaint, mark + " "}, {p, cell(terminal.Safe(r.name()), c.name)}}
	if c.tunnel > 0 {
		parts = append(parts, part{p, " " + cell(terminal.Safe(r.id.tunnel), c.tunnel)})
	}
	if c.endpoint > 0 {
		parts = append(parts, part{faint, " " + cell(terminal.Safe(endpointText(r.peer)), c.endpoint)})
	}
	if c.allowed > 0 {
		parts = append(parts, part{faint, " " + cell(allowedText(r.peer), c.allowed)})
	}
	if c.seen > 0 {
		seenPaint := p
		if r.state() != reached {
			seenPaint = faint
		}
		parts = append(parts, part{seenPaint, " " + right(age(r.silent), c.seen)})
	}
	rtt, loss, lossPaint := "-", "-", p
	if n := r.peer.Native; n != nil && r.state() == reached {
		rtt = seconds(n.RTT)
		if n.Loss != nil {
			loss = percent(*n.Loss)
			switch {
			case *n.Loss >= 3*lossTrouble:
				lossPaint = bad
			case *n.Loss >= lossTrouble:
				lossPaint = warning
			}
		}
	}
	if c.rtt > 0 {
		parts = append(parts, part{p, " " + right(rtt, c.rtt)})
	}
	if c.loss > 0 {
		parts = append(parts, part{lossPaint, " " + right(loss, c.loss)})
	}
	if c.total > 0 {
		parts = append(parts, part{p, " " + right(bytes(r.peer.ReceivedBytes+r.peer.SentBytes), c.total)})
	}
	line := m.join(!under, parts) + " " + m.rates(c, &r.track.flow, r.track.inRate, r.track.outRate, !under)
	if under {
		return m.paint(selected, cell(line, m.width))
	}
	return line
}

// mark is the sign of a peer's state.
func (m *Model) mark(r *row) (string, paint) {
	if r.track.seen != m.history.n { // gone
		return m.look.idle, faint
	}
	switch r.state() {
	case reached:
		return m.look.reached, good
	case trying:
		return m.look.trying, bad
	}
	return m.look.idle, faint
}

func endpointText(p *control.Peer) string {
	if p.TCP {
		return p.Endpoint + " TCP"
	}
	return p.Endpoint
}

func allowedText(p *control.Peer) string {
	var list []string
	for _, a := range p.AllowedIPs {
		if len(list) == 8 {
			break // more would not be seen
		}
		list = append(list, a.String())
	}
	return strings.Join(list, ", ")
}

func (m *Model) dropLines(rows int) []string {
	lines := []string{m.paint(heading, cell("  DROP/s   TOTAL TUNNEL       REASON", m.width))}
	for i, d := range m.history.drops(m.visible) {
		if i == rows {
			break
		}
		p := faint
		if d.rate > 0 {
			p = warning
		}
		text := fmt.Sprintf("%s %s %s %s", right(rate(d.rate), 8), right(count(d.total), 7), cell(terminal.Safe(d.tunnel.tunnel), 12), terminal.Safe(d.reason))
		lines = append(lines, m.paint(p, cell(text, m.width)))
	}
	return lines
}

// keyLine is the line at the bottom.
func (m *Model) keyLine() string {
	if m.typing {
		found := fmt.Sprintf("  %d of %d   enter keeps the filter, esc takes it away", len(m.rows), m.total)
		text := "/" + m.filter
		return m.paint(key, text) + m.paint(selected, " ") + cell(found, m.width-2-len([]rune(m.filter)))
	}
	list := [][2]string{{"enter", "peer"}, {"s r", "sort"}, {"/", "filter"}, {"a", "which"}, {"t", "tunnel"}, {"space", "pause"}, {"?", "help"}, {"q", "quit"}}
	switch m.page {
	case detailPage:
		list = [][2]string{{"esc", "back"}, {"up down", "other peers"}, {"space", "pause"}, {"?", "help"}, {"q", "quit"}}
	case helpPage:
		list = [][2]string{{"any key", "back"}}
	}
	var b strings.Builder
	used := 1
	b.WriteByte(' ')
	for _, k := range list {
		w := len(k[0]) + len(k[1]) + 3
		if used+w > m.width {
			break
		}
		used += w
		b.WriteString(m.paint(key, k[0]) + " " + m.paint(faint, k[1]) + "  ")
	}
	if m.page == listPage && len(m.rows) > 0 {
		where := fmt.Sprintf("%d/%d", m.cursor+1, len(m.rows))
		if used+len(where)+1 < m.width {
			b.WriteString(strings.Repeat(" ", m.width-used-len(where)-1) + m.paint(faint, where))
		}
	}
	return b.String()
}
