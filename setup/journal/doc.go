// Package journal remembers on disk what culvert does to the machine, so that a later process can tell what is culvert's and repair
// what one that was killed left half-way.
//
// It is a file of lines, each a JSON object behind its checksum (CRC-32C, eight hexadecimal digits and a space). A batch begins with
// a line that holds all its steps, written and synced to disk before the first of them; a line follows for each step that is done or
// has failed. So of the steps of a batch without end exactly the first that has no line may or may not have happened. When a batch
// ends, the file is replaced by one with the sum of it all: its size is bounded by the things that are there.
//
// A line that is cut short or damaged, and all behind it, is ignored, and said so ([Journal.Ignored]): a journal never stands in the
// way. Of another instance's journal ([Journal.Others]) what is damaged is told of, and what can still be decoded counts as doubtful: it
// is left to that instance. What was written before another boot is void: nothing it speaks of exists any more.
//
// The file is readable by its owner alone, and neither it nor its directory may be a symbolic link.
package journal
