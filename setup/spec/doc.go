// Package spec is the typed declaration of the network around the endpoints: namespaces, links of every kind, what is attached to
// what, shaping, services, cross-connections, routes, rules and NAT.
//
// A reader of configuration files fills a [Spec], every part with the place it came from ([Place]). [Spec.Validate] refuses what
// cannot work, all of it at once and before anything is touched; package model turns what is valid into the items of a plan.
//
// An optional setting is a pointer, or a zero value where zero cannot be meant: nil says nothing about the kernel's value, which is
// then neither set nor compared. Units are in the types: [BitRate] is bits per second, [Size] bytes, [time.Duration] a time.
//
// The package does no I/O and knows no kernel.
package spec
