// Package plan compares what is to be with what is, and says which steps lead from one to the other.
//
// Only declared fields are compared; what is not culvert's is never deleted, and changed no further than declared. A name that
// somebody else's thing has is a conflict, and a plan with conflicts has no steps. The package does no I/O.
//
// # Whose a thing is
//
// A link is an instance's by its group ([model.IsOwnGroup]) and alias ([model.Mark]) together, a namespace by those of its loopback
// device. A link with the group and no alias is its own where the journal tells that its creation was begun. All else is its own
// where the journal says so ([Known]), with the same link and namespace, and, of kinds that carry a mark, with that mark. What is
// declared and lies on a link or in a namespace of the instance is set, whoever made it; what is not declared there and was not
// made by it stays.
//
// What no single instance owns, as the MTU of an external device, several may declare alike: [Others]. Neither a plan that takes away nor
// one that goes back ([Restore]) takes from another instance what that shares.
//
// # Order
//
// Deletions come first, each before what it needs: redirects before the device they lead to. All else follows the edges of the items,
// and a link goes up when it has its addresses, queueing disciplines and ports. A link joins a bond or team while it is down, and
// the kernel closes it when it leaves: it goes up again afterwards, and what that costs it (IPv6 addresses, routes) is made again.
//
// # Forwarding
//
// The kernel changes other settings with net.ipv4.ip_forward and net.ipv6.conf.all.forwarding ([spec.ForwardingSettings]), and does not take
// that back by itself. Steps before such a change have the journal remember each of them (Keep), and once the change is taken back, steps
// behind it set them to what they were. They have no entries of their own, and none is of a device that came meanwhile.
//
// # JSON
//
// A [Plan] is written as an object: "format" (1), "instance", "entries", "steps", "notes", "missing", "adopted", "inherited", "released". An entry has "verdict" (create,
// change, recreate, delete, conflict), "id" (as at [model.ID]), "label", "fields" (by name, in the text of [model.Schema]), "changes"
// (each "field", "old", "new"), "reason", "origin" ("file", "line", "column") and "path". What is missing has "id", "what", "error", "config",
// "modules", "advice" and "origin". A step has "n", "op" (create, change,
// delete), "id", "type", "fields", "peer", "changes", "side", "alias", "peer_alias", "index", "inode", "owner" (0 culvert, 1 external,
// 2 tunnel), "keep" and "foreign". What is empty is left out. Fields may be added; "format" changes when one changes its meaning.
package plan
