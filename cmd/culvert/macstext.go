package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"culvert/control"
	"culvert/tunnel/ethernet"
)

const shownMACs = 20 // of a tunnel, unless all are asked for

// writeMACs writes the address tables of the tap tunnels, all of them in full. It returns how many tunnels there were.
func writeMACs(w io.Writer, instances []control.Instance) (tunnels int, err error) {
	b := bufio.NewWriter(w)
	for _, in := range instances {
		for _, t := range in.Tunnels {
			if t.Switch == nil {
				continue
			}
			if tunnels++; tunnels > 1 {
				fmt.Fprintln(b)
			}
			fmt.Fprintf(b, "interface: %s\n", t.Interface)
			if t.Switch.Wire {
				fmt.Fprintf(b, "  %s\n", wireWord)
			}
			macTable(b, t.Switch.Addresses)
		}
	}
	return tunnels, b.Flush()
}

// wireWord says why there is no address.
const wireWord = "two ends: every frame crosses"

// macTable writes addresses in columns, with a heading where there are any.
func macTable(w io.Writer, list []control.Address) {
	if len(list) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  mac address\tvlan\twhere\tage\n")
	for _, a := range list {
		vlan := "-"
		if a.VLAN != 0 {
			vlan = strconv.Itoa(int(a.VLAN &^ ethernet.ServiceVLAN))
		}
		if a.VLAN&ethernet.ServiceVLAN != 0 {
			vlan += " (802.1ad)"
		}
		age := duration(time.Duration(a.Age) * time.Second)
		if a.Pinned {
			age = "pinned"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", a.MAC, vlan, whereText(a), age)
	}
	t.Flush()
}

// whereText is which side an address is on. No peer's name holds parentheses.
func whereText(a control.Address) string {
	switch {
	case a.Local:
		return "(local)"
	case a.Name != "":
		return a.Name
	}
	return a.Peer.Base64()
}

// writeSwitch writes a tap tunnel's own lines.
func writeSwitch(field func(name, format string, args ...any), s *control.Switch) {
	carrier := "on"
	if !s.Carrier {
		carrier = "off"
	}
	field("mode", "tap (Ethernet), carrier %s", carrier)
	if s.Blocked {
		field("blocked", "there is a loop: this end is joined to the peers by another way as well; "+
			"no frames cross until it is gone (docs/configuration.md, \"Loops\")")
	}
	if s.Loops > 0 {
		field("loops found", "%d", s.Loops)
	}
	if s.Moves > 0 {
		field("moved addresses", "%d", s.Moves)
	}
	if s.Wire {
		field("switch", "%s", wireWord)
	}
}

// writeFewMACs writes the beginning of a tunnel's address table.
func writeFewMACs(b io.Writer, in control.Instance, s *control.Switch) {
	if len(s.Addresses) == 0 {
		return
	}
	fmt.Fprintln(b)
	macTable(b, s.Addresses[:min(shownMACs, len(s.Addresses))])
	if n := len(s.Addresses) - shownMACs; n > 0 {
		fmt.Fprintf(b, "  ... and %d more; culvert status %s --macs shows all\n", n, in.Name)
	}
}

// portText words a peer's part of the switch.
func portText(p *control.Port, wire bool) string {
	text := "does not answer"
	if p.Alive {
		text = "answers"
	}
	switch {
	case p.Mutual:
		text += ", a spoke that has this end as a spoke: nothing is sent on between it and others"
	case p.Spoke:
		text += ", a spoke"
	}
	switch {
	case wire && p.Addresses == 0:
	case p.Addresses == 1:
		text += ", 1 MAC address"
	default:
		text += fmt.Sprintf(", %d MAC addresses", p.Addresses)
	}
	return text
}
