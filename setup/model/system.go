package model

// Object is one thing that is there.
type Object struct {
	ID     ID
	Fields Fields // every field of [Schema] that could be read, in canonical text
	// Unread are fields that the thing has and does not show for now. What is in neither of the two the kernel knows nothing of.
	Unread []Field
	// Index is a link's number in its namespace; that of the link a thing is on. It tells a link from a later one of its name.
	Index int
	// Inode is that of the namespace a thing is in, or, of a netns, its own.
	Inode uint64
	// Of a link. A netns has those of its loopback device, which is marked before the namespace gets its name; they are read of the
	// namespaces in the scope.
	Group uint32
	Alias string
	// Ours says that a thing which is no link carries culvert's mark: the protocol number of a route or rule, the handle of a qdisc or
	// class, the cookie of a filter's action, the name of an nftables table, a process started by us,
	// name servers that were told by us.
	Ours bool
	// Taken says why the thing, which is ours, is not to be touched: somebody else has changed it meanwhile. "" where it may be.
	Taken string
}

// System is a snapshot of the things in a [Scope]. What the kernel makes by itself is left out of it: addresses and routes with
// protocol kernel, addresses from router advertisements and link-local ones it made, routes of the table local, rules of the three
// initial priorities (0, 32766, 32767), queueing disciplines with handle 0. Of several rules with one priority one that is not culvert's
// is reported; of several filters with one priority, too.
type System struct {
	BootID  string // /proc/sys/kernel/random/boot_id: what was journalled before another boot is void
	Inode   uint64 // of the namespace culvert runs in
	Objects map[ID]*Object
}

// Scope says what to read: everything in these namespaces, which may be missing. "" is the one culvert runs in. All named namespaces
// themselves are always read, without looking inside.
type Scope struct {
	Netns     []string
	Processes []ID // and these processes and hand-overs
	Settings  []ID // and these sysctls and name servers
}
