package device

import "os"

// A Bequeather is a Device that another process can go on with.
type Bequeather interface {
	// Files returns descriptors of the queues, in their order, for [Inherit] in the other process. The caller closes them. As long as anybody
	// has one open the interface is there.
	Files() ([]*os.File, error)
}
