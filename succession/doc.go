// Package succession is how one process hands what it has open, and secrets, to another that goes on with its work: messages over a pair of
// sockets, with descriptors (SCM_RIGHTS, unix(7)), and sealed memory (memfd_create(2)) for what is large or secret, so that nothing of it is
// ever in a file.
package succession
