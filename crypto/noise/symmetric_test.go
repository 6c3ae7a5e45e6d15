package noise

import (
	"bytes"
	"crypto/hmac"
	"hash"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/hkdf"

	"culvert/crypto"
)

func newBLAKE2s() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(err)
	}
	return h
}

// TestDerive compares HMAC and HKDF with the standard library's and x/crypto's.
func TestDerive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var chain [32]byte
		input := make([]byte, r.IntN(34))
		for i := range chain {
			chain[i] = byte(r.Uint32())
		}
		for i := range input {
			input[i] = byte(r.Uint32())
		}
		reference := hmac.New(newBLAKE2s, chain[:])
		reference.Write(input)
		if got := mac(&chain, input); !bytes.Equal(got[:], reference.Sum(nil)) {
			t.Fatalf("mac(%x, %x) = %x", chain, input, got)
		}
		if len(input) > 32 {
			continue
		}
		want := make([]byte, 3*32)
		if _, err := io.ReadFull(hkdf.New(newBLAKE2s, input, chain[:], nil), want); err != nil {
			t.Fatal(err)
		}
		var a, b, c [32]byte
		derive(&chain, input, &a, &b, &c)
		if got := append(append(a[:], b[:]...), c[:]...); !bytes.Equal(got, want) {
			t.Fatalf("derive(%x, %x) = %x, want %x", chain, input, got, want)
		}
		derive(&chain, input, &chain) // in place
		if !bytes.Equal(chain[:], want[:32]) {
			t.Fatal("deriving in place gives something else")
		}
	}
}

// TestSum: inputs of every length around the one from which they are hashed another way; the short ones, which are all that WireGuard's
// handshake has, without allocation.
func TestSum(t *testing.T) {
	a, b := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 1300)
	for length := range len(b) {
		if got := sum(a, b[:length]); !bytes.Equal(got[:], refHash(a, b[:length])) {
			t.Fatalf("%d bytes: %x", length, got)
		}
	}
}

// TestTranscriptAllocations: what is hashed from a caller's stack stays there, since all steps of both handshakes do that.
func TestTranscriptAllocations(t *testing.T) {
	s := newScene(1)
	state, public := s.ends(t).initiator.begin, s.initiatorEphemeral.Public()
	if avg := testing.AllocsPerRun(100, func() {
		sealed := [crypto.KeySize + TagSize]byte{1}
		state.mixHash(sealed[:])
		state.mixEphemeral(public)
		_ = state.mixPSK(&s.psk)
	}); avg != 0 {
		t.Errorf("%v allocations", avg)
	}
}
