// Package doctor says why a tunnel does not work.
//
// What is known of the machine and of the daemon is collected elsewhere, as [Facts]; [Examine] makes findings of it and does no I/O, so that
// each is tested with facts written down. A finding has a code, which is stable, how bad it is, what was seen, and what to do.
package doctor
