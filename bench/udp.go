package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	udpBatch       = 64      // datagrams per system call
	udpReadBuffer  = 4 << 20 // bytes; the kernel grants what net.core.rmem_max allows
	udpQuiet       = 300 * time.Millisecond
	udpLongestRun  = 10 * time.Millisecond // a sender that fell behind makes up for no more than this
	maxUDPDatagram = 2048
)

// udpFlow says what a UDP sender offers.
type udpFlow struct {
	To       netip.AddrPort
	Size     int // payload of each datagram, in bytes
	Rate     int // datagrams per second; 0: as many as possible
	Duration time.Duration
}

// udpSent is what a UDP sender did.
type udpSent struct {
	Packets int64
	Seconds float64
}

// sendUDP sends datagrams for a time and returns.
func sendUDP(f udpFlow) (sent udpSent, err error) {
	if f.Size < 1 || f.Size > maxUDPDatagram {
		return sent, fmt.Errorf("datagrams of %d bytes", f.Size)
	}
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(f.To))
	if err != nil {
		return sent, err
	}
	defer conn.Close()
	batch := ipv4.NewPacketConn(conn)
	messages := make([]ipv4.Message, udpBatch)
	payload := make([]byte, f.Size)
	for i := range messages {
		messages[i].Buffers = [][]byte{payload}
	}
	start := time.Now()
	origin := start // from where the rate is counted: later than start when time was lost
	var due int64   // since origin
	for {
		elapsed := time.Since(start)
		if elapsed >= f.Duration {
			sent.Seconds = elapsed.Seconds()
			return sent, nil
		}
		if f.Rate > 0 {
			since := time.Since(origin)
			at := time.Duration(float64(due) / float64(f.Rate) * float64(time.Second))
			if at > since {
				time.Sleep(at - since)
				continue
			}
			if since-at > udpLongestRun {
				origin, due = time.Now().Add(-udpLongestRun), 0
			}
		}
		n, err := batch.WriteBatch(messages, 0)
		// A full queue of the device is the loss that is measured, told to the sender.
		if err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return sent, err
		}
		if err != nil {
			n = max(n, 1)
		}
		sent.Packets += int64(n)
		due += int64(n)
	}
}

// udpSink receives datagrams and counts them.
type udpSink struct {
	conn     *net.UDPConn
	dropped  int64 // by full sockets of this host, before the start
	received chan udpReceived
	arrival  chan struct{} // has an element when something came
}

// udpReceived is what arrived.
type udpReceived struct {
	Packets     int64
	Seconds     float64 // from the first to the last
	SocketDrops int64   // delivered by the tunnel but lost here, as the receiver's socket was full
}

// listen receives what comes to an address, and returns it with the port filled in.
func (s *udpSink) listen(addr netip.AddrPort) (netip.AddrPort, error) {
	if s.conn != nil {
		return addr, errors.New("listening already")
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return addr, err
	}
	if err := conn.SetReadBuffer(udpReadBuffer); err != nil {
		conn.Close()
		return addr, err
	}
	if s.dropped, err = socketDrops(); err != nil {
		conn.Close()
		return addr, err
	}
	s.conn, s.received, s.arrival = conn, make(chan udpReceived, 1), make(chan struct{}, 1)
	go s.receive(conn, s.received, s.arrival)
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}

// receive counts until the socket is closed.
func (s *udpSink) receive(conn *net.UDPConn, result chan<- udpReceived, arrival chan<- struct{}) {
	batch := ipv4.NewPacketConn(conn)
	messages := make([]ipv4.Message, udpBatch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, maxUDPDatagram)}
	}
	var got udpReceived
	var first, last time.Time
	for {
		n, err := batch.ReadBatch(messages, 0)
		if err != nil {
			got.Seconds = last.Sub(first).Seconds()
			result <- got
			return
		}
		last = time.Now()
		if got.Packets == 0 {
			first = last
		}
		got.Packets += int64(n)
		select {
		case arrival <- struct{}{}:
		default:
		}
	}
}

// result waits until nothing has come for a while, ends the sink and returns the counts.
func (s *udpSink) result(none) (udpReceived, error) {
	if s.conn == nil {
		return udpReceived{}, errors.New("not listening")
	}
	for quiet := time.NewTimer(udpQuiet); ; {
		select {
		case <-s.arrival:
			quiet.Reset(udpQuiet)
			continue
		case <-quiet.C:
		}
		break
	}
	s.close()
	got := <-s.received
	drops, err := socketDrops()
	got.SocketDrops = drops - s.dropped
	return got, err
}

func (s *udpSink) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// socketDrops returns how many datagrams this namespace's sockets had no room for.
func socketDrops() (int64, error) {
	text, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return 0, err
	}
	return parseSocketDrops(string(text))
}

// parseSocketDrops reads RcvbufErrors from two lines that begin with "Udp:", one of names and one of values.
func parseSocketDrops(snmp string) (int64, error) {
	var names []string
	for line := range strings.Lines(snmp) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != "Udp:":
		case names == nil:
			names = fields
		default:
			for i, name := range names {
				if name == "RcvbufErrors" && i < len(fields) {
					return strconv.ParseInt(fields[i], 10, 64)
				}
			}
		}
	}
	return 0, errors.New("/proc/net/snmp: no RcvbufErrors")
}
