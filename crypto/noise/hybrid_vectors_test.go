package noise

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"culvert/crypto"
	"culvert/crypto/tai64n"
)

// hybridVector is one handshake in testdata/hybrid.json, with data messages under its keys, all in hexadecimal. The messages' macs are
// zero; mac1 is what belongs there.
type hybridVector struct {
	Inputs struct {
		InitiatorStatic         string `json:"initiator_static"`
		ResponderStatic         string `json:"responder_static"`
		InitiatorEphemeral      string `json:"initiator_ephemeral"`
		ResponderEphemeral      string `json:"responder_ephemeral"`
		DecapsulationSeed       string `json:"decapsulation_seed"`       // d || z of ML-KEM.KeyGen_internal
		EncapsulationRandomness string `json:"encapsulation_randomness"` // m of ML-KEM.Encaps_internal
		PresharedKey            string `json:"preshared_key"`
		Timestamp               string `json:"timestamp"`
		InitiatorIndex          uint32 `json:"initiator_index"`
		ResponderIndex          uint32 `json:"responder_index"`
		Offer                   string `json:"offer"`
		Choice                  string `json:"choice"`
	} `json:"inputs"`
	Initiation     hybridVectorMessage `json:"initiation"`
	KEM            hybridVectorMessage `json:"kem"`
	Response       hybridVectorMessage `json:"response"`
	InitiatorSends string              `json:"initiator_sends_with"`
	ResponderSends string              `json:"responder_sends_with"`
	Lanes          []hybridVectorLane  `json:"lanes"`
	Suite          string              `json:"suite"`
	Data           []hybridVectorData  `json:"data"`
}

type hybridVectorMessage struct {
	Message string `json:"message"`
	MAC1    string `json:"mac1"`
	Hash    string `json:"h_after"`
	Chain   string `json:"ck_after"`
}

// hybridVectorLane are the keys of a further lane, as the handshake gives them whether or not the ends want as many.
type hybridVectorLane struct {
	Number         uint8  `json:"number"`
	InitiatorSends string `json:"initiator_sends_with"`
	ResponderSends string `json:"responder_sends_with"`
}

type hybridVectorData struct {
	FromInitiator bool   `json:"from_initiator"`
	Counter       uint64 `json:"counter,string"` // JSON's numbers stop being exact at 2^53
	Plaintext     string `json:"plaintext"`
	Message       string `json:"message"`
}

const hybridVectorFile = "testdata/hybrid.json"

// hybridData are the data messages in each vector: counters that show the byte order, and a keepalive.
var hybridData = []struct {
	fromInitiator bool
	counter       uint64
	plaintext     string
}{
	{true, 0, ""},
	{false, 1, "an answer of 27 bytes......"},
	{true, 0x0102030405060708, "sixteen bytes ok"},
	{false, 1<<64 - 1<<13 - 2, "the last counter"},
}

