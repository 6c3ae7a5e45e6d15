package noise

import (
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"

	"culvert/crypto"
)

// The reference is a second implementation of the hybrid handshake, written from its specification and sharing no code with the first. It
// knows the secrets of both ends and only writes, so it is also the peer that has the keys and does as it likes.

// hybridScene is everything two ends of a hybrid handshake begin with.
type hybridScene struct {
	scene
	decapsulationSeed       [mlkem.SeedSize]byte
	encapsulationRandomness [32]byte
	offer, choice           [8]byte // as on the wire
}

// newHybridScene draws a scene from a seed. Even seeds have no PSK; every second pair chooses AES-256-GCM.
func newHybridScene(seed uint64) hybridScene {
	h := hybridScene{scene: newScene(seed), offer: [8]byte{3, 3}, choice: [8]byte{1 << (seed / 2 % 2), 3}}
	r := rand.New(rand.NewPCG(seed, 8))
	for i := range h.decapsulationSeed {
		h.decapsulationSeed[i] = byte(r.Uint32())
	}
	for i := range h.encapsulationRandomness {
		h.encapsulationRandomness[i] = byte(r.Uint32())
	}
	return h
}

// hostility is what the reference does otherwise than specified, where set.
type hostility struct {
	static     []byte // claimed by the initiator
	ss         []byte
	key        []byte // in place of the ML-KEM encapsulation key
	ciphertext []byte
	shared     []byte // in place of ML-KEM's secret
	receiver   *uint32
}

// transcript is a handshake by the reference, macs zero.
type transcript struct {
	initiation, kem, response      []byte
	hash, chain                    [3][]byte // after each message
	initiatorSends, responderSends []byte    // transport keys
	lanes                          []byte    // what those of further lanes come from
}

func refHash(parts ...[]byte) []byte {
	h := newBLAKE2s()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func refHMAC(key []byte, parts ...[]byte) []byte {
	h := hmac.New(newBLAKE2s, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// refKDF returns n outputs of HKDF.
func refKDF(n int, ck, input []byte) [][]byte {
	prk := refHMAC(ck, input)
	var out [][]byte
	var t []byte
	for i := range n {
		t = refHMAC(prk, t, []byte{byte(i + 1)})
		out = append(out, t)
	}
	return out
}

// lane returns the transport keys of a further lane.
func (tr transcript) lane(number uint8) (initiatorSends, responderSends []byte) {
	out := refKDF(2, tr.lanes, []byte{number})
	return out[0], out[1]
}

func refSeal(t testing.TB, key []byte, nonce uint64, plaintext, additional []byte) []byte {
	t.Helper()
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	return aead.Seal(nil, binary.LittleEndian.AppendUint64(make([]byte, 4), nonce), plaintext, additional)
}

func refDH(t testing.TB, private crypto.PrivateKey, public []byte) []byte {
	t.Helper()
	secret, err := curve25519.X25519(private[:], public)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func refPublic(t testing.TB, private crypto.PrivateKey) []byte {
	t.Helper()
	return refDH(t, private, curve25519.Basepoint)
}

// refMAC1 is mac1 for the owner of public.
func refMAC1(t testing.TB, public, covered []byte) []byte {
	t.Helper()
	h, err := blake2s.New128(refHash([]byte("mac1----"), public))
	if err != nil {
		t.Fatal(err)
	}
	h.Write(covered)
	return h.Sum(nil)
}

func u32(words ...uint32) (b []byte) {
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// encapsulationKey is the scene's, and secret and ciphertext those of its randomness.
func (s hybridScene) kem(t testing.TB) (encapsulationKey, secret, ciphertext []byte) {
	t.Helper()
	decapsulation, err := mlkem.NewDecapsulationKey768(s.decapsulationSeed[:])
	if err != nil {
		t.Fatal(err)
	}
	secret, ciphertext, err = mlkemtest.Encapsulate768(decapsulation.EncapsulationKey(), s.encapsulationRandomness[:])
	if err != nil {
		t.Fatal(err)
	}
	return decapsulation.EncapsulationKey().Bytes(), secret, ciphertext
}

// reference runs a whole handshake.
func (s hybridScene) reference(t testing.TB, bad hostility) (tr transcript) {
	t.Helper()
	otherwise := func(value, instead []byte) []byte {
		if instead != nil {
			return instead
		}
		return value
	}
	staticI, staticR := refPublic(t, s.initiatorStatic), refPublic(t, s.responderStatic)
	ephemeralI, ephemeralR := refPublic(t, s.initiatorEphemeral), refPublic(t, s.responderEphemeral)
	encapsulationKey, shared, ciphertext := s.kem(t)

	ck := refHash([]byte("culvert_IKpsk2_25519+MLKEM768_ChaChaPoly_BLAKE2s"))
	h := refHash(ck, []byte("culvert v1"))
	h = refHash(h, staticR)

	// Type 5.
	header := u32(5, s.initiatorIndex)
	h = refHash(h, header)
	h = refHash(h, ephemeralI)
	ck = refKDF(1, ck, ephemeralI)[0]
	out := refKDF(2, ck, refDH(t, s.initiatorEphemeral, staticR))
	ck, k := out[0], out[1]
	static := refSeal(t, k, 0, otherwise(staticI, bad.static), h)
	h = refHash(h, static)
	ss := bad.ss
	if ss == nil {
		ss = refDH(t, s.initiatorStatic, staticR)
	}
	out = refKDF(2, ck, ss)
	ck, k = out[0], out[1]
	hello := refSeal(t, k, 0, append(s.timestamp[:], s.offer[:]...), h)
	h = refHash(h, hello)
	tr.initiation = slices.Concat(header, ephemeralI, static, hello, make([]byte, 32))
	tr.hash[0], tr.chain[0] = h, ck

	// Type 6.
	header = u32(6, s.initiatorIndex)
	h = refHash(h, header)
	kem := refSeal(t, k, 1, otherwise(encapsulationKey, bad.key), h)
	h = refHash(h, kem)
	tr.kem = slices.Concat(header, kem, make([]byte, 16))
	tr.hash[1], tr.chain[1] = h, ck

	// Type 7.
	receiver := s.initiatorIndex
	if bad.receiver != nil {
		receiver = *bad.receiver
	}
	header = u32(7, s.responderIndex, receiver)
	h = refHash(h, header)
	h = refHash(h, ephemeralR)
	ck = refKDF(1, ck, ephemeralR)[0]
	out = refKDF(2, ck, refDH(t, s.responderEphemeral, ephemeralI))
	ck, k = out[0], out[1]
	c := refSeal(t, k, 0, otherwise(ciphertext, bad.ciphertext), h)
	h = refHash(h, c)
	ck = refKDF(2, ck, otherwise(shared, bad.shared))[0]
	ck = refKDF(2, ck, refDH(t, s.responderEphemeral, staticI))[0]
	out = refKDF(3, ck, s.psk[:])
	ck, k = out[0], out[2]
	h = refHash(h, out[1])
	p := refSeal(t, k, 0, s.choice[:], h)
	h = refHash(h, p)
	tr.response = slices.Concat(header, ephemeralR, c, p, make([]byte, 32))
	tr.hash[2], tr.chain[2] = h, ck

	out = refKDF(3, ck, h)
	tr.initiatorSends, tr.responderSends, tr.lanes = out[0], out[1], out[2]
	return tr
}
