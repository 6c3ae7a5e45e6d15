package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tcpBuffer is what one write or read hands over, in bytes. Larger ones gain nothing, smaller ones cost system calls.
const tcpBuffer = 256 << 10

// tcpLoad is an agent's part in a TCP measurement: the sending or the receiving end of some flows.
type tcpLoad struct {
	listener net.Listener
	received atomic.Int64
	working  sync.WaitGroup

	mu       sync.Mutex
	conns    []*net.TCPConn
	idle     []net.Conn // of these, those that are to send
	errs     []error
	stopping bool
}

// add takes a connection into the load, or closes it when the load is being stopped.
func (l *tcpLoad) add(c *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		c.Close()
		return
	}
	l.conns = append(l.conns, c)
}

// failed keeps the error of a flow, unless the flow was stopped.
func (l *tcpLoad) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopping {
		l.errs = append(l.errs, err)
	}
}

// listen receives what comes to an address, and returns it with the port filled in.
func (l *tcpLoad) listen(addr netip.AddrPort) (netip.AddrPort, error) {
	if l.listener != nil {
		return addr, errors.New("listening already")
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return addr, err
	}
	l.listener = listener
	l.received.Store(0)
	l.working.Go(func() {
		for {
			c, err := listener.AcceptTCP()
			if err != nil {
				l.failed(err)
				return
			}
			l.add(c)
			l.working.Go(func() { l.receive(c) })
		}
	})
	return listener.Addr().(*net.TCPAddr).AddrPort(), nil
}

func (l *tcpLoad) receive(c net.Conn) {
	for buf := make([]byte, tcpBuffer); ; {
		n, err := c.Read(buf)
		l.received.Add(int64(n))
		if err != nil {
			// A sender that was stopped resets its flows. One that failed tells so itself.
			return
		}
	}
}

// tcpFlows says where to send.
type tcpFlows struct {
	To         netip.AddrPort
	Flows      int
	Congestion string // TCP congestion control; "": the machine's
}

const optionCongestion = 13 // TCP_CONGESTION, tcp(7)

// dialer makes connections with the congestion control asked for. By the socket, as the kernel has a network namespace of its
// own make only those its default that are allowed to everybody.
func (f tcpFlows) dialer() *net.Dialer {
	d := &net.Dialer{Timeout: connectTimeout}
	if f.Congestion == "" {
		return d
	}
	d.Control = func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, optionCongestion, f.Congestion)
		}); cerr != nil {
			return cerr
		}
		if err != nil {
			return fmt.Errorf("TCP congestion control %q: %w", f.Congestion, err)
		}
		return nil
	}
	return d
}

// connectTimeout bounds the wait for a flow to be accepted.
const connectTimeout = 20 * time.Second

// connect makes flows, which do not send yet.
func (l *tcpLoad) connect(f tcpFlows) (none, error) {
	results := make(chan error, f.Flows)
	dialer := f.dialer()
	for range f.Flows {
		go func() {
			c, err := dialer.Dial("tcp", f.To.String())
			if err == nil {
				l.add(c.(*net.TCPConn))
				l.mu.Lock()
				l.idle = append(l.idle, c)
				l.mu.Unlock()
			}
			results <- err
		}()
	}
	var errs []error
	for range f.Flows {
		errs = append(errs, <-results)
	}
	return none{}, errors.Join(errs...)
}

// start has the flows that were made send as much as they can.
func (l *tcpLoad) start(none) (none, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.idle {
		l.working.Go(func() {
			for buf := make([]byte, tcpBuffer); ; {
				if _, err := conn.Write(buf); err != nil {
					l.failed(err)
					return
				}
			}
		})
	}
	l.idle = nil
	return none{}, nil
}

// end has the flows do nothing any more. They may be cut off from now on, as the other side is about to stop.
func (l *tcpLoad) end(none) (none, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.halt()
	return none{}, nil
}

// halt ends what the flows are at, with l.mu held. To close one waits for what is being done with it, which takes its turn among all
// flows that are still running; this does not.
func (l *tcpLoad) halt() {
	l.stopping = true
	for _, c := range l.conns {
		_ = c.SetDeadline(time.Unix(1, 0))
	}
}

// count returns how many bytes the flows have delivered to the receiving program so far.
func (l *tcpLoad) count(none) (int64, error) { return l.received.Load(), nil }

// stop ends all flows at once, dropping what is queued, and makes the load usable again. Its error is that of the first
// flow that ended before.
func (l *tcpLoad) stop(none) (none, error) {
	l.mu.Lock()
	l.halt()
	for _, c := range l.conns {
		_ = c.SetLinger(0)
		c.Close()
	}
	l.mu.Unlock()
	if l.listener != nil {
		l.listener.Close()
		l.listener = nil
	}
	l.working.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if len(l.errs) > 0 {
		err = fmt.Errorf("%d of the flows ended early: %w", len(l.errs), l.errs[0])
	}
	l.conns, l.idle, l.errs, l.stopping = nil, nil, nil, false
	return none{}, err
}
