package fragment

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"

	"culvert/tunnel/payload"
)

// hexBytes is bytes that JSON holds in hexadecimal.
type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// TestVectors checks plaintexts and fragments that were computed from docs/protocol.md by a program in another language.
func TestVectors(t *testing.T) {
	var vectors struct {
		Plaintexts []struct {
			Kind      payload.Kind
			Content   hexBytes
			Limit     int
			Plaintext hexBytes
		}
		Fragments []struct {
			Plaintext hexBytes
			ID        uint32
			Limit     int
			Fragments []hexBytes
		}
	}
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Plaintexts) == 0 || len(vectors.Fragments) == 0 {
		t.Fatal("no vectors")
	}
	for i, v := range vectors.Plaintexts {
		pad := payload.Padding(len(v.Content), v.Limit)
		got := append(append(bytes.Clone(v.Content), make([]byte, pad)...), payload.Trailer(v.Kind, pad))
		if !bytes.Equal(got, v.Plaintext) {
			t.Errorf("plaintext %d: %x, want %x", i, got, v.Plaintext)
		}
		if kind, content, ok := payload.Split(v.Plaintext); !ok || kind != v.Kind || !bytes.Equal(content, v.Content) {
			t.Errorf("plaintext %d is split into %v, %x, %v", i, kind, content, ok)
		}
	}
	for i, v := range vectors.Fragments {
		count, size, ok := Count(len(v.Plaintext), v.Limit)
		if !ok || count != len(v.Fragments) {
			t.Fatalf("packet %d: %d fragments, %v", i, count, ok)
		}
		r := New[int](Limits{PerKey: 1, PerKeyBytes: MinBytes, Packets: 1, Bytes: MinBytes, Timeout: time.Second})
		var whole []byte
		for n, want := range v.Fragments {
			piece := v.Plaintext[n*size : min((n+1)*size, len(v.Plaintext))]
			pad := payload.Padding(len(piece)+TailSize, v.Limit)
			got := append(bytes.Clone(piece), make([]byte, Overhead+pad)...)
			PutTail(got[len(piece):], v.ID, uint8(n), n == count-1, pad)
			if !bytes.Equal(got, want) {
				t.Errorf("packet %d, fragment %d: %x, want %x", i, n, got, want)
			}
			kind, content, _ := payload.Split(want)
			piece, id, index, last, ok := ParseTail(content)
			if kind != payload.Fragment || !ok || id != v.ID || int(index) != n {
				t.Fatalf("packet %d, fragment %d: kind %v, id %#x, index %d, %v", i, n, kind, id, index, ok)
			}
			whole, _ = r.Add(0, id, index, last, piece, false, 1)
		}
		if !bytes.Equal(whole, v.Plaintext) {
			t.Errorf("packet %d: %x was put together", i, whole)
		}
	}
}
