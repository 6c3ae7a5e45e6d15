package graph

import (
	"culvert/setup/model"
)

// Source is what to draw.
type Source struct {
	Title  string
	Items  []model.Item           // what is declared; nil: nothing was
	System *model.System          // what is there; nil: not looked at
	Peers  map[model.Ref][]string // of tunnels' devices, by name
}

// Graph is devices, processes and peers, and what joins them.
type Graph struct {
	Title    string
	Compared bool // both what is declared and what is there is known: statuses say something
	Spaces   []Space
	Nodes    []Node
	Edges    []Edge
}

// Status is what a comparison says of a thing.
type Status uint8

// The statuses. Without a comparison everything is Same.
const (
	Same    Status = iota
	Missing        // declared, not there
	Differs        // there, with other settings
	Extra          // there with culvert's mark, not declared
	Foreign        // there without it, not declared: somebody else's
)

// String is the status as the picture says it; "" for Same.
func (s Status) String() string {
	return [...]string{"", "missing", "differs", "extra", "not declared"}[s]
}

// Space is a network namespace with devices in it, or declared.
type Space struct {
	Name     string // "" is the one culvert runs in
	External bool
	Status   Status
	Facts    []string // routes, rules and NAT in a few words
	Details  []string // the same in full
}

// Shape is what a node stands for.
type Shape uint8

// The shapes.
const (
	Device  Shape = iota
	Process       // works on a device
	Peer          // the far end of a tunnel; it is in no namespace
)

// Power is whether a device is up.
type Power uint8

// The powers.
const (
	Unknown Power = iota
	Up
	Down
)

// Node is a device, a process or a peer.
type Node struct {
	Shape    Shape
	Link     model.Ref // of a device
	Space    string
	Name     string
	Type     string // as in spec.Type; the program of a process
	Power    Power
	External bool // somebody else's
	Tunnel   bool // a tunnel's own
	Status   Status
	Facts    []string // the main settings, a line each
	Reasons  []string // what is missing or differs
	Details  []string // all settings, a line each
}

// Relation is why two nodes are joined.
type Relation uint8

// The relations, each from a node to the one that several may share.
const (
	Port     Relation = iota // from a port to the bridge, bond or team
	Stacked                  // from a device to its parent
	Cable                    // between the ends of a veth pair
	Redirect                 // from a device to the one its ingress is put into
	Cross                    // between devices joined frame for frame
	Serves                   // from a process to its device
	Reaches                  // from a peer to the tunnel's device
	relations
)

// String is the relation as the legend has it.
func (r Relation) String() string {
	return [...]string{"port of", "on top of", "veth cable", "ingress put into", "cross-connect", "process on", "tunnel to a peer"}[r]
}

// Edge joins two nodes, by their index.
type Edge struct {
	Relation Relation
	From, To int
	Label    string // as in the queueing discipline behind a Redirect
	Status   Status
	Details  []string
}
