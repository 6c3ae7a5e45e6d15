package plan

import (
	"culvert/setup/model"
)

// Op is what a step does.
type Op string

// The operations.
const (
	Create Op = "create"
	Change Op = "change"
	Delete Op = "delete"
)

// FieldChange is a field's value before and after.
type FieldChange struct {
	Field model.Field `json:"field"`
	Old   model.Value `json:"old"`
	New   model.Value `json:"new"`
}

// Step is one thing to do. It is complete: what carries it out needs nothing but the step and the kernel.
type Step struct {
	N  int      `json:"n"` // its place in the plan, from 1
	Op Op       `json:"op"`
	ID model.ID `json:"id"`
	// Type is the type of a link, that of an attachment's master, the kind of a qdisc or class; else "".
	Type string `json:"type,omitempty"`
	// Fields are all the fields to create with, or those that a thing has which is deleted. A link is created down; its going up is a
	// change of its own.
	Fields model.Fields `json:"fields,omitempty"`
	// Peer holds the fields of a veth's other end, which is created by the same step.
	Peer model.Fields `json:"peer,omitempty"`
	// Changes are the fields to change, in order.
	Changes []FieldChange `json:"changes,omitempty"`
	// Side are fields that the kernel changes by itself of the link, which is not culvert's, that is attached: a port of a bond goes up.
	Side []FieldChange `json:"side,omitempty"`
	// Alias is what a link created or changed is marked with, after all else, "" to leave it; PeerAlias that of the peer. Its group is
	// [model.Group] then.
	Alias     string `json:"alias,omitempty"`
	PeerAlias string `json:"peer_alias,omitempty"`
	// Index is that of the link which a change or deletion is about or on, and Inode that of its namespace; 0 where they are not known
	// yet. What has another by now is not the one meant: the step fails.
	Index int         `json:"index,omitempty"`
	Inode uint64      `json:"inode,omitempty"`
	Owner model.Owner `json:"owner,omitempty"`
	// Keep has the journal remember the value before a change also where it is the same afterwards: the kernel is about to change it with
	// another setting.
	Keep bool `json:"keep,omitempty"`
	// Foreign says that the thing is not culvert's and is put back as it was, after a failure: without marks.
	Foreign bool `json:"foreign,omitempty"`
}
