// Package interop holds the tests that run whole daemons against each other in network namespaces: culvert against
// wireguard-go both ways, and in a QEMU guest against the kernel's WireGuard, all of them driven by Debian's wg, wg-quick and ip.
//
// Most tests are a table over pairs of implementations, initiator first. CULVERT_INTEROP_PAIRS replaces the
// pairs ("wireguard-go/wireguard-go" proves the tests themselves); CULVERT_INTEROP_PROGRAMS is a folder with programs
// already built, as the guest has it.
package interop
