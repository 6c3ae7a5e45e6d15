package main

import (
	"errors"
	"net/netip"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel"
	"culvert/tunnel/device"
	"culvert/tunnel/device/devicetest"
)

// noOffload is a finished packet.
var noOffload device.Offload

// startRun says how a start is measured: two engines without a session, on a link of a delay.
type startRun struct {
	Wire  string
	Delay time.Duration // one way
	Count int
}

// startResult is how long the first packets took, and what the handshakes took on the wire, in UDP payload.
type startResult struct {
	Times     []time.Duration
	Datagrams int
	Bytes     int
}

// startUp measures the time from the first packet handed to an engine until the far one delivers it.
func startUp(run startRun) (result startResult, err error) {
	w, err := wireOf(run.Wire)
	if err != nil {
		return result, err
	}
	for range run.Count {
		if err := startOnce(run, w, &result); err != nil {
			return result, err
		}
	}
	return result, nil
}

func startOnce(run startRun, wire tunnel.Wire, result *startResult) error {
	network := transporttest.New(1)
	var datagrams, bytes int // written by taps, read when all engines are closed
	network.Tap(func(p *transporttest.Packet) {
		if p.Data[0] != noise.TypeData {
			datagrams++
			bytes += len(p.Data)
		}
	})
	network.SetDefaultLink(transporttest.Link{Delay: run.Delay})
	type end struct {
		address, inner netip.Addr
		key            crypto.PrivateKey
		device         *devicetest.Device
		tunnel         *tunnel.Tunnel
	}
	ends := []*end{
		{address: netip.MustParseAddr("192.0.2.1"), inner: netip.MustParseAddr("10.0.0.1")},
		{address: netip.MustParseAddr("192.0.2.2"), inner: netip.MustParseAddr("10.0.0.2")},
	}
	stop := func() {
		for _, e := range ends {
			if e.tunnel != nil {
				e.tunnel.Close()
			}
		}
	}
	defer stop()
	for _, e := range ends {
		var err error
		if e.key, err = crypto.GeneratePrivateKey(); err != nil {
			return err
		}
		e.device = devicetest.New("bench0", tunnelMTU, 1)
		if e.tunnel, err = tunnel.New(e.device, network.Host(e.address), tunnel.Options{Suites: crypto.AllSuites}); err != nil {
			return err
		}
	}
	port := uint16(tunnelPort)
	for i, e := range ends {
		far := ends[1-i]
		if err := e.tunnel.Configure(tunnel.Change{PrivateKey: &e.key, ListenPort: &port, Peers: []tunnel.PeerChange{{
			PublicKey: far.key.Public(), Wire: &wire, Endpoint: &transport.Endpoint{Remote: netip.AddrPortFrom(far.address, port)},
			AllowedIPs: []tunnel.AllowedIPChange{{Prefix: netip.PrefixFrom(far.inner, 32)}},
		}}}); err != nil {
			return err
		}
		if err := awaitUp(e.tunnel); err != nil {
			return err
		}
	}
	watch := time.AfterFunc(engineWait, stop)
	defer watch.Stop()
	start := time.Now()
	ends[0].device.Queue(0).Push(packetBetween(ends[0].inner, ends[1].inner, make([]byte, 44)), noOffload)
	if _, _, ok := ends[1].device.Queue(0).Next(nil); !ok {
		return errors.New("the first packet was not delivered")
	}
	result.Times = append(result.Times, time.Since(start))
	stop()
	result.Datagrams += datagrams
	result.Bytes += bytes
	return nil
}
