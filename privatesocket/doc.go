// Package privatesocket makes unix sockets that nobody but their owner can connect to, at any moment.
package privatesocket
