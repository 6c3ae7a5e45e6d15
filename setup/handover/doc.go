// Package handover gives the descriptors of taps, macvtaps and ipvtaps to the processes of virtual machines, over a unix socket.
//
// A [Listener] opens the device's queues anew for everyone who connects and may have them, sends them (SCM_RIGHTS) and keeps none. So the
// device has carrier exactly while a machine runs, a machine that is started again gets fresh queues, and no second one gets a
// part of the first one's frames: while somebody has a queue open the answer is an error.
//
// Who connects is told by the kernel (SO_PEERCRED): root, and the user and the members of the group that the socket belongs to.
//
// The whole answer is one line of JSON ([Offer]) in one message with the descriptors. The receiver says nothing; it closes the connection
// once it has the descriptors.
package handover
