// Package tunnel is the engine: one packet's life between a device and the underlay, peers, timers and routing.
//
// A [Tunnel] joins a [device.Device] to a [transport.Network]. Each device queue has a worker that reads, routes, seals
// and sends; each receiver of the socket has one that opens, filters and writes. Nothing is handed between goroutines
// on the way, nothing is locked and nothing allocated: datapath.go holds both directions. Handshakes, timers and
// configuration run beside it in one control loop and publish what they decide as atomic snapshots.
package tunnel
