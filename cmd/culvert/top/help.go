package top

// helpLines are the page of keys, and of what the list shows.
func (m *Model) helpLines() []string {
	lines := []string{m.titleLine("help"), ""}
	row := func(left, text string) {
		lines = append(lines, "  "+m.paint(key, cell(left, 15))+" "+cell(text, m.width-18))
	}
	for _, k := range keysHelp {
		row(k[0], k[1])
	}
	lines = append(lines, "")
	for _, c := range [][2]string{
		{m.look.reached + " " + m.look.idle + " " + m.look.trying, "in contact; no session, nor wanted; handshakes unanswered"},
		{"SEEN", "since anything came in from it"},
		{"RTT, LOSS", "round trip; lost on the way to it (culvert's own wire alone)"},
		{"IN, OUT", "UDP payload; each sparkline is as high as its largest value"},
		{"DROP/s, REASON", "packets dropped, and why; totals are since the start"},
	} {
		row(c[0], c[1])
	}
	lines = append(lines, "")
	row("sorted by", orderNames[m.order]+map[bool]string{true: ", the other way round", false: ""}[m.reverse])
	return lines
}
