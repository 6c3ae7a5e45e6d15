package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
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
	To    netip.AddrPort
	Flows int
}

// connectTimeout bounds the wait for a flow to be accepted.
const connectTimeout = 20 * time.Second

// send starts flows that send as much as they can, and returns once all are connected.
func (l *tcpLoad) send(f tcpFlows) (none, error) {
	for range f.Flows {
		c, err := net.DialTimeout("tcp", f.To.String(), connectTimeout)
		if err != nil {
			return none{}, err
		}
		conn := c.(*net.TCPConn)
		l.add(conn)
		l.working.Go(func() {
			for buf := make([]byte, tcpBuffer); ; {
				if _, err := conn.Write(buf); err != nil {
					l.failed(err)
					return
				}
			}
		})
	}
	return none{}, nil
}

// count returns how many bytes the flows have delivered to the receiving program so far.
func (l *tcpLoad) count(none) (int64, error) { return l.received.Load(), nil }

// stop ends all flows at once, dropping what is queued, and makes the load usable again. Its error is that of the first
// flow that ended before.
func (l *tcpLoad) stop(none) (none, error) {
	l.mu.Lock()
	l.stopping = true
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
	l.conns, l.errs, l.stopping = nil, nil, false
	return none{}, err
}
