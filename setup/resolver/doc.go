// Package resolver tells who resolves names which servers to ask while a tunnel is up. It is the [apply.Kernel] of model.KindDNS.
//
// There are three ways, tried in this order: systemd-resolved over D-Bus, the program resolvconf, and /etc/resolv.conf itself. What
// was told, and what stood in a file before, is kept in a record in the instance's state folder before anything is changed: whoever
// comes next, also after a crash or a reboot, sets it back by that. A file that somebody else has changed meanwhile is not touched.
//
// In a named network namespace the file is /etc/netns/NAME/resolv.conf, which ip-netns(8) mounts over /etc/resolv.conf for what it runs
// there; the other two ways do not know of namespaces. A culvert that itself runs in another network namespace than the machine's
// first process uses neither of them, nor a resolv.conf that is that process's.
//
// Bounds: a record and a resolv.conf are at most 64 KiB.
package resolver
