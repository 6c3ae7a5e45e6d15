package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// requestRun says how requests are made: on each of some connections one after the other, each when the last was answered.
type requestRun struct {
	To          netip.AddrPort
	Connections int
	Size        int // of request and answer, in bytes
	Warmup      time.Duration
	Duration    time.Duration
}

// requestResult is of the requests that were answered within the time.
type requestResult struct {
	Count   int64
	Seconds float64
	Latency *Times
}

// maxRequest bounds a request's size, in bytes.
const maxRequest = 64 << 10

// answerer answers requests: it sends back what it gets.
type answerer struct {
	listener net.Listener
	working  sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
	closed   bool
}

// listen answers what comes to an address, and returns it with the port filled in.
func (a *answerer) listen(addr netip.AddrPort) (netip.AddrPort, error) {
	if a.listener != nil {
		return addr, errors.New("listening already")
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return addr, err
	}
	a.listener, a.closed = listener, false
	a.working.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			a.mu.Lock()
			if a.closed {
				c.Close()
			}
			a.conns = append(a.conns, c)
			a.mu.Unlock()
			a.working.Go(func() { answer(c) })
		}
	})
	return listener.Addr().(*net.TCPAddr).AddrPort(), nil
}

// answer sends back what it reads until the connection ends.
func answer(c net.Conn) {
	for buf := make([]byte, maxRequest); ; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// stop ends all connections and makes the answerer usable again.
func (a *answerer) stop(none) (none, error) {
	if a.listener == nil {
		return none{}, nil
	}
	a.listener.Close()
	a.mu.Lock()
	a.closed = true
	for _, c := range a.conns {
		c.Close()
	}
	a.conns = nil
	a.mu.Unlock()
	a.working.Wait()
	a.listener = nil
	return none{}, nil
}

// makeRequests connects, makes requests for a time and returns.
func makeRequests(run requestRun) (result requestResult, err error) {
	if run.Connections < 1 || run.Size < 1 || run.Size > maxRequest {
		return result, fmt.Errorf("requests of %d bytes over %d connections", run.Size, run.Connections)
	}
	conns := make([]net.Conn, run.Connections)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range conns {
		if conns[i], err = net.DialTimeout("tcp", run.To.String(), connectTimeout); err != nil {
			return result, err
		}
	}
	times, errs := make([][]time.Duration, len(conns)), make([]error, len(conns))
	begin := time.Now().Add(run.Warmup)
	end := begin.Add(run.Duration)
	var working sync.WaitGroup
	for i, c := range conns {
		working.Go(func() { times[i], errs[i] = requestsOn(c, run.Size, begin, end) })
	}
	working.Wait()
	if err := errors.Join(errs...); err != nil {
		return result, err
	}
	all := slices.Concat(times...)
	result.Count, result.Seconds = int64(len(all)), run.Duration.Seconds()
	result.Latency, err = timesOf(pingResult{Times: all})
	return result, err
}

// requestsOn makes requests on a connection and returns how long those took that were answered between begin and end.
func requestsOn(c net.Conn, size int, begin, end time.Time) (times []time.Duration, err error) {
	buf := make([]byte, size)
	if err := c.SetDeadline(end.Add(connectTimeout)); err != nil {
		return nil, err
	}
	for sent := time.Now(); sent.Before(end); {
		if _, err := c.Write(buf); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return nil, err
		}
		now := time.Now()
		if now.After(begin) && !now.After(end) {
			times = append(times, now.Sub(sent))
		}
		sent = now
	}
	return times, nil
}
