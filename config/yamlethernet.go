package config

import "github.com/goccy/go-yaml/ast"

// modeKeys are the keys found in a tunnel and its peers that only one of the modes has. The mode may stand behind them.
// Nothing of their values is kept.
type modeKeys struct {
	tun, tap []entry
}

// checkMode reports the keys that a tunnel's mode has no use for.
func (y *yamlReader) checkMode(t *Tunnel, of *modeKeys) {
	switch t.Mode {
	case ModeTun:
		for _, e := range of.tap {
			y.fail(e.pos, `write "mode: tap" if the tunnel is to carry Ethernet frames, or take it out`,
				"%q is for Ethernet frames, and this tunnel carries IP packets", e.key)
		}
	case ModeTap:
		for _, e := range of.tun {
			what, hint := "frames are switched by their MAC addresses", `take it out; "macs" and "vlan" limit what a peer may send`
			if e.key == "table" {
				what, hint = "without allowed IPs there are no routes to put into it", `take it out; routes over the interface can be set by hooks`
			}
			y.fail(e.pos, hint, "%q is for IP packets, and this tunnel carries Ethernet frames (line %d): %s", e.key, t.ModePos.Line, what)
		}
	}
}

func (y *yamlReader) switching(e entry, s *Switch) {
	y.fields(e.value, "switch",
		field{"ageing", func(e entry) {
			if text, ok := y.numberOrText(e.value); ok {
				y.take(e.value.pos, read(&s.Ageing, parseAgeing, text))
			}
		}},
		field{"link_local", func(e entry) { s.LinkLocal, _ = y.truth(e.value) }},
		field{"proxy", func(e entry) { s.Proxy, _ = y.truth(e.value) }},
		field{"loop_detection", func(e entry) {
			detect, ok := y.truth(e.value)
			s.KeepLoops = ok && !detect
		}},
	)
}

// keepCarrier reads what carrier may be: on, or follow.
func (y *yamlReader) keepCarrier(v value) bool {
	s, ok := "", false
	if b, is := v.node.(*ast.BoolNode); is {
		s = b.GetToken().Value
	} else if s, ok = y.text(v); !ok {
		return false
	}
	switch s {
	case "on":
		return true
	case "follow":
	default:
		y.fail(v.pos, "write follow (the carrier is on while a peer is reached) or on (always)", "%s is not what a carrier can be", quote(s))
	}
	return false
}

func (y *yamlReader) stations(v value) (out []Station) {
	list := y.list(v, `["52:54:00:12:34:56"]`, MaxMACs)
	if _, is := v.node.(*ast.SequenceNode); is && len(list) == 0 {
		y.fail(v.pos, "leave it out to accept all addresses", "%s is empty", v.of)
	}
	for _, v := range list {
		if s, ok := y.text(v); ok {
			if m, p := parseMAC(s); y.take(v.pos, p) {
				out = append(out, Station{m, v.pos})
			}
		}
	}
	return out
}

func (y *yamlReader) vlans(e entry, into *VLANs) {
	into.Pos = e.pos
	before := len(y.errs) + y.more
	ok := y.fields(e.value, "vlan",
		field{"pvid", func(e entry) {
			if s, ok := y.number(e.value); ok {
				y.take(e.value.pos, read(&into.PVID, parseVLAN, s))
			}
		}},
		field{"tagged", func(e entry) { into.Tagged = y.tagged(e.value) }},
	)
	if ok && into.PVID == 0 && len(into.Tagged) == 0 && len(y.errs)+y.more == before {
		y.fail(e.pos, "leave it out to let all frames cross as they are", "%q names no VLAN", e.key)
	}
}

// tagged reads a list of VLANs and ranges of them.
func (y *yamlReader) tagged(v value) (out []uint16) {
	var seen [maxVLAN + 1]bool
	for _, v := range y.list(v, `[20, "100-110"]`, maxVLAN) {
		s, ok := y.numberOrText(v)
		if !ok {
			continue
		}
		vlans, p := parseVLANs(s)
		if !y.take(v.pos, p) {
			continue
		}
		for id := vlans[0]; id <= vlans[1]; id++ {
			if seen[id] {
				y.fail(v.pos, "name each VLAN once", "VLAN %d is given twice", id)
				break
			}
			seen[id] = true
		}
	}
	for id, is := range seen {
		if is {
			out = append(out, uint16(id))
		}
	}
	return out
}

func (y *yamlReader) limits(e entry, l *Limits) {
	rate := func(into *int) func(entry) {
		return func(e entry) {
			if s, ok := y.number(e.value, "off"); ok {
				y.take(e.value.pos, read(into, parseRate, s))
			}
		}
	}
	y.fields(e.value, "limits", field{"broadcast", rate(&l.Broadcast)}, field{"multicast", rate(&l.Multicast)},
		field{"unknown_unicast", rate(&l.UnknownUnicast)})
}
