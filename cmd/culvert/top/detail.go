package top

import (
	"fmt"
	"strings"
	"time"

	"culvert/control"
	"culvert/server/terminal"
)

// detailLines are of the peer that the cursor is on.
func (m *Model) detailLines() []string {
	if m.cursor >= len(m.rows) || m.rows[m.cursor].id != m.chosen {
		return []string{m.titleLine(terminal.Safe(m.chosen.tunnel)), "", " " + cell("the peer is not there now; esc goes back", m.width-1)}
	}
	r := &m.rows[m.cursor]
	lines := []string{m.titleLine(fmt.Sprintf("%s > %s", terminal.Safe(r.id.tunnel), terminal.Safe(r.name())))}
	if n := m.notice(); n != "" {
		lines = append(lines, m.paint(warning, cell(" "+n, m.width)))
	}
	body := m.facts(r)
	body = append(body, m.charts(r, len(lines)+len(body))...)
	body = append(body, m.lanes(r.peer)...)
	if m.height > 0 {
		m.scroll = max(0, min(m.scroll, len(body)-max(0, m.height-1-len(lines))))
	}
	return append(lines, body[m.scroll:]...)
}

// facts are the peer's, two in a line where there is room.
func (m *Model) facts(r *row) []string {
	p := r.peer
	type fact struct {
		name, text string
		wide       bool // a line of its own
		paint      paint
	}
	var list []fact
	add := func(name, format string, args ...any) {
		list = append(list, fact{name: name, text: fmt.Sprintf(format, args...)})
	}
	wide := func(name, format string, args ...any) {
		list = append(list, fact{name: name, text: fmt.Sprintf(format, args...), wide: true})
	}
	wide("key", "%s", p.PublicKey.Base64())
	if r.id.instance != r.id.tunnel {
		add("instance", "%s", terminal.Safe(r.id.instance))
	}
	switch {
	case p.Endpoint == "":
		add("endpoint", "not known yet")
	case p.TCP:
		add("endpoint", "%s over TCP", terminal.Safe(p.Endpoint))
	default:
		add("endpoint", "%s", terminal.Safe(p.Endpoint))
	}
	if p.Source != "" {
		add("from here", "%s", terminal.Safe(p.Source))
	}
	wire := terminal.Safe(p.Wire)
	if p.PostQuantum {
		wire += ", post-quantum"
	}
	if p.PresharedKey {
		wire += ", preshared key"
	}
	add("wire", "%s", wire)
	if p.Suite != "" {
		add("cipher", "%s", terminal.Safe(p.Suite))
	}
	if r.since < 0 {
		add("handshake", "none yet")
	} else {
		add("handshake", "%s ago", r.since.Truncate(time.Second))
	}
	if !p.LastHeard.IsZero() { // an older daemon does not tell
		add("heard", "%s ago", r.silent.Truncate(time.Second))
	}
	if p.HandshakeAttempts > 0 {
		list = append(list, fact{name: "unanswered", text: plural(p.HandshakeAttempts, "handshake"), paint: bad})
	}
	if p.Keepalive > 0 {
		add("keepalive", "every %d s", p.Keepalive)
	}
	add("received", "%s, %s packets", bytes(p.ReceivedBytes), count(p.ReceivedPackets))
	add("sent", "%s, %s packets", bytes(p.SentBytes), count(p.SentPackets))
	if n := p.Native; n != nil && r.state() == reached {
		if n.Loss != nil {
			f := fact{name: "loss", text: fmt.Sprintf("%.1f %% of what is sent to it", 100**n.Loss)}
			if *n.Loss >= lossTrouble {
				f.paint = warning
			}
			list = append(list, f)
		}
		path := fmt.Sprintf("%d bytes, %d inside", n.PathMTU, n.InnerMTU)
		if !n.PathSettled {
			path += ", searching"
		}
		add("path", "%s", path)
		if n.Agent != "" {
			add("program", "%s", terminal.Safe(n.Agent))
		}
	}
	if p.Port != nil {
		text := fmt.Sprintf("%s, %s", map[bool]string{true: "alive", false: "silent"}[p.Port.Alive], plural(p.Port.Addresses, "MAC address"))
		if p.Port.Addresses != 1 {
			text += "es"
			text = strings.Replace(text, "addresss", "address", 1)
		}
		add("port", "%s", text)
	} else {
		allowed := allowedText(p)
		if len(p.AllowedIPs) > 8 {
			allowed += fmt.Sprintf(" and %d more", len(p.AllowedIPs)-8)
		}
		wide("allowed", "%s", allowed)
	}
	if p.Access != nil {
		wide("access", "%s", accessText(p.Access))
	}

	const nameWidth = 10
	half := m.width / 2
	var lines []string
	open := "" // the left half of a line
	for _, f := range list {
		draw := func(width int) string {
			return " " + m.paint(faint, cell(f.name, nameWidth)) + " " + m.paint(f.paint, cell(f.text, width-nameWidth-2))
		}
		switch {
		case f.wide || half < 38:
			if open != "" {
				lines, open = append(lines, open), ""
			}
			lines = append(lines, draw(m.width))
		case open == "":
			open = draw(half)
		default:
			lines, open = append(lines, open+draw(m.width-half)), ""
		}
	}
	if open != "" {
		lines = append(lines, open)
	}
	return lines
}

