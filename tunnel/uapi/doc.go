// Package uapi serves WireGuard's cross-platform userspace API (https://www.wireguard.com/xplatform/), which wg and wg-quick
// speak, on a unix socket.
//
// A conversation is a sequence of operations, each a block of key=value lines that ends with an empty line: get=1 is answered
// with the tunnel's state, set=1 with lines is one transaction. Every answer ends with errno=N and an empty line. A
// transaction is read to its end and checked as a whole before anything is changed: one that is cut off or wrong in one line
// changes nothing. Keys travel in hexadecimal; buffers that held them are erased.
//
// [Listen] makes the socket, [Adopt] takes over an inherited one, [Server] answers on either. Access is governed by the
// socket's mode, 0600, and by the folder it stands in, which nobody else may write to.
package uapi
