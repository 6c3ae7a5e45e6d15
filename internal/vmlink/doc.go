// Package vmlink holds the tests that join virtual machines by a tunnel of Ethernet frames: two QEMU guests on two hosts (network
// namespaces), each host with a culvert daemon, over underlays of different MTUs; with a bridge on a host, with a macvtap, and with
// a second tap. The commands the hosts run are those of docs/vm.md, taken from there.
package vmlink
