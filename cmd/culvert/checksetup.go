package main

import (
	"fmt"
	"io"
	"strings"

	"culvert/config"
	"culvert/setup/model"
	"culvert/setup/spec"
)

// summarizeNetwork writes what a file declares around its tunnels, a line for each part.
func summarizeNetwork(b io.Writer, file *config.File) {
	if !file.DeclaresSetup() {
		return
	}
	s := &file.Setup
	line := func(format string, args ...any) { fmt.Fprintf(b, "  "+format+"\n", args...) }
	fmt.Fprint(b, "\nnetwork\n")
	for _, n := range s.Netns {
		if n.External {
			line("namespace %s, external", n.Name)
		} else {
			line("namespace %s", n.Name)
		}
	}
	for i := range s.Links {
		summarizeLink(line, &s.Links[i])
	}
	for _, x := range s.Shaping {
		if x.IngressTo != "" {
			line("what %s receives goes through %s%s", x.Source, x.IngressTo, queued(x.Qdisc))
		}
		if x.Egress != nil {
			line("what %s sends is queued%s", x.Source, queued(x.Egress))
		}
	}
	for _, x := range s.Services {
		if d := x.Dnsmasq; d != nil {
			line("dnsmasq on %s%s", d.Interface, inNamespace(d.Netns))
		}
	}
	for _, x := range s.XConnects {
		line("%s and %s are joined frame for frame", x.A, x.B)
	}
	for _, r := range s.Routes {
		line("route %s%s", routeText(&r), inNamespace(r.Netns))
	}
	for _, r := range s.Rules {
		line("rule with priority %d%s", r.Priority, inNamespace(r.Netns))
	}
	for _, n := range s.NAT {
		line("masquerade by %s%s", n.Out, inNamespace(n.Netns))
	}
	for _, x := range s.Sysctls {
		line("sysctl %s = %s%s", x.Name, x.Value, inNamespace(x.Netns))
	}
	line("%d things in all; culvert plan shows which are to be made", len(model.Expand(s)))
}

func summarizeLink(line func(string, ...any), l *spec.Link) {
	text := string(l.Type) + " " + l.Key
	if l.Key != l.DeviceName() {
		text += " (" + l.DeviceName() + ")"
	}
	if l.External {
		text = strings.TrimSpace(text) + ", external"
	}
	text += inNamespace(l.Netns)
	switch {
	case l.Veth != nil:
		text += ", the other end being " + l.Veth.Peer.Key + inNamespace(l.Veth.Peer.Netns)
	case l.Stack != nil:
		text += " on " + l.Stack.Parent
	case l.VLAN != nil:
		text += fmt.Sprintf(" on %s, VLAN %d", l.VLAN.Parent, l.VLAN.VID)
	}
	line("%s", text)
	if len(l.Ports) > 0 {
		ports := make([]string, len(l.Ports))
		for i, p := range l.Ports {
			ports[i] = p.Link
		}
		line("  ports %s", strings.Join(ports, ", "))
	}
	summarizeLayer3(line, "  ", l.Addresses, l.Routes)
	if l.Veth != nil {
		summarizeLayer3(line, "  "+l.Veth.Peer.Key+" has ", l.Veth.Peer.Addresses, l.Veth.Peer.Routes)
	}
	if l.Handover != nil {
		line("  handed over on %s", l.Handover.Socket)
	}
}

func summarizeLayer3(line func(string, ...any), before string, addresses []spec.Address, routes []spec.Route) {
	for _, a := range addresses {
		line("%saddress %s", before, a.Prefix)
	}
	for i := range routes {
		line("%sroute %s", before, routeText(&routes[i]))
	}
}

func routeText(r *spec.Route) string {
	text := r.Prefix.String()
	if r.Type != "" && r.Type != "unicast" {
		text = r.Type + " " + text
	}
	if r.Gateway.IsValid() {
		text += " via " + r.Gateway.String()
	}
	if r.Table != 0 {
		text += fmt.Sprintf(" in table %d", r.Table)
	}
	return text
}

func inNamespace(name string) string {
	if name == "" {
		return ""
	}
	return " in " + name
}

// queued says how, innermost last.
func queued(q *spec.Qdisc) string {
	if q == nil {
		return ""
	}
	text := " by " + q.Kind()
	switch {
	case q.HTB != nil:
		text += " " + q.HTB.Rate.String() + queued(q.HTB.Leaf)
	case q.TBF != nil:
		text += " " + q.TBF.Rate.String()
	case q.Cake != nil && q.Cake.Bandwidth != nil:
		text += " " + q.Cake.Bandwidth.String()
	}
	return text
}
