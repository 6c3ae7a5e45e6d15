// Package kerneltest is a kernel in memory for tests of plans: it carries out steps as the real one does in what matters to their
// order and their undoing. Names are unique in a namespace; what a device is on top of must be there; deleting takes along what the
// kernel takes along; going down loses IPv6 addresses and routes; a bond gives its ports its address and takes them up. It can be
// told to fail, and to stop as if the process had been killed.
package kerneltest
