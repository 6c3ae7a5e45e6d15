package transport_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"culvert/transport"
)

// TestPortable sends trains from a port to another, over each family that this host has.
func TestPortable(t *testing.T) {
	open := func() transport.Socket {
		s, err := transport.Portable{}.Open(transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	a, b := open(), open()
	sender := a.NewSender()
	for _, r := range b.Receivers() {
		var from netip.AddrPort
		sent := bytes.Repeat([]byte("0123456789"), 25)
		sent = append(sent, 'x')
		var remote netip.AddrPort
		for _, host := range []string{"127.0.0.1", "::1"} { // one of them is r's
			trains := []transport.Train{{Buf: sent, N: len(sent), Segment: 100,
				Endpoint: transport.Endpoint{Remote: netip.AddrPortFrom(netip.MustParseAddr(host), b.Port())}}}
			isOf := slices.Index(b.Receivers(), r) == map[string]int{"127.0.0.1": 0, "::1": 1}[host]
			if !isOf {
				continue
			}
			if failed := sender.Send(trains); failed > 0 {
				t.Fatalf("%s: %v", host, trains[0].Err)
			}
			remote = trains[0].Endpoint.Remote
		}
		var got []byte
		var sizes []int
		for range 3 {
			in := []transport.Train{{Buf: make([]byte, transport.ReceiveBufferSize)}}
			n, err := r.Receive(in)
			if err != nil || n != 1 {
				t.Fatal(n, err)
			}
			got = append(got, in[0].Buf[:in[0].N]...)
			sizes = append(sizes, in[0].N)
			from = in[0].Endpoint.Remote
		}
		if !bytes.Equal(got, sent) || !slices.Equal(sizes, []int{100, 100, 51}) || from.Port() != a.Port() || from.Addr() != remote.Addr() {
			t.Errorf("%v came from %v: %q", sizes, from, got)
		}
	}
	if c := a.Counters(); c.SentDatagrams != uint64(3*len(b.Receivers())) || c.SentBytes != uint64(251*len(b.Receivers())) || c.SendErrors != 0 {
		t.Errorf("sent %+v", c)
	}

	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for _, r := range b.Receivers() {
		if _, err := r.Receive([]transport.Train{{Buf: make([]byte, transport.ReceiveBufferSize)}}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("receiving from a closed port: %v", err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error("closed again: ", err)
	}
}

// TestPortableRefusals asks for what not every system has.
func TestPortableRefusals(t *testing.T) {
	if _, err := (transport.Portable{}).Open(transport.Options{Mark: 1}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a mark: %v", err)
	}
	s, err := transport.Portable{}.Open(transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetMark(1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a mark later: %v", err)
	}
	if err := s.SetDontFragment(true); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no fragments: %v", err)
	}
	if _, err := (transport.Portable{}).Open(transport.Options{Port: s.Port()}); err == nil {
		t.Error("a port was opened twice")
	}
	train := []transport.Train{{Buf: []byte("x"), N: 1}}
	if failed := s.NewSender().Send(train); failed != 1 || !errors.Is(train[0].Err, transport.ErrNoRemote) || s.Counters().SendErrors != 1 {
		t.Errorf("to nowhere: %d, %v", failed, train[0].Err)
	}
}
