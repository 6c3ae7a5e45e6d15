// Package rtnl speaks rtnetlink (RFC 3549; Linux's Documentation/userspace-api/netlink) to one network namespace by one socket: requests
// of exactly the attributes the caller puts in, complete listings, and the kernel's own words where it refuses.
//
// It knows no objects. What is shared by those who use it and is more than a message, the redirecting of all a device receives, is here
// too ([AddIngress], [AddRedirect], [Redirects]).
package rtnl
