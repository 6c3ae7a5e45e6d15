// Package noise holds the two wires' handshakes: WireGuard's, Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (WireGuard paper §5.4; Noise
// revision 34), and culvert's own, which is the same pattern with ML-KEM-768 in it. From either both ends derive the same two transport
// keys. The package knows nothing of packets' way, timers, peers' tables or mac1 and mac2, does no I/O and reads no clock.
//
// # WireGuard's handshake
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
// The indices are not part of this transcript: only mac1, whose key anybody can compute, covers them on the wire. Someone on
// the path can give a message another sender index. Then what is sent to that index reaches nobody's session, so there is
// a failed handshake but never another key. [Initiator.Consume] refuses a response for another index than its own.
//
// # The hybrid handshake
//
// Message layouts and the key schedule are in docs/protocol.md. In Noise's notation, with the tokens of ML-KEM as "ekem" (its
// encapsulation key, in a datagram of its own, sealed with the key after "ss") and "kem" (its ciphertext sealed, its secret mixed in):
//
//	-> e, es, s, ss, {timestamp, offer}    type 5
//	   ekem                                type 6
//	<- e, ee, kem, se, psk, {choice}       type 7
//
// It differs from Noise in three points: headers are hashed, so that indices are part of the transcript; the key after "ss" seals twice,
// with nonces 0 and 1; and the transport keys are derived from the chaining key and the final hash, so that they are bound to
// every byte of the handshake except the macs.
//
//	initiator                                             responder
//
//	Remote.InitiateHybrid  -> HybridInitiator
//	                       -- initiation, 156 bytes -->   Identity.ReadHybridInitiation -> HybridResponder  [read]
//	                                                      HybridResponder.Static        caller finds the peer
//	                                                      HybridResponder.Verify        timestamp, offer    [verified]
//	                       -- KEM part, 1224 bytes -->    HybridResponder.ReadKEM                           [complete]
//	                       <-- response, 1204 bytes --    HybridResponder.Respond       -> Keys             [spent]
//	HybridInitiator.Consume -> Keys, choice
//
// A [HybridInitiator] has the states of an [Initiator]. States of a [HybridResponder]:
//
//	state      Verify, genuine          Verify, otherwise   ReadKEM, genuine   authentic, no key    otherwise         Respond
//	read       timestamp; verified      error; spent        ErrState           ErrState             ErrState          ErrState; spent
//	verified   ErrState; spent          ErrState; spent     nil; complete      error; spent         error; unchanged  ErrState; spent
//	complete   ErrState; spent          ErrState; spent     ErrState           ErrState             ErrState          Keys; spent (error: spent too)
//	spent      ErrState                 ErrState            ErrState           ErrState             ErrState          ErrState
//
// and Erase leads to spent from each. ErrState from ReadKEM changes nothing: KEM parts come from the network, in any number.
//
// # Erasure
//
// Chaining keys, hashes, AEAD keys and shared secrets are held in fixed arrays that are overwritten as soon as they are used
// up or by Erase. What cannot be overwritten from Go: copies that crypto/ecdh keeps of the static and ephemeral private
// keys ([crypto.KeyPair]), the keys of crypto/mlkem, the key copy inside each AEAD object of golang.org/x/crypto, what the compiler
// spilled to a stack, and stacks that were moved. These are unreachable afterwards and go with the garbage collector's reuse of memory.
package noise
