package session

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"culvert/crypto"
	"culvert/crypto/noise"
)

// TestVectors seals and opens the data messages of the hybrid handshake's vectors, which package noise makes without this package.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("../noise/testdata/hybrid.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Inputs struct {
			InitiatorIndex uint32 `json:"initiator_index"`
			ResponderIndex uint32 `json:"responder_index"`
		}
		InitiatorSends string `json:"initiator_sends_with"`
		ResponderSends string `json:"responder_sends_with"`
		Suite          string
		Data           []struct {
			FromInitiator      bool   `json:"from_initiator"`
			Counter            uint64 `json:"counter,string"`
			Plaintext, Message string
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		t.Helper()
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tried := make(map[crypto.Suite]int)
	for _, v := range vectors {
		var suite crypto.Suite
		for _, s := range suites {
			if s.String() == v.Suite {
				suite = s
			}
		}
		forth, back := [32]byte(unhex(v.InitiatorSends)), [32]byte(unhex(v.ResponderSends))
		a, err := New(&noise.Keys{Send: forth, Receive: back}, suite, true, v.Inputs.InitiatorIndex, v.Inputs.ResponderIndex, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(&noise.Keys{Send: back, Receive: forth}, suite, false, v.Inputs.ResponderIndex, v.Inputs.InitiatorIndex, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range v.Data {
			from, to := b, a
			if d.FromInitiator {
				from, to = a, b
			}
			plaintext, want := unhex(d.Plaintext), unhex(d.Message)
			if got := seal(t, from, d.Counter, plaintext); !bytes.Equal(got, want) {
				t.Errorf("%s, counter %d: %x, want %x", v.Suite, d.Counter, got, want)
			}
			if got, err := open(to, want); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%s, counter %d: %x, %v", v.Suite, d.Counter, got, err)
			}
			tried[suite]++
		}
	}
	if len(tried) != len(suites) {
		t.Errorf("tried %v", tried)
	}
}
