// Package model is what plans are made of: items that are to be, and objects that are.
//
// Both describe a thing by the same [ID] and the same named fields in the same canonical text ([Fields]), so that comparing,
// journalling, undoing and showing know no kinds. [Schema] says for each field of each kind what its text looks like, and whether
// it can be changed in place. A kernel part turns a field into an attribute of netlink and back; that table is its whole work.
//
// [Expand] turns a declaration into items with their edges "must exist first". A [System] is a snapshot of objects, read from the
// kernel or written by a test.
package model
