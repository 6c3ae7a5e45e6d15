package crypto_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/session"
)

// The tests in this file put the subpackages together as an engine does on the native wire.

// initiateHybrid returns a stamped initiation and KEM part.
func (e end) initiateHybrid(t testing.TB) (first, second []byte, i *noise.HybridInitiator) {
	t.Helper()
	offer := noise.Parameters{Suites: crypto.AllSuites, Layer: noise.LayerIP}
	msgs, i, err := e.peer.InitiateHybrid(nil, initiatorIndex, timestamp, offer, noise.Randomness{})
	if err != nil {
		t.Fatal(err)
	}
	first, second = msgs[:noise.HybridInitiationSize], msgs[noise.HybridInitiationSize:]
	e.stamper.Stamp(first, 0)
	e.stamper.StampKEM(second)
	return first, second, i
}

// pass does with the macs of a datagram what an end does that is not under load.
func (e end) pass(msg []byte, from netip.AddrPort) bool {
	if !e.checker.CheckMAC1(msg) {
		return false
	}
	typ, _ := noise.MessageType(msg)
	return typ == noise.TypeKEM || e.checker.AcceptsMAC2(msg, from, 0)
}

// verify does with a datagram what a responder does that waits for an initiation. It returns nil where that is silence, or a cookie.
func (e end) verify(msg []byte) *noise.HybridResponder {
	if !e.pass(msg, initiatorAddr) {
		return nil
	}
	r, err := e.id.ReadHybridInitiation(msg)
	if err != nil || r.Static() != e.peer.Public() {
		return nil
	}
	if ts, _, err := r.Verify(e.peer); err != nil || ts != timestamp {
		return nil
	}
	return r
}

// complete does with a datagram what a responder does that waits for the KEM part. It returns nil where that is silence.
func (e end) complete(t testing.TB, r *noise.HybridResponder, msg []byte, suite crypto.Suite) ([]byte, *session.Session) {
	t.Helper()
	if !e.pass(msg, initiatorAddr) || r.ReadKEM(msg) != nil {
		return nil, nil
	}
	choice := noise.Parameters{Suites: crypto.SuitesOf(suite), Layer: noise.LayerIP}
	response, keys, err := r.Respond(nil, responderIndex, presharedKey, choice, noise.Randomness{})
	if err != nil {
		t.Fatal(err)
	}
	e.stamper.Stamp(response, 0)
	s, err := session.New(&keys, suite, false, responderIndex, r.RemoteIndex(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return response, s
}

// finishHybrid does with a datagram what a waiting initiator does.
func (e end) finishHybrid(t testing.TB, i *noise.HybridInitiator, msg []byte) *session.Session {
	t.Helper()
	if !e.pass(msg, responderAddr) {
		return nil
	}
	keys, chosen, index, err := i.Consume(msg, presharedKey)
	if err != nil {
		return nil
	}
	suite, _ := chosen.Suites.Only()
	s, err := session.New(&keys, suite, true, initiatorIndex, index, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHybridWire(t *testing.T) {
	for _, suite := range []crypto.Suite{crypto.ChaCha20Poly1305, crypto.AES256GCM} {
		initiator, responder := newEnds(t)
		first, second, i := initiator.initiateHybrid(t)
		r := responder.verify(first)
		if r == nil {
			t.Fatal("not verified")
		}
		response, theirs := responder.complete(t, r, second, suite)
		if theirs == nil {
			t.Fatal("no answer")
		}
		ours := initiator.finishHybrid(t, i, response)
		if ours == nil || ours.Suite() != suite || theirs.Suite() != suite {
			t.Fatal("no session, or not of this suite")
		}
		for _, ends := range [][2]*session.Session{{ours, theirs}, {theirs, ours}} {
			if got, ok := deliver(ends[1], seal(t, ends[0], []byte("through"))); !ok || string(got) != "through" {
				t.Errorf("%q, %v", got, ok)
			}
		}
	}
}

// obtain has from take a cookie for its messages to to, which sees them come from src.
func obtain(t *testing.T, from, to end, msg []byte, src netip.AddrPort) {
	t.Helper()
	from.stamper.Stamp(msg, 0)
	reply, err := to.checker.Reply(nil, msg, src, time.Duration(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := from.stamper.ConsumeReply(reply, 0); err != nil {
		t.Fatal(err)
	}
	from.stamper.Stamp(msg, 0)
}

// TestEveryBitOfHybridWithMACs flips each bit of all three messages, macs included, without cookies and with: once leaving mac1 as it was
// and once with mac1 made right again. Never does that end in a session, at either end; and the genuine handshake succeeds afterwards.
func TestEveryBitOfHybridWithMACs(t *testing.T) {
	for _, cookies := range []bool{false, true} {
		initiator, responder := newEnds(t)
		first, second, waiting := initiator.initiateHybrid(t)
		if cookies {
			obtain(t, initiator, responder, first, initiatorAddr)
		}
		spent := responder.verify(first)
		if spent == nil {
			t.Fatal("not verified")
		}
		response, theirs := responder.complete(t, spent, second, crypto.AES256GCM)
		if theirs == nil {
			t.Fatal("no answer")
		}
		if cookies {
			obtain(t, responder, initiator, response, responderAddr)
		}

		r := responder.verify(first)
		each := func(name string, msg []byte, to end, taken func(bad []byte) bool) {
			for _, again := range []bool{false, true} {
				for bit := range len(msg) * 8 {
					bad := bytes.Clone(msg)
					bad[bit/8] ^= 1 << (bit % 8)
					switch typ, _ := noise.MessageType(bad); {
					case !again:
					case typ == noise.TypeKEM:
						cookie.NewStamper(to.id.Public()).StampKEM(bad)
					case typ == noise.TypeHybridInitiation || typ == noise.TypeHybridResponse:
						restamp(bad, to.id.Public())
					}
					if !bytes.Equal(bad, msg) && taken(bad) { // equal: a bit of mac1, made right again
						t.Errorf("cookies %v, %s, bit %d, mac1 made again %v: taken", cookies, name, bit, again)
					}
				}
			}
		}
		each("initiation", first, responder, func(bad []byte) bool { return responder.verify(bad) != nil })
		each("KEM part", second, responder, func(bad []byte) bool {
			_, s := responder.complete(t, r, bad, crypto.AES256GCM)
			return s != nil
		})
		each("response", response, initiator, func(bad []byte) bool { return initiator.finishHybrid(t, waiting, bad) != nil })

		if _, s := responder.complete(t, r, second, crypto.AES256GCM); s == nil {
			t.Error("the genuine KEM part was refused afterwards")
		}
		ours := initiator.finishHybrid(t, waiting, response)
		if ours == nil {
			t.Fatal("the genuine response was refused afterwards")
		}
		if _, ok := deliver(theirs, seal(t, ours, nil)); !ok {
			t.Error("the genuine session carries nothing")
		}
	}
}
