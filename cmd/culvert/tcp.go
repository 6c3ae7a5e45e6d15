package main

import (
	"errors"
	"syscall"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/transport"
	"culvert/transport/stream"
)

// acceptTCP has the tunnel accept TCP connections as configured.
func (t *liveTunnel) acceptTCP(conf *config.Tunnel) error {
	c := stream.Config{Listen: conf.TCP.Listen}
	switch {
	case c.Listen.Port() == 0:
	case conf.TCP.Certificate != nil:
		c.Certificate = *conf.TCP.Certificate
	default:
		if t.certificate == nil { // made once, so that a reload shows no other
			made, err := stream.SelfSigned(time.Now())
			if err != nil {
				return err
			}
			t.certificate = &made
		}
		c.Certificate = *t.certificate
	}
	return placed(conf.TCP.Pos, tcpHint(t.streams.Configure(c)))
}

// tcpHint adds what to do where a TCP port is taken.
func tcpHint(err error) error {
	if _, ok := errors.AsType[*stream.ListenError](err); ok && errors.Is(err, syscall.EADDRINUSE) {
		return hint(err, "another process has it; ss -ltnp shows which")
	}
	return err
}

// listenPosition is the line of what could not be opened: the TCP port, or the UDP port.
func listenPosition(conf *config.Tunnel, err error) config.Position {
	if _, ok := errors.AsType[*stream.ListenError](err); ok {
		return conf.TCP.Pos
	}
	return conf.ListenPos
}

// streamTargets are where TCP to a peer is tried. A zone may stay an interface's name.
func streamTargets(p *config.Peer) *[]transport.StreamTarget {
	targets := make([]transport.StreamTarget, 0, len(p.TCP))
	for _, e := range p.TCP {
		targets = append(targets, transport.StreamTarget{Host: e.Host, Port: e.Port})
	}
	return &targets
}

// streamsOf are the counters of streams; nil where there were none.
func streamsOf(c transport.StreamCounters) *control.Streams {
	if c == (transport.StreamCounters{}) {
		return nil
	}
	s := control.Streams(c)
	return &s
}
