// Package switching is what a learning switch decides with (IEEE 802.1Q-2018 §8): behind which port a station is ([Table]), how
// many frames of a kind a port may send ([Limiter]), and which VLANs cross it ([VLANs]).
//
// The datapath's workers call [Table.Lookup], [Table.Learn], [Limiter.Allow], [VLANs.Ingress] and [VLANs.Egress], any number of
// them at once; these take no lock and allocate nothing. Everything else is the control loop's and is safe beside them. Nothing
// here reads a clock: now is the time since the engine's start.
package switching
