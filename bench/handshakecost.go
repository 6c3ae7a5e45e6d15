package main

import (
	"errors"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/tai64n"
)

// The wires whose handshakes are measured, as tunnel.Wire calls them.
const (
	wireWireGuard = "wireguard"
	wireCulvert   = "culvert"
)

// costRun says what to measure of the cryptography alone.
type costRun struct {
	Wire string
	For  time.Duration
}

// costBatch is how many handshakes are made side by side, so that each step lasts long enough to be timed.
const costBatch = 64

// handshakeSteps is one handshake, step by step; each works on what the one before left.
type handshakeSteps interface {
	initiate() error // the initiator's message, or both
	read() error     // the responder finds out who it is and that it is genuine
	respond() error
	consume() error // the initiator's session keys
}

// handshakeCost measures the CPU time of each step, without macs, sessions and all else around it.
func handshakeCost(run costRun) (c HandshakeCost, err error) {
	ends, err := newHandshakeEnds()
	if err != nil {
		return c, err
	}
	steps := make([]handshakeSteps, costBatch)
	var used [4]time.Duration
	for start := time.Now(); c.Count == 0 || time.Since(start) < run.For; c.Count += costBatch {
		for i := range steps {
			if steps[i], err = ends.steps(run.Wire); err != nil {
				return c, err
			}
		}
		before, err := ownCPU()
		if err != nil {
			return c, err
		}
		for n, step := range []func(handshakeSteps) error{handshakeSteps.initiate, handshakeSteps.read, handshakeSteps.respond, handshakeSteps.consume} {
			for _, s := range steps {
				if err := step(s); err != nil {
					return c, err
				}
			}
			after, err := ownCPU()
			if err != nil {
				return c, err
			}
			used[n] += after - before
			before = after
		}
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(c.Count) }
	c.Initiate, c.Read, c.Respond, c.Consume = each(used[0]), each(used[1]), each(used[2]), each(used[3])
	return c, nil
}

// handshakeEnds are two ends that know each other.
type handshakeEnds struct {
	initiator, responder     *noise.Identity
	toResponder, toInitiator *noise.Remote
}

func newHandshakeEnds() (e handshakeEnds, err error) {
	identity := func() (*noise.Identity, error) {
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			return nil, err
		}
		return noise.NewIdentity(key)
	}
	if e.initiator, err = identity(); err != nil {
		return e, err
	}
	if e.responder, err = identity(); err != nil {
		return e, err
	}
	e.toResponder = noise.NewRemote(e.initiator, e.responder.Public())
	e.toInitiator = noise.NewRemote(e.responder, e.initiator.Public())
	return e, nil
}

func (e *handshakeEnds) steps(wire string) (handshakeSteps, error) {
	switch wire {
	case wireWireGuard:
		return &wireGuardSteps{handshakeEnds: e}, nil
	case wireCulvert:
		return &hybridSteps{handshakeEnds: e}, nil
	}
	return nil, errors.New("there is no wire " + wire)
}

var someTime = tai64n.From(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

type wireGuardSteps struct {
	*handshakeEnds
	msg []byte
	i   *noise.Initiator
	r   *noise.Responder
}

func (s *wireGuardSteps) initiate() (err error) {
	s.msg, s.i, err = s.toResponder.Initiate(nil, 1, someTime, crypto.GeneratePrivateKey)
	return err
}

func (s *wireGuardSteps) read() (err error) {
	if s.r, err = s.responder.ReadInitiation(s.msg); err != nil {
		return err
	}
	_, err = s.r.Verify(s.toInitiator)
	return err
}

func (s *wireGuardSteps) respond() (err error) {
	s.msg, _, err = s.r.Respond(nil, 2, crypto.PresharedKey{}, crypto.GeneratePrivateKey)
	return err
}

func (s *wireGuardSteps) consume() error {
	_, _, err := s.i.Consume(s.msg, crypto.PresharedKey{})
	return err
}

type hybridSteps struct {
	*handshakeEnds
	msg []byte
	i   *noise.HybridInitiator
	r   *noise.HybridResponder
}

var (
	hybridOffer  = noise.Parameters{Suites: crypto.AllSuites, Layer: noise.LayerIP}
	hybridChoice = noise.Parameters{Suites: crypto.SuitesOf(crypto.AES256GCM), Layer: noise.LayerIP}
)

func (s *hybridSteps) initiate() (err error) {
	s.msg, s.i, err = s.toResponder.InitiateHybrid(nil, 1, someTime, hybridOffer, noise.Randomness{})
	return err
}

func (s *hybridSteps) read() (err error) {
	if s.r, err = s.responder.ReadHybridInitiation(s.msg[:noise.HybridInitiationSize]); err != nil {
		return err
	}
	if _, _, err = s.r.Verify(s.toInitiator); err != nil {
		return err
	}
	return s.r.ReadKEM(s.msg[noise.HybridInitiationSize:])
}

func (s *hybridSteps) respond() (err error) {
	s.msg, _, err = s.r.Respond(nil, 2, crypto.PresharedKey{}, hybridChoice, noise.Randomness{})
	return err
}

func (s *hybridSteps) consume() error {
	_, _, _, err := s.i.Consume(s.msg, crypto.PresharedKey{})
	return err
}
