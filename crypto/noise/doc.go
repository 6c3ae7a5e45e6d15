// Package noise is WireGuard's handshake, Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (WireGuard paper §5.4; Noise revision 34):
// two messages from which both ends derive the same two transport keys. It knows nothing of packets' way, timers, peers'
// tables or mac1 and mac2, does no I/O and reads no clock.
//
//	initiator                                            responder
//
//	Remote.Initiate     -> Initiator
//	                       -- initiation, 148 bytes -->  Identity.ReadInitiation -> Responder   [read]
//	                                                     Responder.Static        caller finds the peer
//	                                                     Responder.Verify        timestamp      [verified]
//	                       <-- response, 92 bytes ----   Responder.Respond       -> Keys        [spent]
//	Initiator.Consume   -> Keys
//
// States of an [Initiator]:
//
//	state     Consume, genuine    Consume, anything else       Erase
//	waiting   Keys; spent         error; waiting, unchanged    spent
//	spent     ErrState            ErrState                     spent
//
// States of a [Responder]:
//
//	state      Verify, genuine          Verify, otherwise   Respond                         Erase
//	read       timestamp; verified      error; spent        ErrState; spent                 spent
//	verified   ErrState; spent          ErrState; spent     Keys; spent (error: spent too)  spent
//	spent      ErrState                 ErrState            ErrState                        spent
//
// The indices are not part of the transcript: only mac1, whose key anybody can compute, covers them on the wire. Someone on
// the path can give a message another sender index. Then what is sent to that index reaches nobody's session, so there is
// a failed handshake but never another key. [Initiator.Consume] refuses a response for another index than its own.
//
// # Erasure
//
// Chaining keys, hashes, AEAD keys and shared secrets are held in fixed arrays that are overwritten as soon as they are used
// up or by Erase. What cannot be overwritten from Go: copies that crypto/ecdh keeps of the static and ephemeral private
// keys ([crypto.KeyPair]), the key copy inside each AEAD object of golang.org/x/crypto, what the compiler spilled to a stack,
// and stacks that were moved. These are unreachable afterwards and go with the garbage collector's reuse of memory.
package noise
