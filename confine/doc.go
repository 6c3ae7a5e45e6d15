// Package confine takes rights from the running process that it will not need any more: files by Landlock, system calls by seccomp. What was
// taken stays taken, from this process and from all that it starts. Where the kernel lacks one of them, or the program was built with cgo, the
// result says so, and the rest is taken all the same.
package confine

// Access is what may be done below a path.
type Access int

// The kinds of access.
const (
	Read   Access = iota // files read, folders listed
	Write                // also made, written, renamed and removed
	Device               // a device read, written and controlled
	Run                  // read and executed
	Change               // files read and written, none made or removed
)

// Path is a file, or a folder with all below it. One that does not exist is left out.
type Path struct {
	Path   string
	Access Access
}

// Options say what has to remain.
type Options struct {
	// Files are all the files that may still be opened; nil leaves files as they are.
	Files []Path
	// Mounts leaves the system calls that mount; Modules those that load modules into the kernel.
	Mounts, Modules bool
	// Refused is what [Calls] says of the system calls that are refused already, as by the process before; "" where none are. Where no others are
	// to be, nothing is done again: each filter costs a little with each call.
	Refused string
}

// Result says what was reached. An empty reason means that it is in force.
type Result struct {
	Files, Calls string // why not
}
