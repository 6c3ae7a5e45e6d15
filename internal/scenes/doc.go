// Package scenes tests the setup layer as a whole, on real kernels: every file of examples/ is applied on a machine, read back equal, changed,
// used by the traffic it is for, and destroyed with nothing left. It also kills culvert between any two steps, has every step fail, and
// puts other people's things in the way.
//
// A machine is a network namespace with its own /run/netns, /run/culvert and /var/lib/culvert, so that the examples run as they are, side
// by side, whatever names they use. culvert acts in a process of its own there. A virtual machine is one more namespace, behind the
// descriptor that it would be handed. What the host's kernel lacks runs in a QEMU guest: the same tests, of the same program.
package scenes
