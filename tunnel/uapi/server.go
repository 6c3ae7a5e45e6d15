package uapi

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"culvert/tunnel"
)

const (
	// MaxConnections is how many clients are served at once; more wait in the socket's backlog.
	MaxConnections = 64
	// DefaultIdle is how long a client may neither send nor take anything.
	DefaultIdle = 5 * time.Minute

	acceptPause = 200 * time.Millisecond
)

// Options are what a [Server] may be told.
type Options struct {
	// Logf receives a remark for each refused or failed operation, never with a key in it. nil is silence.
	Logf func(format string, args ...any)
	// Idle ends the connection of a client that neither sends nor takes anything for so long; 0 is [DefaultIdle].
	Idle time.Duration
}

// Server answers the configuration protocol for one engine.
type Server struct {
	engine  Engine
	options Options
	slots   chan struct{} // holds an element per connection
	done    chan struct{} // closed by Close

	mu   sync.Mutex
	open map[io.Closer]struct{} // listeners and connections; nil once closed
	work sync.WaitGroup         // connections being served
}

// NewServer returns a server; [Server.Serve] sets it to work.
func NewServer(engine Engine, options Options) *Server {
	if options.Logf == nil {
		options.Logf = func(string, ...any) {}
	}
	if options.Idle <= 0 {
		options.Idle = DefaultIdle
	}
	return &Server{
		engine:  engine,
		options: options,
		slots:   make(chan struct{}, MaxConnections),
		done:    make(chan struct{}),
		open:    make(map[io.Closer]struct{}),
	}
}

// Serve accepts and serves clients of l, a [Listener] or any other, until l fails or the server is closed; it returns the
// reason, net.ErrClosed after [Server.Close]. It closes l in any case. Several listeners may be served at once.
func (s *Server) Serve(l net.Listener) error {
	if !s.register(l) {
		l.Close()
		return net.ErrClosed
	}
	defer func() {
		s.forget(l)
		l.Close()
	}()
	failing := false // told once, not each time it is tried
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.done:
			return net.ErrClosed
		}
		c, err := l.Accept()
		if err == nil {
			failing = false
			s.welcome(c)
			continue
		}
		<-s.slots
		if !passing(err) {
			return err
		}
		if !failing {
			failing = true
			s.options.Logf("configuration socket: %v; trying again until it works", err)
		}
		select {
		case <-time.After(acceptPause):
		case <-s.done:
			return net.ErrClosed
		}
	}
}

// passing reports whether accepting may succeed later.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// welcome serves c, which has a slot, in a goroutine of its own.
func (s *Server) welcome(c net.Conn) {
	if !s.register(c) {
		c.Close()
		<-s.slots
		return
	}
	go func() {
		defer s.work.Done()
		defer func() {
			s.forget(c)
			c.Close()
			<-s.slots
		}()
		s.converse(c)
	}()
}

// register makes Close close c, and wait for its work where c is a connection. It is false after Close.
func (s *Server) register(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return false
	}
	s.open[c] = struct{}{}
	if _, ok := c.(net.Conn); ok {
		s.work.Add(1)
	}
	return true
}

func (s *Server) forget(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// Close closes all listeners and connections and returns when the last operation on the engine has ended. An operation must
// therefore not wait for Close. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	open := s.open
	s.open = nil
	if open != nil {
		close(s.done)
	}
	s.mu.Unlock()
	var errs []error
	for c := range open {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.work.Wait()
	return errors.Join(errs...)
}

// converse answers operation after operation.
func (s *Server) converse(c net.Conn) {
	stream := newPatient(c, s.options.Idle)
	in, out := newLines(stream), newOutput(stream)
	defer func() { clear(in.buf) }()
	for {
		line, err := in.next()
		if err != nil && err != errLineTooLong {
			return // the client has gone, as one does that only probes whether anybody is there
		}
		answered := false
		switch string(line) {
		case "get=1":
			answered = s.get(in, out)
		case "set=1":
			answered = s.set(in, out)
		default:
			s.options.Logf("configuration socket: no such operation")
			if skipOperation(in, len(line) == 0 && err == nil) == nil {
				_ = out.end(-int(syscall.EPROTO))
			}
		}
		in.erase()
		if !answered {
			return
		}
	}
}

// get answers get=1 and reports whether the conversation goes on. An error number is positive here, which wg takes for the
// negative of what it means in the answer to set=1.
func (s *Server) get(in *lines, out *output) bool {
	line, err := in.next()
	if err != nil && err != errLineTooLong {
		return false
	}
	if err != nil || len(line) > 0 {
		s.options.Logf("configuration socket: get: %v", &RequestError{Line: 2, Reason: "get takes no lines", Errno: syscall.EINVAL})
		return skipOperation(in, false) == nil && out.end(int(syscall.EINVAL)) == nil
	}
	status := s.engine.Status()
	out.status(&status)
	status.PrivateKey.Zero()
	return out.end(0) == nil
}

// set answers set=1 and reports whether the conversation goes on.
func (s *Server) set(in *lines, out *output) bool {
	change, err := readChange(in, interfaceIndex)
	if _, ok := errors.AsType[*RequestError](err); err != nil && !ok {
		s.options.Logf("configuration socket: set: %v", err)
		return false
	}
	if err == nil {
		err = s.configure(change)
	}
	if err != nil {
		s.options.Logf("configuration socket: set: %v", err)
	}
	return out.end(-int(errnoOf(err))) == nil
}

func (s *Server) configure(change tunnel.Change) error {
	defer eraseKeys(&change)
	return s.engine.Configure(change)
}

// skipOperation reads to the end of an operation that is refused, so that the client, which writes it all before it reads,
// gets its answer. ended says that the end was read already.
func skipOperation(in *lines, ended bool) error {
	for size := 0; !ended; size += maxLine {
		line, err := in.next()
		if err != nil && err != errLineTooLong {
			return err
		}
		if size > 2*in.limit {
			return syscall.E2BIG
		}
		ended = err == nil && len(line) == 0
	}
	return nil
}

func interfaceIndex(name string) (int, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return i.Index, nil
}

// patient closes its connection when a read or a write takes longer than the limit. The time the engine takes does not
// count, as it would with a deadline.
type patient struct {
	c     net.Conn
	limit time.Duration
	timer *time.Timer
}

func newPatient(c net.Conn, limit time.Duration) *patient {
	timer := time.AfterFunc(limit, func() { c.Close() })
	timer.Stop()
	return &patient{c: c, limit: limit, timer: timer}
}

func (p *patient) Read(b []byte) (int, error) {
	p.timer.Reset(p.limit)
	defer p.timer.Stop()
	return p.c.Read(b)
}

func (p *patient) Write(b []byte) (int, error) {
	p.timer.Reset(p.limit)
	defer p.timer.Stop()
	return p.c.Write(b)
}
