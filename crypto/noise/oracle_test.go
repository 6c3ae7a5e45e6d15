package noise

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	flynn "github.com/flynn/noise"

	"culvert/crypto"
	"culvert/crypto/tai64n"
)

// The oracle is github.com/flynn/noise, an implementation of Noise that shares no code with this one. It knows Noise's messages only:
// the index fields and macs around them are laid out here.

var oracleSuite = flynn.NewCipherSuite(flynn.DH25519, flynn.CipherChaChaPoly, flynn.HashBLAKE2s)

// oracle begins one end of a handshake. peer is nil for the responder.
func oracle(t testing.TB, static, ephemeral crypto.PrivateKey, psk crypto.PresharedKey, peer *crypto.PublicKey) *flynn.HandshakeState {
	t.Helper()
	public := static.Public()
	c := flynn.Config{
		CipherSuite: oracleSuite, Pattern: flynn.HandshakeIK, Prologue: []byte("WireGuard v1 zx2c4 Jason@zx2c4.com"),
		PresharedKey: psk[:], PresharedKeyPlacement: 2, Initiator: peer != nil,
		Random:        bytes.NewReader(ephemeral[:]), // its one use is to draw the ephemeral key
		StaticKeypair: flynn.DHKey{Private: static[:], Public: public[:]},
	}
	if peer != nil {
		c.PeerStatic = peer[:]
	}
	hs, err := flynn.NewHandshakeState(c)
	if err != nil {
		t.Fatal(err)
	}
	return hs
}

// oracleInitiation is the initiation by the oracle, and the state that awaits the response.
func oracleInitiation(t testing.TB, s scene) ([]byte, *flynn.HandshakeState) {
	t.Helper()
	peer := s.responderStatic.Public()
	hs := oracle(t, s.initiatorStatic, s.initiatorEphemeral, s.psk, &peer)
	msg := binary.LittleEndian.AppendUint32([]byte{1, 0, 0, 0}, s.initiatorIndex)
	msg, _, _, err := hs.WriteMessage(msg, s.timestamp[:])
	if err != nil {
		t.Fatal(err)
	}
	return append(msg, make([]byte, 32)...), hs
}

