//go:build !linux

package transport

// UDP is the system's network.
type UDP = Portable
