package transport

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// An interrupted receiver ends, also one that waits, and what arrives meanwhile is received afterwards.
func TestInterrupt(t *testing.T) {
	s := openUDP(t, Options{})
	r := s.Receivers()[0]
	type result struct {
		n   int
		err error
	}
	ended := make(chan result, 1)
	receive := func() {
		n, err := r.Receive([]Train{{Buf: make([]byte, ReceiveBufferSize)}})
		ended <- result{n, err}
	}
	go receive()
	time.Sleep(10 * time.Millisecond) // so that it waits, mostly; if not, it ends all the same
	if err := s.Interrupt(true); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; !errors.Is(got.err, os.ErrDeadlineExceeded) {
		t.Errorf("the receiver that waited: %+v", got)
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("waits")); err != nil {
		t.Fatal(err)
	}
	receive()
	if got := <-ended; !errors.Is(got.err, os.ErrDeadlineExceeded) {
		t.Errorf("a receiver while interrupted: %+v", got)
	}
	if err := s.Interrupt(false); err != nil {
		t.Fatal(err)
	}
	receive()
	if got := <-ended; got.err != nil || got.n != 1 {
		t.Errorf("what waited was not received: %+v", got)
	}
}
