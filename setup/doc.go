// Package setup provisions the virtual network around tunnels: namespaces, virtual links, and what a tunnel's own
// interface needs (addresses, routes, policy rules, MTU).
//
// Its functions keep no state of their own. What a call changed is held by the value it returns, whose Remove takes
// away exactly that; a call that fails has undone its own steps before it returns. Everything goes to the kernel
// over netlink, ioctls and /proc/sys, no program is run; on other systems than Linux a tunnel's own interface is
// configured by ifconfig and route, and all else is refused. Errors are of type [*OpError]: the step, the item, the
// kernel's own text and what to do about it.
//
// Network namespaces belong to threads. A function that names no namespace acts in the one of the calling thread, so
// it can be used inside [Namespace.Do] as well as outside.
//
// The packages below it are the declarative layer: spec says what is to be, model of what things that consists, plan how to get
// there, journal what was done, and apply does it.
package setup
