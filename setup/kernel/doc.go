// Package kernel carries the steps of plans out on Linux and reads what is there: an [apply.Kernel] for every kind of thing but
// processes and hand-overs, over netlink, ioctls on /dev/net/tun and the files of named network namespaces.
//
// Its core is a table per type of link, master and queueing discipline that says which attribute a field of [model.Schema] is and how
// its text and its bytes become each other. A change sends the attributes of the changed fields and no others.
//
// [Kernel.Try] finds out in a scratch namespace which of the things that steps want this kernel cannot make.
package kernel
