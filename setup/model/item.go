package model

import (
	"culvert/setup/spec"
)

// Item is one thing that is to be.
type Item struct {
	ID     ID
	Fields Fields // those declared; no others are compared or set
	// Needs are the items that must exist first. One that needs an item's being up (a route) has NeedsUp as well.
	Needs   []ID
	NeedsUp []ID
	Place   spec.Place
	// Label says what the item is where the ID is hard to read, as in "bridge" behind the name of a link.
	Label string
	// Owner says whose work it is to make the item.
	Owner Owner
	// Type is what a field's [Info] depends on: the type of a link, that of an attachment's master, the kind of a qdisc or class.
	Type string
}

// Owner says who makes and deletes a thing.
type Owner uint8

// The owners of items.
const (
	OwnerCulvert  Owner = iota // the plan
	OwnerExternal              // somebody else; only its fields are set, and set back
	OwnerTunnel                // a tunnel's daemon; it comes and goes with that
)

func (o Owner) String() string {
	switch o {
	case OwnerExternal:
		return "external"
	case OwnerTunnel:
		return "tunnel"
	}
	return "culvert"
}

// Field is the name of a field of a kind.
type Field string

// Fields are values by name.
type Fields map[Field]Value

// Mark is what a link carries as a sign of its owner: the alias of a link whose group is [Group].
type Mark struct {
	Instance string
	ID       ID
	Hash     string // of the item's fields, 16 hexadecimal digits
}

// Group is the group number of every link culvert makes ("cv"). The kernel sets it together with creation.
const Group = 0x6376

// DoomedGroup returns one of the groups that links are in for the moment in which they are deleted together. Nobody but culvert puts
// anything there.
func DoomedGroup(n uint16) uint32 { return Group<<16 | uint32(n) }

// IsOwnGroup reports whether a link of a group is one of culvert's.
func IsOwnGroup(group uint32) bool { return group == Group || group>>16 == Group }

// QdiscHandle and LeafHandle are the handles of the queueing disciplines culvert makes, and RouteProtocol is the protocol number of
// its routes and rules, [FilterPriority] that of its redirects: what others use is other's.
const (
	QdiscHandle   = spec.Handle(0x6376 << 16)
	LeafHandle    = spec.Handle(0x6377 << 16)
	RouteProtocol = 67

	FilterPriority = "25462"    // 0x6376
	FilterHandle   = "800::800" // without a fixed one, adding a filter again would double it
)
