// Package server decides who the clients of a tunnel are, which addresses they have and what they are told: pools and leases,
// groups and settings, invitations and enrolment, and the documents that are exchanged for it over the native wire (docs/server.md,
// docs/protocol.md). It does no I/O but by its [Store], reads no clock and knows no sockets: the daemon hands in what clients sent and
// carries out what comes of it.
//
// The life of a name:
//
//	(none)    -- Invite --> invited -- Enrol --> client -- Revoke --> revoked
//	(none)    -- Add ---------------------------> client
//	invited   -- Revoke, or its time is up --> (none)
//	revoked   -- Invite, Add --> as from (none), with the addresses it had where nobody else needed them
//
// Whatever is kept of a client is in the store before it takes effect, each change in one transaction.
package server
