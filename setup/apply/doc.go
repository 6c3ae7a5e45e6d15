// Package apply carries plans out: it reads, plans, journals, does, verifies, and undoes where something fails. It knows the kernel
// only as a [Kernel].
package apply
