package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"culvert/crypto"
	"culvert/crypto/cookie"
	"culvert/crypto/noise"
	"culvert/crypto/tai64n"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel"
	"culvert/tunnel/device/devicetest"
)

// engineRun says how many handshakes an engine is to make over a network in memory, with as many peers, and how often.
type engineRun struct {
	Wire  string
	Peers int
	Laps  int
}

const (
	// handshakeWindow is how many handshakes are under way at once: enough to keep the engine busy, and fewer than put it
	// under load.
	handshakeWindow = 32
	// lapPause parts handshakes of one peer: an engine takes none within 20 ms of the last.
	lapPause = 30 * time.Millisecond
	// engineWait bounds every wait for the engine.
	engineWait = 20 * time.Second
)

var (
	engineAddress = netip.MustParseAddrPort("192.0.2.1:51820")
	engineInner   = netip.MustParseAddr("10.0.0.1")
)

// engine is a tunnel whose device and network are in memory.
type engine struct {
	*tunnel.Tunnel
	device  *devicetest.Device
	network *transporttest.Network
	public  crypto.PublicKey
	peers   []*enginePeer
}

// enginePeer is a far end that is played.
type enginePeer struct {
	endpoint netip.AddrPort
	inner    netip.Addr
	identity *noise.Identity
	engine   *noise.Remote
	stamper  *cookie.Stamper
}

func newEnginePeer(number int, engine crypto.PublicKey) (*enginePeer, error) {
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	p := &enginePeer{
		endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(number)}), uint16(1024+number)),
		inner:    netip.AddrFrom4([4]byte{10, 1, byte(number >> 8), byte(number)}),
		stamper:  cookie.NewStamper(engine),
	}
	if p.identity, err = noise.NewIdentity(key); err != nil {
		return nil, err
	}
	p.engine = noise.NewRemote(p.identity, engine)
	return p, nil
}

// wireOf is the wire of a name.
func wireOf(name string) (w tunnel.Wire, err error) {
	for _, w := range []tunnel.Wire{tunnel.WireGuard, tunnel.Culvert} {
		if w.String() == name {
			return w, nil
		}
	}
	return w, errors.New("there is no wire " + name)
}

