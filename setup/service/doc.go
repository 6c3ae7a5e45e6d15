// Package service keeps the programs alive that a network needs at run time: dnsmasq, and teamd for teams; and the sockets on which
// descriptors are handed to virtual machines. It is the [apply.Kernel] of model.KindProcess and model.KindHandover.
//
// # Who supervises
//
// "culvert apply" ends when the network is up, and what it started has to be restarted when it dies, its output has to go
// somewhere, and a hand-over's socket needs somebody behind it. So each instance has a small process of its own, the supervisor
// ("culvert supervise", [Supervise]). The first step that needs it starts it, and it ends with the last thing it keeps. It is not part of
// the tunnels' daemon: services outlive a crash of that, "up" and "apply" share one way of running them, and what is restarted
// every few seconds in the worst case has no part in the datapath's process. Plain daemons, restarted by nobody, would leave a team without
// its teamd; units of systemd would tie culvert to it.
//
// Services are no children to die with the supervisor: they go on when it is killed, write their output to a FIFO which they hold open
// themselves, and are taken over by the next supervisor, which the next apply or destroy starts ([Kernel.Lock]).
//
// # What is on disk
//
// The state directory (0700, files 0600) holds:
//
//	lock, socket          the supervisor's; whoever holds the lock is the only one to touch the rest
//	process/NAME/record   what runs: written before the program is started, with a random mark
//	process/NAME/config   its configuration file as declared; config.adapted (what teamd is given), pid and leases beside it
//	process/NAME/output   the FIFO of its output
//	handover/NAME/record  what is given out
//
// A process is ours where its number and start time are those of the record and its environment holds the mark (CULVERT_SERVICE).
// It is held by a pidfd before that is looked at, so a number used again never gets a signal. A program started just before a crash,
// whose number is in no record, is found by the mark.
//
// What a namespace is deleted for, its services' end, comes first by the plan's edges.
package service
