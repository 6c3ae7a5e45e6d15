package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"culvert/transport"
)

const (
	dialTime     = 5 * time.Second // for each address, TLS included
	maxAddresses = 4               // of one name that are tried
)

// Dial opens a stream to the first of a target's addresses that answers.
func (s *socket) Dial(ctx context.Context, to transport.StreamTarget) (transport.Stream, error) {
	addrs, err := s.addresses(ctx, to.Host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		c, err := s.dial(ctx, netip.AddrPortFrom(a, to.Port), to.Host)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// addresses returns what a host's name, or its address, stands for.
func (s *socket) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*dialTime)
	defer cancel()
	addrs, err := s.host.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

func (s *socket) dial(ctx context.Context, to netip.AddrPort, name string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := s.host.Dial(ctx, to, s.mark.Load())
	if err != nil {
		return nil, err
	}
	c := s.newConn(raw, true)
	if c == nil {
		return nil, net.ErrClosed
	}
	c.tls = tls.Client(raw, clientConfig(name))
	if err := c.tls.HandshakeContext(ctx); err != nil {
		c.end(err)
		return nil, fmt.Errorf("TLS with %v: %w", to, err)
	}
	s.streams.dialled.Add(1)
	if !s.begin(c) {
		c.end(errClosed)
		return nil, net.ErrClosed
	}
	return c, nil
}

// begin starts a dialled stream's goroutines, unless the socket has been closed.
func (s *socket) begin(c *conn) bool {
	s.table.mu.Lock() // which closing takes before it waits for them
	defer s.table.mu.Unlock()
	if s.table.closed {
		return false
	}
	c.start()
	s.work.Go(c.read)
	return true
}

// clientConfig is the TLS of one who dials. Whoever answers is not believed to be anybody: what goes over the stream
// authenticates itself, as it does over UDP.
func clientConfig(name string) *tls.Config {
	return &tls.Config{
		ServerName:                  name, // left out of the handshake where it is an address
		InsecureSkipVerify:          true,
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  protocols,
		DynamicRecordSizingDisabled: true,
	}
}