func newEngine(wire string, peers int, endpoints bool) (*engine, error) {
	w, err := wireOf(wire)
	if err != nil {
		return nil, err
	}
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		return nil, err
	}
	e := &engine{device: devicetest.New("bench0", tunnelMTU, 1), network: transporttest.New(1), public: key.Public()}
	port := engineAddress.Port()
	change := tunnel.Change{PrivateKey: &key, ListenPort: &port}
	for i := range peers {
		p, err := newEnginePeer(i, e.public)
		if err != nil {
			return nil, err
		}
		e.peers = append(e.peers, p)
		c := tunnel.PeerChange{PublicKey: p.identity.Public(), Wire: &w,
			AllowedIPs: []tunnel.AllowedIPChange{{Prefix: netip.PrefixFrom(p.inner, 32)}}}
		if endpoints {
			c.Endpoint = &transport.Endpoint{Remote: p.endpoint}
		}
		change.Peers = append(change.Peers, c)
	}
	if e.Tunnel, err = tunnel.New(e.device, e.network.Host(engineAddress.Addr()), tunnel.Options{Suites: crypto.AllSuites}); err != nil {
		return nil, err
	}
	if err = e.Configure(change); err == nil {
		err = awaitUp(e.Tunnel)
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// awaitUp returns when the socket is open.
func awaitUp(t *tunnel.Tunnel) error {
	for end := time.Now().Add(engineWait); !t.Status().Up; {
		if time.Now().After(end) {
			return errors.New("the engine's port does not open")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// stuck is the error of an engine that does not do what is waited for.
func (e *engine) stuck(what string) error {
	return fmt.Errorf("%s did not come; handshakes %+v, drops %v", what, e.Status().Handshakes, e.Status().Drops)
}

// initiation makes the messages of an initiation, ready to be injected.
func (p *enginePeer) initiation(wire string, index uint32, at time.Time) (messages [][]byte, err error) {
	if wire == wireCulvert {
		both, _, err := p.engine.InitiateHybrid(nil, index, tai64n.From(at), hybridOffer, noise.Randomness{})
		if err != nil {
			return nil, err
		}
		first, second := both[:noise.HybridInitiationSize], both[noise.HybridInitiationSize:]
		p.stamper.Stamp(first, 0)
		p.stamper.StampKEM(second)
		return [][]byte{first, second}, nil
	}
	msg, _, err := p.engine.Initiate(nil, index, tai64n.From(at), crypto.GeneratePrivateKey)
	if err != nil {
		return nil, err
	}
	p.stamper.Stamp(msg, 0)
	return [][]byte{msg}, nil
}

// response answers the engine's initiation.
func (p *enginePeer) response(wire string, index uint32, engine *noise.Remote, messages [][]byte) (msg []byte, err error) {
	if wire == wireCulvert {
		r, err := p.identity.ReadHybridInitiation(messages[0])
		if err != nil {
			return nil, err
		}
		if _, _, err = r.Verify(engine); err != nil {
			return nil, err
		}
		if err = r.ReadKEM(messages[1]); err != nil {
			return nil, err
		}
		if msg, _, err = r.Respond(nil, index, crypto.PresharedKey{}, hybridChoice, noise.Randomness{}); err != nil {
			return nil, err
		}
	} else {
		r, err := p.identity.ReadInitiation(messages[0])
		if err != nil {
			return nil, err
		}
		if _, err = r.Verify(engine); err != nil {
			return nil, err
		}
		if msg, _, err = r.Respond(nil, index, crypto.PresharedKey{}, crypto.GeneratePrivateKey); err != nil {
			return nil, err
		}
	}
	p.stamper.Stamp(msg, 0)
	return msg, nil
}

// responder is an engine that answers initiations.
type responder struct {
	peers    []*enginePeer
	inject   func(from netip.AddrPort, msg []byte)
	answered func(f func()) // has f called for each response sent
	stuck    func(what string) error
	close    func()
}

func newResponder(run engineRun) (*responder, error) {
	if run.Wire == reference {
		return newReferenceResponder(run.Peers)
	}
	e, err := newEngine(run.Wire, run.Peers, false)
	if err != nil {
		return nil, err
	}
	return &responder{
		peers:  e.peers,
		inject: func(from netip.AddrPort, msg []byte) { e.network.Inject(from, engineAddress, msg) },
		answered: func(f func()) {
			e.network.Tap(func(p *transporttest.Packet) {
				if p.Data[0] == noise.TypeResponse || p.Data[0] == noise.TypeHybridResponse {
					f()
				}
			})
		},
		stuck: e.stuck,
		close: func() { e.Close() },
	}, nil
}

// engineResponds measures what an engine uses to answer initiations, which are made before it is measured.
func engineResponds(run engineRun) (result EngineCost, err error) {
	e, err := newResponder(run)
	if err != nil {
		return result, err
	}
	defer e.close()
	ready := make([][][]byte, 0, run.Laps*run.Peers)
	for lap := range run.Laps {
		for i, p := range e.peers {
			messages, err := p.initiation(run.Wire, uint32(lap*run.Peers+i), someTime.Time().Add(time.Duration(lap)*time.Second))
			if err != nil {
				return result, err
			}
			ready = append(ready, messages)
		}
	}
	free := make(chan none, handshakeWindow)
	e.answered(func() { free <- none{} }) // there is room: each answers one that was taken out
	for range handshakeWindow {
		free <- none{}
	}
	take := func() error {
		select {
		case <-free:
			return nil
		default:
		}
		select {
		case <-free:
			return nil
		case <-time.After(engineWait):
			return e.stuck("a response")
		}
	}
	for lap := range slices.Chunk(ready, run.Peers) {
		time.Sleep(lapPause)
		runtime.GC()
		start := time.Now()
		before, err := ownCPU()
		if err != nil {
			return result, err
		}
		for i, messages := range lap {
			if err := take(); err != nil {
				return result, err
			}
			for _, msg := range messages {
				e.inject(e.peers[i].endpoint, msg)
			}
		}
		for range handshakeWindow { // all are answered
			if err := take(); err != nil {
				return result, err
			}
		}
		after, err := ownCPU()
		if err != nil {
			return result, err
		}
		result.CPUSeconds += (after - before).Seconds()
		result.Seconds += time.Since(start).Seconds()
		result.Count += len(lap)
		for range handshakeWindow {
			free <- none{}
		}
	}
	return result, nil
}

// engineInitiates measures what an engine uses from the first packet for a peer until that packet is sent: making an initiation
// and taking its response. The responses are made while it is not measured.
func engineInitiates(run engineRun) (total EngineCost, err error) {
	for range run.Laps {
		one, err := engineInitiatesOnce(run)
		if err != nil {
			return total, err
		}
		total.Count += one.Count
		total.CPUSeconds += one.CPUSeconds
		total.Seconds += one.Seconds
	}
	return total, nil
}

func engineInitiatesOnce(run engineRun) (result EngineCost, err error) {
	e, err := newEngine(run.Wire, run.Peers, true)
	if err != nil {
		return result, err
	}
	defer e.Close()
	whose := map[netip.AddrPort]int{}
	known := make([]*noise.Remote, run.Peers)
	for i, p := range e.peers {
		whose[p.endpoint] = i
		known[i] = noise.NewRemote(p.identity, e.public)
	}
	parts := 1
	if run.Wire == wireCulvert {
		parts = 2
	}
	initiations := make([][][]byte, run.Peers)
	started := make([]bool, run.Peers)
	events := make(chan none, run.Peers) // an initiation, or the first data, of each peer
	e.network.Tap(func(p *transporttest.Packet) {
		i, ok := whose[p.To]
		if !ok {
			return
		}
		switch p.Data[0] {
		case noise.TypeInitiation, noise.TypeHybridInitiation, noise.TypeKEM:
			if len(initiations[i]) == parts {
				return // sent again
			}
			if initiations[i] = append(initiations[i], bytes.Clone(p.Data)); len(initiations[i]) == parts {
				events <- none{}
			}
		case noise.TypeData:
			if !started[i] {
				started[i] = true
				events <- none{}
			}
		}
	})
	await := func(what string, events <-chan none, n int) error {
		for range n {
			select {
			case <-events:
			case <-time.After(engineWait):
				return e.stuck(what)
			}
		}
		return nil
	}
	// measured counts what f uses.
	measured := func(f func() error) error {
		start := time.Now()
		before, err := ownCPU()
		if err != nil {
			return err
		}
		if err := f(); err != nil {
			return err
		}
		after, err := ownCPU()
		result.CPUSeconds += (after - before).Seconds()
		result.Seconds += time.Since(start).Seconds()
		return err
	}
	runtime.GC()
	// A few at a time, so that none is begun anew while responses are made.
	for first := 0; first < run.Peers; first += handshakeWindow {
		some := e.peers[first:min(first+handshakeWindow, run.Peers)]
		if err := measured(func() error {
			for _, p := range some {
				e.device.Queue(0).Push(packetTo(p.inner), noOffload)
			}
			return await("an initiation", events, len(some))
		}); err != nil {
			return result, err
		}
		responses := make([][]byte, len(some))
		for i, p := range some {
			if responses[i], err = p.response(run.Wire, uint32(first+i), known[first+i], initiations[first+i]); err != nil {
				return result, err
			}
		}
		if err := measured(func() error {
			for i, p := range some {
				e.network.Inject(p.endpoint, engineAddress, responses[i])
			}
			return await("the first data", events, len(some))
		}); err != nil {
			return result, err
		}
	}
	result.Count = run.Peers
	return result, nil
}

// packetTo is a small IPv4 packet of an experimental protocol (RFC 3692), from the engine's address.
func packetTo(to netip.Addr) []byte { return packetBetween(engineInner, to, make([]byte, 44)) }

func packetBetween(from, to netip.Addr, content []byte) []byte {
	p := make([]byte, 20, 20+len(content))
	p[0], p[8], p[9] = 0x45, 64, 253
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(content)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	return append(p, content...)
}