func refDataMessage(t testing.TB, suite crypto.Suite, key []byte, receiver uint32, counter uint64, plaintext string) []byte {
	t.Helper()
	var aead cipher.AEAD
	var err error
	if suite == crypto.AES256GCM {
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			aead, err = cipher.NewGCM(block)
		}
	} else {
		aead, err = chacha20poly1305.New(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	header := binary.LittleEndian.AppendUint64(u32(4, receiver), counter)
	return aead.Seal(header, binary.LittleEndian.AppendUint64(make([]byte, 4), counter), []byte(plaintext), nil)
}

// vector is a scene as the reference plays it.
func (s hybridScene) vector(t testing.TB) (v hybridVector) {
	t.Helper()
	tr := s.reference(t, hostility{})
	in := &v.Inputs
	in.InitiatorStatic, in.ResponderStatic = s.initiatorStatic.Hex(), s.responderStatic.Hex()
	in.InitiatorEphemeral, in.ResponderEphemeral = s.initiatorEphemeral.Hex(), s.responderEphemeral.Hex()
	in.DecapsulationSeed, in.EncapsulationRandomness = hex.EncodeToString(s.decapsulationSeed[:]), hex.EncodeToString(s.encapsulationRandomness[:])
	in.PresharedKey, in.Timestamp = s.psk.Hex(), hex.EncodeToString(s.timestamp[:])
	in.InitiatorIndex, in.ResponderIndex = s.initiatorIndex, s.responderIndex
	in.Offer, in.Choice = hex.EncodeToString(s.offer[:]), hex.EncodeToString(s.choice[:])

	initiator, responder := refPublic(t, s.initiatorStatic), refPublic(t, s.responderStatic)
	message := func(msg, receiver []byte, macs, at int) hybridVectorMessage {
		return hybridVectorMessage{
			Message: hex.EncodeToString(msg), MAC1: hex.EncodeToString(refMAC1(t, receiver, msg[:len(msg)-macs])),
			Hash: hex.EncodeToString(tr.hash[at]), Chain: hex.EncodeToString(tr.chain[at]),
		}
	}
	v.Initiation = message(tr.initiation, responder, 32, 0)
	v.KEM = message(tr.kem, responder, 16, 1)
	v.Response = message(tr.response, initiator, 32, 2)
	v.InitiatorSends, v.ResponderSends = hex.EncodeToString(tr.initiatorSends), hex.EncodeToString(tr.responderSends)
	for _, number := range []uint8{1, 2, MaxLanes - 1} {
		forth, back := tr.lane(number)
		v.Lanes = append(v.Lanes, hybridVectorLane{number, hex.EncodeToString(forth), hex.EncodeToString(back)})
	}

	suite := crypto.ChaCha20Poly1305
	if s.choice[0] == 2 {
		suite = crypto.AES256GCM
	}
	v.Suite = suite.String()
	for _, d := range hybridData {
		key, receiver := tr.responderSends, s.initiatorIndex
		if d.fromInitiator {
			key, receiver = tr.initiatorSends, s.responderIndex
		}
		v.Data = append(v.Data, hybridVectorData{
			FromInitiator: d.fromInitiator, Counter: d.counter, Plaintext: hex.EncodeToString([]byte(d.plaintext)),
			Message: hex.EncodeToString(refDataMessage(t, suite, key, receiver, d.counter, d.plaintext)),
		})
	}
	return v
}

func (v hybridVector) scene(t testing.TB) hybridScene {
	t.Helper()
	in := v.Inputs
	return hybridScene{
		scene: scene{
			initiatorStatic: key(t, in.InitiatorStatic), responderStatic: key(t, in.ResponderStatic),
			initiatorEphemeral: key(t, in.InitiatorEphemeral), responderEphemeral: key(t, in.ResponderEphemeral),
			psk: key(t, in.PresharedKey), timestamp: tai64n.Timestamp(unhex(t, in.Timestamp)),
			initiatorIndex: in.InitiatorIndex, responderIndex: in.ResponderIndex,
		},
		decapsulationSeed: [64]byte(unhex(t, in.DecapsulationSeed)), encapsulationRandomness: key(t, in.EncapsulationRandomness),
		offer: [8]byte(unhex(t, in.Offer)), choice: [8]byte(unhex(t, in.Choice)),
	}
}

// transcript is the vector's outputs.
func (v hybridVector) transcript(t testing.TB) (tr transcript) {
	t.Helper()
	tr.initiation, tr.kem, tr.response = unhex(t, v.Initiation.Message), unhex(t, v.KEM.Message), unhex(t, v.Response.Message)
	for i, m := range []hybridVectorMessage{v.Initiation, v.KEM, v.Response} {
		tr.hash[i], tr.chain[i] = unhex(t, m.Hash), unhex(t, m.Chain)
	}
	tr.initiatorSends, tr.responderSends = unhex(t, v.InitiatorSends), unhex(t, v.ResponderSends)
	return tr
}

// TestHybridVectors: both implementations give what is in the file. That mac1 and the data messages come out of packages cookie and session
// as well is tested there.
func TestHybridVectors(t *testing.T) {
	if *update {
		var vectors []hybridVector
		for seed := range uint64(4) {
			vectors = append(vectors, newHybridScene(2000+seed).vector(t))
		}
		lanes := newHybridScene(2004)
		lanes.offer[2], lanes.choice[2] = 8, 4
		vectors = append(vectors, lanes.vector(t))
		text, err := json.MarshalIndent(vectors, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(hybridVectorFile, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(hybridVectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []hybridVector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for n, v := range vectors {
		s := v.scene(t)
		want, _ := json.Marshal(v)
		if got, _ := json.Marshal(s.vector(t)); string(got) != string(want) {
			t.Errorf("vector %d: the reference gives %s", n, got)
		}
		s.agree(t, v.transcript(t))
		s.agreeOnLanes(t, v.Lanes)
		kind := v.Suite
		if !s.psk.IsZero() {
			kind += " PSK"
		}
		kinds[kind]++
	}
	if len(kinds) != 4 {
		t.Errorf("not every kind: %v", kinds)
	}
}

// agreeOnLanes: both ends derive the lanes' keys that are in the file.
func (s hybridScene) agreeOnLanes(t *testing.T, want []hybridVectorLane) {
	t.Helper()
	e := s.ends(t)
	initiation, kem, i := s.initiateHybrid(t, e)
	response, theirs := s.respondHybrid(t, e, initiation, kem)
	ours, _, _, err := i.Consume(response, s.psk)
	if err != nil || len(want) == 0 {
		t.Fatal(err, len(want))
	}
	seen := map[[32]byte]bool{ours.Send: true, ours.Receive: true}
	for _, l := range want {
		forth, back := [32]byte(unhex(t, l.InitiatorSends)), [32]byte(unhex(t, l.ResponderSends))
		if got := ours.Lane(l.Number, true); got != (Keys{Send: forth, Receive: back}) {
			t.Errorf("lane %d: the initiator's keys differ", l.Number)
		}
		if got := theirs.Lane(l.Number, false); got != (Keys{Send: back, Receive: forth}) {
			t.Errorf("lane %d: the responder's keys differ", l.Number)
		}
		if seen[forth] || seen[back] || forth == back {
			t.Errorf("lane %d has keys that are used elsewhere", l.Number)
		}
		seen[forth], seen[back] = true, true
	}
	ours.Erase()
	if ours.Lane(1, true) != (Keys{}) {
		t.Error("lanes of erased keys")
	}
	if theirs.Lane(0, true) != (Keys{}) {
		t.Error("lane 0 has other keys than the session")
	}
}

// TestLanesOfWireGuardHaveNoKeys: its handshake knows no lanes, and gives none.
func TestLanesOfWireGuardHaveNoKeys(t *testing.T) {
	s := newScene(1)
	e := s.ends(t)
	initiation, i := s.initiate(t, e)
	response, theirs := s.respond(t, e, initiation)
	ours, _, err := i.Consume(response, s.psk)
	if err != nil {
		t.Fatal(err)
	}
	if ours.Lane(1, true) != (Keys{}) || theirs.Lane(1, false) != (Keys{}) {
		t.Error("keys for a lane")
	}
}

func TestLanesWith(t *testing.T) {
	for _, c := range []struct {
		ours, theirs uint8
		want         int
	}{
		{0, 0, 1}, {0, 4, 1}, {1, 4, 1}, {4, 4, 4}, {8, 4, 4}, {4, 255, 4}, {16, 16, 16}, {17, 17, 16}, {255, 255, 16},
	} {
		a, b := Parameters{Lanes: c.ours}, Parameters{Lanes: c.theirs}
		if got := a.LanesWith(b); got != c.want || b.LanesWith(a) != got {
			t.Errorf("%d with %d: %d lanes", c.ours, c.theirs, got)
		}
	}
}