// oracleResponse is the oracle's response to an initiation, and its keys.
func oracleResponse(t testing.TB, s scene, initiation []byte) ([]byte, Keys) {
	t.Helper()
	hs := oracle(t, s.responderStatic, s.responderEphemeral, s.psk, nil)
	timestamp, _, _, err := hs.ReadMessage(nil, initiation[8:116])
	if err != nil {
		t.Fatalf("the oracle refuses the initiation: %v", err)
	}
	if !bytes.Equal(timestamp, s.timestamp[:]) {
		t.Fatalf("the oracle reads the timestamp %x", timestamp)
	}
	msg := binary.LittleEndian.AppendUint32([]byte{2, 0, 0, 0}, s.responderIndex)
	msg = append(msg, initiation[4:8]...)
	msg, fromInitiator, fromResponder, err := hs.WriteMessage(msg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(msg, make([]byte, 32)...), Keys{Send: fromResponder.UnsafeKey(), Receive: fromInitiator.UnsafeKey()}
}

// TestInitiatorAgainstOracle: our initiation to the oracle, its response to us.
func TestInitiatorAgainstOracle(t *testing.T) {
	for seed := range uint64(40) {
		s := newScene(seed)
		initiation, i := s.initiate(t, s.ends(t))
		if want, _ := oracleInitiation(t, s); !bytes.Equal(initiation, want) {
			t.Fatalf("seed %d: initiation\n%x, the oracle's is\n%x", seed, initiation, want)
		}
		response, theirs := oracleResponse(t, s, initiation)
		ours, index, err := i.Consume(response, s.psk)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if index != s.responderIndex || ours.Send != theirs.Receive || ours.Receive != theirs.Send {
			t.Fatalf("seed %d: the keys differ", seed)
		}
	}
}

// TestResponderAgainstOracle: the oracle's initiation to us, our response to it.
func TestResponderAgainstOracle(t *testing.T) {
	for seed := range uint64(40) {
		s := newScene(seed)
		initiation, hs := oracleInitiation(t, s)
		response, ours := s.respond(t, s.ends(t), initiation)
		if want, _ := oracleResponse(t, s, initiation); !bytes.Equal(response, want) {
			t.Fatalf("seed %d: response\n%x, the oracle's is\n%x", seed, response, want)
		}
		payload, fromInitiator, fromResponder, err := hs.ReadMessage(nil, response[12:60])
		if err != nil || len(payload) != 0 {
			t.Fatalf("seed %d: the oracle: %x, %v", seed, payload, err)
		}
		if ours.Receive != fromInitiator.UnsafeKey() || ours.Send != fromResponder.UnsafeKey() {
			t.Fatalf("seed %d: the keys differ", seed)
		}
	}
}

// vector is one handshake in testdata/handshake.json, all in hexadecimal, macs zero.
type vector struct {
	InitiatorStatic    string `json:"initiator_static"`
	ResponderStatic    string `json:"responder_static"`
	InitiatorEphemeral string `json:"initiator_ephemeral"`
	ResponderEphemeral string `json:"responder_ephemeral"`
	PresharedKey       string `json:"preshared_key"`
	Timestamp          string `json:"timestamp"`
	InitiatorIndex     uint32 `json:"initiator_index"`
	ResponderIndex     uint32 `json:"responder_index"`
	Initiation         string `json:"initiation"`
	Response           string `json:"response"`
	InitiatorSends     string `json:"initiator_sends_with"`
	ResponderSends     string `json:"responder_sends_with"`
}

const vectorFile = "testdata/handshake.json"

var update = flag.Bool("update", false, "write the vectors in testdata anew: WireGuard's from the oracle, the hybrid ones from the reference")

func key(t testing.TB, s string) [crypto.KeySize]byte {
	t.Helper()
	b := unhex(t, s)
	if len(b) != crypto.KeySize {
		t.Fatalf("a key of %d bytes", len(b))
	}
	return [crypto.KeySize]byte(b)
}

func (v vector) scene(t testing.TB) scene {
	return scene{
		initiatorStatic: key(t, v.InitiatorStatic), responderStatic: key(t, v.ResponderStatic),
		initiatorEphemeral: key(t, v.InitiatorEphemeral), responderEphemeral: key(t, v.ResponderEphemeral),
		psk: key(t, v.PresharedKey), timestamp: tai64n.Timestamp(unhex(t, v.Timestamp)),
		initiatorIndex: v.InitiatorIndex, responderIndex: v.ResponderIndex,
	}
}

// writeVectors makes the file from the oracle alone.
func writeVectors(t *testing.T) {
	var vectors []vector
	for seed := range uint64(4) {
		s := newScene(1000 + seed)
		initiation, _ := oracleInitiation(t, s)
		response, keys := oracleResponse(t, s, initiation)
		vectors = append(vectors, vector{
			InitiatorStatic: s.initiatorStatic.Hex(), ResponderStatic: s.responderStatic.Hex(),
			InitiatorEphemeral: s.initiatorEphemeral.Hex(), ResponderEphemeral: s.responderEphemeral.Hex(),
			PresharedKey: s.psk.Hex(), Timestamp: hex.EncodeToString(s.timestamp[:]),
			InitiatorIndex: s.initiatorIndex, ResponderIndex: s.responderIndex,
			Initiation: hex.EncodeToString(initiation), Response: hex.EncodeToString(response),
			InitiatorSends: hex.EncodeToString(keys.Receive[:]), ResponderSends: hex.EncodeToString(keys.Send[:]),
		})
	}
	text, err := json.MarshalIndent(vectors, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorFile, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	vectors := readVectors(t)
	if len(vectors) < 4 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for n, v := range vectors {
		s := v.scene(t)
		e := s.ends(t)
		initiation, i := s.initiate(t, e)
		if got := hex.EncodeToString(initiation); got != v.Initiation {
			t.Errorf("vector %d: initiation %s", n, got)
		}
		response, theirs := s.respond(t, e, unhex(t, v.Initiation))
		if got := hex.EncodeToString(response); got != v.Response {
			t.Errorf("vector %d: response %s", n, got)
		}
		ours, index, err := i.Consume(unhex(t, v.Response), s.psk)
		if err != nil || index != v.ResponderIndex {
			t.Fatalf("vector %d: %d, %v", n, index, err)
		}
		if ours.Send != key(t, v.InitiatorSends) || ours.Receive != key(t, v.ResponderSends) {
			t.Errorf("vector %d: the initiator's keys differ", n)
		}
		if theirs.Receive != key(t, v.InitiatorSends) || theirs.Send != key(t, v.ResponderSends) {
			t.Errorf("vector %d: the responder's keys differ", n)
		}
	}
}
