package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"culvert/crypto"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
	"culvert/tunnel/ethernet"
)

// switchRun says who the switch's peers are, the good one first, and whether each one's station is pinned to it.
type switchRun struct {
	Peers  []string
	Pinned bool
}

// switchResult is what came of a trial.
type switchResult struct {
	victimResult
	Forwarded        uint64 // messages to peers but the good one
	Addresses        int
	HostileAddresses int
	Moves            uint64
	Blocked          bool
}

// frameSwitch is an agent's part as the engine that switches. Its measuring is that of an engine that is flooded.
type frameSwitch struct {
	victim
	device        *devicetest.Device
	good, hostile crypto.PublicKey
	forwarded     uint64 // before

	stop    chan none
	talking sync.WaitGroup
}

// talkEvery is how often the station behind the device says something: were it silent, whoever claims its address would keep it.
const talkEvery = 10 * time.Millisecond

func (f *frameSwitch) start(run switchRun) (at victimAddress, err error) {
	if f.engine != nil {
		return at, errors.New("started already")
	}
	key, err := crypto.GeneratePrivateKey()
	if err != nil {
		return at, err
	}
	var peers []tunnel.PeerChange
	for i, text := range run.Peers {
		public, err := crypto.ParsePublicKeyHex(text)
		if err != nil {
			return at, err
		}
		port := tunnel.PortChange{Spoke: true}
		if run.Pinned {
			port.Pinned = []ethernet.Address{stationOf(i)}
		}
		switch i {
		case 0:
			f.good = public
		case 1:
			f.hostile = public
		}
		peers = append(peers, tunnel.PeerChange{PublicKey: public, Port: &port})
	}
	f.device = devicetest.NewEthernet("bench0", frameMTU, 1)
	if f.engine, err = runOnKernel(key.Hex(), f.device, peers); err != nil {
		return at, err
	}
	f.device.Queue(0).SetSink(f.delivered)
	f.stop = make(chan none)
	f.talking.Go(f.talk)
	s := f.engine.Status()
	return victimAddress{s.ListenPort, s.PublicKey.Hex()}, nil
}

// talk is the station behind the device.
func (f *frameSwitch) talk() {
	frame := appendFrame(nil, stationOf(0), localStation, make([]byte, trafficSize))
	for {
		select {
		case <-f.stop:
			return
		case <-time.After(talkEvery):
			f.device.Queue(0).Push(frame, noOffload)
		}
	}
}

// delivered takes a frame that comes out of the device.
func (f *frameSwitch) delivered(frame []byte, _ device.Offload) {
	if len(frame) != ethernet.HeaderSize+trafficSize || ethernet.AddressAt(frame) != localStation {
		return
	}
	now, sent := time.Now().UnixNano(), int64(binary.BigEndian.Uint64(frame[ethernet.HeaderSize:]))
	f.mu.Lock()
	defer f.mu.Unlock()
	if sent != 0 {
		f.times = append(f.times, time.Duration(now-sent))
	}
}

func (f *frameSwitch) begin(none) (none, error) {
	f.forwarded = f.sentToOthers()
	return f.victim.begin(none{})
}

// sentToOthers counts the messages to all peers but the good one.
func (f *frameSwitch) sentToOthers() (n uint64) {
	for _, p := range f.engine.Status().Peers {
		if p.PublicKey != f.good {
			n += p.SentPackets
		}
	}
	return n
}

func (f *frameSwitch) end(none) (r switchResult, err error) {
	if r.victimResult, err = f.victim.end(none{}); err != nil {
		return r, err
	}
	r.Forwarded = f.sentToOthers() - f.forwarded
	s := f.engine.Status().Switch
	r.Addresses, r.Moves, r.Blocked = len(s.Addresses), s.Moves, s.Blocked || s.Loops > 0
	for _, a := range s.Addresses {
		if a.Peer == f.hostile {
			r.HostileAddresses++
		}
	}
	return r, nil
}

func (f *frameSwitch) close() {
	if f.stop != nil {
		close(f.stop)
		f.talking.Wait()
	}
	f.victim.close()
}

// framePartner is an agent's part as the good peer, an engine whose device is a station.
type framePartner struct{ partner }

// start returns when there is a session, and the path's MTU is known.
func (p *framePartner) start(to engineFar) (_ none, err error) {
	public, err := crypto.ParsePublicKeyHex(to.Far.Public)
	if err != nil {
		return none{}, err
	}
	far := tunnel.PeerChange{PublicKey: public, Endpoint: &transport.Endpoint{Remote: netip.AddrPortFrom(victimHost, to.Far.Port)}}
	p.device = devicetest.NewEthernet("bench0", frameMTU, 1)
	if p.engine, err = runOnKernel(to.Private, p.device, []tunnel.PeerChange{far}); err != nil {
		return none{}, err
	}
	p.device.Queue(0).SetSink(func([]byte, device.Offload) {})
	p.device.Queue(0).Push(appendFrame(nil, ethernet.Broadcast, stationOf(0), make([]byte, trafficSize)), noOffload)
	if _, err := awaitSession(p.engine, engineWait); err != nil {
		return none{}, err
	}
	time.Sleep(500 * time.Millisecond)
	return none{}, nil
}

func (p *framePartner) traffic(run trafficRun) (tunnelSent, error) {
	return p.send(run, func(content []byte) []byte { return appendFrame(nil, localStation, stationOf(0), content) })
}
