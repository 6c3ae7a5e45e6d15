package stream

import (
	"crypto/tls"
	"errors"
	"net"
	"time"
)

const (
	// acceptPause follows each connection accepted: at most 500 a second begin a TLS handshake, which costs both ends together
	// 0.76 ms (BenchmarkHandshake).
	acceptPause = 2 * time.Millisecond
	// acceptRetry is how long a failure to accept, such as for want of descriptors, is waited out.
	acceptRetry = 100 * time.Millisecond
)

// protocols are those that web servers speak (RFC 7301), so that whoever reads the handshake sees one of those.
var protocols = []string{"h2", "http/1.1"}

// listen accepts streams as configured, in place of what was before. On failure things are as they were. The network's lock is held.
func (s *socket) listen(c Config) error {
	s.listening.Lock()
	defer s.listening.Unlock()
	switch {
	case c.Listen.Port() == 0:
		if s.listener != nil {
			s.listener.Close()
			s.listener = nil
			s.table.closeAccepted()
		}
		s.config = c
		return nil
	case s.listener != nil && s.config.Listen == c.Listen:
		s.server.Store(serverConfig(c))
		s.config = c
		return nil
	}
	before := s.listener
	if before != nil && s.config.Listen.Port() == c.Listen.Port() { // which one socket alone can have
		before.Close()
	}
	l, err := s.network.listenOn(s.host, c.Listen, s.mark.Load())
	if err != nil {
		if before != nil && s.config.Listen.Port() == c.Listen.Port() {
			s.listener = nil
			if again, err := s.host.Listen(s.config.Listen, s.mark.Load()); err == nil {
				s.serve(again, s.config)
			}
		}
		return &ListenError{c.Listen, err}
	}
	if before != nil {
		before.Close()
	}
	s.serve(l, c)
	return nil
}

// serve accepts from a listener. The lock is held.
func (s *socket) serve(l net.Listener, c Config) {
	s.listener, s.config = l, c
	s.server.Store(serverConfig(c))
	s.work.Go(func() { s.accept(l) })
}

// pause stops accepting, so that another socket can listen where this one does.
func (s *socket) pause() {
	s.listening.Lock()
	defer s.listening.Unlock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

// resume accepts again.
func (s *socket) resume(c Config) {
	if err := s.listen(c); err != nil {
		s.logf("%v", err)
	}
}

// accept takes connections until the listener is closed.
func (s *socket) accept(l net.Listener) {
	for {
		raw, err := l.Accept()
		pause := acceptPause
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			pause = acceptRetry
		default:
			if c := s.newConn(raw, false); c != nil {
				c.tls = tls.Server(raw, s.server.Load())
				s.work.Go(c.serve)
			}
		}
		select {
		case <-s.closed:
			return
		case <-time.After(pause):
		}
	}
}

// serverConfig is the TLS of one who accepts: version 1.3 and nothing else, and no state kept for clients.
func serverConfig(c Config) *tls.Config {
	return &tls.Config{
		Certificates:                []tls.Certificate{c.Certificate},
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  protocols,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}
