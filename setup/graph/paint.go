package graph

import "culvert/setup/spec"

// paint is a colour on light and on dark ground.
type paint struct{ light, dark string }

// kinds of nodes by colour, in the legend's order.
type family uint8

const (
	physical family = iota
	ends
	tunnels
	switches
	stacks
	ifbs
	processes
	peers
	families
)

func (n *Node) family() family {
	switch {
	case n.Shape == Process:
		return processes
	case n.Shape == Peer:
		return peers
	case n.Tunnel:
		return tunnels
	}
	switch spec.Type(n.Type) {
	case spec.TypeTun, spec.TypeTap, spec.TypeVeth:
		return ends
	case spec.TypeBridge, spec.TypeBond, spec.TypeTeam:
		return switches
	case spec.TypeMacvlan, spec.TypeMacvtap, spec.TypeIPvlan, spec.TypeIPvtap, spec.TypeVLAN:
		return stacks
	case spec.TypeIfb:
		return ifbs
	}
	return physical
}

func (f family) String() string {
	return [...]string{"physical or other", "tun, tap, veth", "tunnel", "bridge, bond, team", "on top of a parent", "ifb", "process", "peer"}[f]
}

var (
	familyPaint = [families]paint{
		physical:  {"#6e7781", "#8b949e"},
		ends:      {"#0969da", "#58a6ff"},
		tunnels:   {"#1a7f37", "#3fb950"},
		switches:  {"#8250df", "#bc8cff"},
		stacks:    {"#0b7285", "#39c5cf"},
		ifbs:      {"#bc4c00", "#f0883e"},
		processes: {"#57606a", "#8b949e"},
		peers:     {"#1a7f37", "#3fb950"},
	}
	relationPaint = [relations]paint{
		Port:     familyPaint[switches],
		Stacked:  familyPaint[stacks],
		Cable:    familyPaint[ends],
		Redirect: familyPaint[ifbs],
		Cross:    {"#bf3989", "#f778ba"},
		Serves:   familyPaint[processes],
		Reaches:  familyPaint[tunnels],
	}
	relationDash = [relations]string{Serves: "2 4", Reaches: "7 4"}
	statusPaint  = [...]paint{
		Missing: {"#cf222e", "#ff7b72"},
		Differs: {"#9a6700", "#e3b341"},
		Extra:   {"#a0309a", "#e28bdc"},
		Foreign: {"#818b98", "#6e7681"},
	}
	ground     = paint{"#ffffff", "#0d1117"}
	frameFill  = paint{"#f6f8fa", "#151b23"}
	frameLine  = paint{"#c5ccd4", "#3d444d"}
	nodeFill   = paint{"#ffffff", "#212830"}
	nodeLine   = paint{"#afb8c1", "#59636e"}
	ink        = paint{"#1f2328", "#f0f6fc"}
	inkMuted   = paint{"#59636e", "#9ea7b3"}
	upPaint    = paint{"#1a7f37", "#3fb950"}
	downPaint  = paint{"#cf222e", "#f85149"}
	sansSerif  = "system-ui,-apple-system,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif"
	monospaced = "ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace"
)
