package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/crypto/tai64n"
)

// sessionsRun says as whom to make sessions, and with whom.
type sessionsRun struct {
	Wire    string
	Private []string // hexadecimal
	Far     netip.AddrPort
	Public  string // hexadecimal
}

// sessionsMade is what came of it: all have a session.
type sessionsMade struct{ Repeats int }

const (
	// joinPatience is for each session, with room for a slow machine.
	joinPatience = 5 * time.Millisecond
	// joinAgain is how long a response is waited for. A daemon takes no second initiation of a peer at once.
	joinAgain = 500 * time.Millisecond
	// joinTries bounds the initiations of one peer.
	joinTries = 10
)

// joiner makes sessions as many peers over one socket, a few at a time, and confirms each with a keepalive.
type joiner struct {
	wire    string
	conn    *net.UDPConn
	far     crypto.PublicKey
	pending map[uint32]*joining // by sender index
	nonce   session.Nonce
	buf     []byte
}

// joining is a handshake under way.
type joining struct {
	private string
	at      time.Time // of the last initiation
	tries   int
	consume func(msg []byte) (noise.Keys, crypto.Suite, uint32, error)
}

// joinAll returns when there is a session as each of the peers.
func joinAll(run sessionsRun) (result sessionsMade, err error) {
	far, err := crypto.ParsePublicKeyHex(run.Public)
	if err != nil {
		return result, err
	}
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(run.Far))
	if err != nil {
		return result, err
	}
	defer conn.Close()
	j := &joiner{wire: run.Wire, conn: conn, far: far, pending: map[uint32]*joining{}, buf: make([]byte, maxUDPDatagram)}
	for next := 0; next < len(run.Private) || len(j.pending) > 0; {
		for next < len(run.Private) && len(j.pending) < handshakeWindow {
			p := &joining{private: run.Private[next]}
			next++
			j.pending[uint32(next)] = p
			if err := j.initiate(uint32(next), p); err != nil {
				return result, err
			}
		}
		if err := j.receive(); err != nil {
			return result, err
		}
		for index, p := range j.pending {
			if time.Since(p.at) < joinAgain {
				continue
			}
			if p.tries == joinTries {
				return result, fmt.Errorf("no response to %d initiations of peer %d", p.tries, index)
			}
			result.Repeats++
			if err := j.initiate(index, p); err != nil {
				return result, err
			}
		}
	}
	return result, nil
}

// initiate sends an initiation.
func (j *joiner) initiate(index uint32, p *joining) error {
	key, err := crypto.ParsePrivateKeyHex(p.private)
	if err != nil {
		return err
	}
	identity, err := noise.NewIdentity(key)
	if err != nil {
		return err
	}
	remote, stamper := noise.NewRemote(identity, j.far), cookie.NewStamper(j.far)
	p.at = time.Now()
	p.tries++
	if j.wire == wireCulvert {
		both, pending, err := remote.InitiateHybrid(nil, index, tai64n.From(p.at), hybridOffer, noise.Randomness{})
		if err != nil {
			return err
		}
		p.consume = func(msg []byte) (noise.Keys, crypto.Suite, uint32, error) {
			keys, chosen, theirs, err := pending.Consume(msg, crypto.PresharedKey{})
			suite, ok := chosen.Suites.Only()
			if err == nil && !ok {
				err = errors.New("no suite was chosen")
			}
			return keys, suite, theirs, err
		}
		first, second := both[:noise.HybridInitiationSize], both[noise.HybridInitiationSize:]
		stamper.Stamp(first, 0)
		stamper.StampKEM(second)
		return j.send(first, second)
	}
	msg, pending, err := remote.Initiate(nil, index, tai64n.From(p.at), crypto.GeneratePrivateKey)
	if err != nil {
		return err
	}
	p.consume = func(msg []byte) (noise.Keys, crypto.Suite, uint32, error) {
		keys, theirs, err := pending.Consume(msg, crypto.PresharedKey{})
		return keys, crypto.ChaCha20Poly1305, theirs, err
	}
	stamper.Stamp(msg, 0)
	return j.send(msg)
}

func (j *joiner) send(messages ...[]byte) error {
	for _, msg := range messages {
		if _, err := j.conn.Write(msg); err != nil {
			return err
		}
	}
	return nil
}

// receive takes one message: a response makes a session, which a keepalive confirms. Nothing else matters here: a daemon on
// the native wire sends control messages, which nobody answers.
func (j *joiner) receive() error {
	if err := j.conn.SetReadDeadline(time.Now().Add(joinAgain)); err != nil {
		return err
	}
	n, err := j.conn.Read(j.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		return err
	}
	msg := j.buf[:n]
	kind, ok := noise.MessageType(msg)
	if !ok || kind != noise.TypeResponse && kind != noise.TypeHybridResponse {
		return nil
	}
	index := noise.ReceiverIndex(msg)
	p := j.pending[index]
	if p == nil {
		return nil // of an initiation that was sent again
	}
	keys, suite, theirs, err := p.consume(msg)
	if err != nil {
		return nil // to an earlier initiation
	}
	delete(j.pending, index)
	s, err := session.New(&keys, suite, true, index, theirs, 0)
	if err != nil {
		return err
	}
	counter, ok := s.Reserve(1, noise.TagSize)
	if !ok {
		return errors.New("a new session is used up")
	}
	keepalive := make([]byte, session.Overhead)
	return j.send(keepalive[:s.Seal(keepalive, counter, nil, &j.nonce)])
}
