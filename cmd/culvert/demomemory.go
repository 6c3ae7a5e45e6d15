package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/tun/netstack"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/setup"
	"culvert/transport"
	"culvert/tunnel"
	"culvert/tunnel/device"
)

// memoryEnd is one end without a device: a network stack in memory on an engine.
type memoryEnd struct {
	inner  netip.Addr
	key    crypto.PrivateKey
	stack  *netstack.Net
	engine *tunnel.Tunnel
}

// demoInMemory starts two engines in this process; their UDP goes over the loopback.
func demoInMemory(ctx context.Context, s *show, wire config.Wire) (_ *demoEnds, err error) {
	var u undo
	defer func() {
		if err != nil {
			err = errors.Join(err, u.run())
		}
	}()
	a := &memoryEnd{inner: netip.MustParseAddr("10.77.0.1")}
	b := &memoryEnd{inner: netip.MustParseAddr("10.77.0.2")}
	for _, e := range []*memoryEnd{a, b} {
		if err := e.start(ctx, &u, wire); err != nil {
			return nil, err
		}
	}
	if err := a.connect(b, wireOf(wire)); err != nil {
		return nil, err
	}
	if err := b.connect(a, wireOf(wire)); err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(b.inner, demoPort)
	echo, err := b.stack.ListenUDPAddrPort(at)
	if err != nil {
		return nil, fmt.Errorf("cannot listen in memory: %w", err)
	}
	u.add("end the echo", echo.Close)
	go echoUDP(echo)
	s.step("two engines on the %s wire over UDP on 127.0.0.1: %s to %s", wire, a.inner, b.inner)
	return &demoEnds{
		devices: "memory",
		listen: func() (net.Listener, error) {
			return b.stack.ListenTCPAddrPort(at)
		},
		dial: func(ctx context.Context) (net.Conn, error) {
			return a.stack.DialContextTCPAddrPort(ctx, at)
		},
		pinger: func() (echoConn, error) {
			c, err := a.stack.DialUDPAddrPort(netip.AddrPort{}, at)
			return udpEcho{c}, err
		},
		usage: func() (usage, error) {
			cpu, rss, err := processUsage("self")
			return usage{cpu, []uint64{rss}}, err
		},
		peer:  a.peer,
		close: u.run,
	}, nil
}

func (e *memoryEnd) start(ctx context.Context, u *undo, wire config.Wire) (err error) {
	if e.key, err = crypto.GeneratePrivateKey(); err != nil {
		return err
	}
	mtu := setup.DefaultMTU + setup.WireGuardOverhead - overheadOf(&config.Tunnel{Wire: wire})
	tun, stack, err := netstack.CreateNetTUN([]netip.Addr{e.inner}, nil, mtu)
	if err != nil {
		return fmt.Errorf("cannot make a network stack: %w", err)
	}
	e.stack = stack
	dev := device.FromTUN(tun)
	network := observe(transport.UDP{})
	e.engine, err = tunnel.New(dev, network, tunnel.Options{Agent: agent()})
	if err != nil {
		return errors.Join(err, dev.Close())
	}
	u.add("close an engine", e.engine.Close)
	if err := e.engine.Configure(tunnel.Change{PrivateKey: &e.key}); err != nil {
		return err
	}
	return network.wait(ctx, e.engine.Done())
}

// connect makes the other end a peer.
func (e *memoryEnd) connect(to *memoryEnd, wire tunnel.Wire) error {
	port, err := to.port()
	if err != nil {
		return err
	}
	at := transport.Endpoint{Remote: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}
	return e.engine.Configure(tunnel.Change{Peers: []tunnel.PeerChange{{
		PublicKey: to.key.Public(), Wire: &wire, Endpoint: &at,
		AllowedIPs: []tunnel.AllowedIPChange{{Prefix: netip.PrefixFrom(to.inner, 32)}},
	}}})
}

// peer is what the engine says of the other end.
func (e *memoryEnd) peer() (control.Peer, error) {
	s := e.engine.Status()
	s.PrivateKey.Zero()
	if len(s.Peers) != 1 {
		return control.Peer{}, errors.New("an engine has lost its peer")
	}
	return statusOf(s, nil).Peers[0], nil
}

// port is the UDP port the kernel picked. The engine notes it a moment after the socket is open.
func (e *memoryEnd) port() (uint16, error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if s := e.engine.Status(); s.Up {
			return s.ListenPort, nil
		}
	}
	return 0, errors.New("an engine did not open its port")
}