// accessText words what the peer may do, and what was refused.
func accessText(a *control.Access) string {
	parts := []string{fmt.Sprintf("%s by default, %s, %s", a.Default, plural(a.Rules, "rule"), plural(a.Flows, "flow"))}
	if a.Held {
		parts = append(parts, "held")
	}
	if a.Closed != "" {
		parts = append(parts, "closed: "+terminal.Safe(a.Closed))
	}
	if a.Quota != nil {
		parts = append(parts, fmt.Sprintf("used %s of %s a %s", bytes(a.Quota.Used), bytes(a.Quota.Bytes), terminal.Safe(a.Quota.Every)))
	}
	sum := func(d control.AccessDrops) uint64 { return d.Denied + d.OverRate + d.OverQuota + d.ShutOut }
	if n := sum(a.FromPeer) + sum(a.ToPeer); n > 0 {
		parts = append(parts, fmt.Sprintf("refused %s packets", count(n)))
	}
	return strings.Join(parts, "; ")
}

// charts are the peer's rates and round trips; above is how many lines are over them.
func (m *Model) charts(r *row, above int) []string {
	withRTT := r.peer.Native != nil
	n := 2
	if withRTT {
		n = 3
	}
	spare := 6 * n // lines for all charts, besides a heading and an empty line each
	if m.height > 0 {
		spare = max(n, min(10*n, m.height-1-above-2*n))
	}
	tall := func(i int) int { return (spare + n - 1 - i) / n }
	width := max(1, min(span, m.width-2))
	var lines []string
	draw := func(p paint, name string, values []float32, full float32, tall int, text string) {
		lines = append(lines, "", " "+m.paint(heading, name)+"  "+cell(text, m.width-3-len(name)))
		for _, l := range m.look.chart(values, full, tall) {
			lines = append(lines, " "+m.paint(p, l))
		}
	}
	for i, way := range []struct {
		paint paint
		name  string
		s     series
		v     float32
	}{{inward, "received", r.track.in, r.track.inRate}, {outward, "sent", r.track.out, r.track.outRate}} {
		values := way.s.last(m.history.n, width)
		most := largest(values)
		draw(way.paint, way.name, values, max(least, most), tall(i), fmt.Sprintf("%s bit/s, at most %s", rate(way.v), rate(most)))
	}
	if withRTT {
		values := r.track.rtt.last(m.history.n, width)
		text := "not measured"
		if native := r.peer.Native; native.RTT > 0 {
			text = fmt.Sprintf("%s, least %s, deviation %s, at most %s", seconds(native.RTT), seconds(native.RTTMin), seconds(native.RTTVar), seconds(float64(largest(values))))
		}
		draw(good, "round trip", values, largest(values), tall(2), text)
	}
	return lines
}

func (m *Model) lanes(p *control.Peer) (lines []string) {
	if p.Native == nil || len(p.Native.Lanes) == 0 {
		return nil
	}
	lines = append(lines, "", m.paint(heading, cell("  LANE      IN     OUT  WHERE", m.width)))
	for _, l := range p.Native.Lanes {
		where := terminal.Safe(l.Endpoint)
		if !l.Open {
			where = "not in use"
		}
		lines = append(lines, cell(fmt.Sprintf("%s %s %s  %s", right(count(uint64(max(0, l.Number))), 6), right(bytes(l.ReceivedBytes), 7), right(bytes(l.SentBytes), 7), where), m.width))
	}
	return lines
}
