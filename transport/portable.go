package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
)

// Portable is UDP with what every system has: a datagram per call, no offloads, and addresses chosen by the system's routes alone. It is [UDP]
// where culvert has nothing better.
type Portable struct{}

var _ Network = Portable{}

// errNoMark refuses what only Linux has.
var errNoMark = fmt.Errorf("this system's sockets have no marks (fwmark): %w", errors.ErrUnsupported)

// portable is a port with a connection of each family that the host has.
type portable struct {
	families []*portableFamily
	port     uint16
	failed   atomic.Uint64
}

type portableFamily struct {
	socket *portable
	conn   *net.UDPConn
	v6     bool

	sentDatagrams, sentBytes         atomic.Uint64
	receivedDatagrams, receivedBytes atomic.Uint64
}

// Open implements [Network]. It knows one worker only.
func (Portable) Open(o Options) (Socket, error) {
	if o.Mark != 0 {
		return nil, errNoMark
	}
	const tries = 64 // to find a port that is free on both families
	var err error
	for range tries {
		var s *portable
		if s, err = openPortable(o.Port); err == nil {
			return s, nil
		}
		if o.Port != 0 {
			break
		}
	}
	return nil, err
}

func openPortable(port uint16) (*portable, error) {
	s := &portable{port: port}
	var failed error
	for _, network := range []string{"udp4", "udp6"} {
		conn, err := net.ListenUDP(network, &net.UDPAddr{Port: int(s.port)})
		if err != nil {
			if !isAddressFamily(err) { // in use, say
				s.Close()
				return nil, err
			}
			failed = err
			continue
		}
		s.port = uint16(conn.LocalAddr().(*net.UDPAddr).Port)
		s.families = append(s.families, &portableFamily{socket: s, conn: conn, v6: network == "udp6"})
	}
	if len(s.families) == 0 {
		return nil, failed
	}
	return s, nil
}

// isAddressFamily tells whether the host lacks a family, or has no address of it.
func isAddressFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

func (s *portable) Port() uint16 { return s.port }

func (s *portable) SetMark(mark uint32) error {
	if mark != 0 {
		return errNoMark
	}
	return nil
}

// SetDontFragment cannot keep datagrams whole: what is too large is fragmented on the way.
func (s *portable) SetDontFragment(on bool) error {
	if on {
		return fmt.Errorf("fragments cannot be forbidden here: %w", errors.ErrUnsupported)
	}
	return nil
}

func (s *portable) Receivers() (all []Receiver) {
	for _, f := range s.families {
		all = append(all, f)
	}
	return all
}

func (s *portable) NewSender() Sender             { return s }
func (s *portable) NewWorkerSender(int) Sender    { return s }
func (s *portable) SourceValid(Endpoint) bool     { return true }
func (s *portable) RouteChanges() <-chan struct{} { return nil }

func (s *portable) Counters() (c Counters) {
	for _, f := range s.families {
		c.SentDatagrams += f.sentDatagrams.Load()
		c.SentCalls = c.SentDatagrams
		c.SentBytes += f.sentBytes.Load()
		c.ReceivedDatagrams += f.receivedDatagrams.Load()
		c.ReceivedCalls = c.ReceivedDatagrams
		c.ReceivedBytes += f.receivedBytes.Load()
	}
	c.SendErrors = s.failed.Load()
	return c
}

func (s *portable) Close() error {
	var errs []error
	for _, f := range s.families {
		if err := f.conn.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Send implements [Sender]; a connection may be used by several at once.
func (s *portable) Send(trains []Train) (failed int) {
	for i := range trains {
		t := &trains[i]
		if t.Err = t.Check(); t.Err == nil {
			t.Err = s.sendTrain(t)
		}
		if t.Err != nil {
			failed++
			s.failed.Add(1)
		}
	}
	return failed
}

// errNoSuchFamily is of a remote address whose family the host lacks.
var errNoSuchFamily = errors.New("transport: this host has no sockets of that address family")

func (s *portable) sendTrain(t *Train) error {
	for _, f := range s.families {
		if f.v6 != t.Endpoint.Remote.Addr().Is6() {
			continue
		}
		var failed error
		for datagram, next := t.Next(0); datagram != nil; datagram, next = t.Next(next) {
			if _, err := f.conn.WriteToUDPAddrPort(datagram, t.Endpoint.Remote); err != nil {
				failed = err // the rest of a train may still go
				continue
			}
			f.sentDatagrams.Add(1)
			f.sentBytes.Add(uint64(len(datagram)))
		}
		return failed
	}
	return errNoSuchFamily
}

func (f *portableFamily) Worker() int { return 0 }

// failuresInRow is how many failures without a datagram in between end a receiver: ICMP errors of earlier datagrams pass.
const failuresInRow = 100

// Receive implements [Receiver], a datagram at a time.
func (f *portableFamily) Receive(trains []Train) (int, error) {
	if len(trains) == 0 {
		return 0, nil
	}
	t := &trains[0]
	for failures := 0; ; {
		n, from, err := f.conn.ReadFromUDPAddrPort(t.Buf)
		if errors.Is(err, net.ErrClosed) {
			return 0, net.ErrClosed
		}
		if err != nil {
			if failures++; failures >= failuresInRow {
				return 0, err
			}
			continue
		}
		f.receivedDatagrams.Add(1)
		f.receivedBytes.Add(uint64(n))
		t.N, t.Segment, t.TOS, t.Err = n, 0, 0, nil
		t.Endpoint = Endpoint{Remote: netip.AddrPortFrom(numbered(from.Addr().Unmap()), from.Port())}
		return 1, nil
	}
}

// numbered makes a zone the number of its interface, as an [Endpoint] has it.
func numbered(a netip.Addr) netip.Addr {
	if a.Zone() == "" {
		return a
	}
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return a // a number already
	}
	return a.WithZone(fmt.Sprint(i.Index))
}
