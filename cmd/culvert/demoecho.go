package main

import (
	"encoding/binary"
	"net"
	"os"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

const echoSize = 56 // bytes of a message, as ping sends by default

func echoMessage(seq uint16) (data [echoSize]byte) {
	binary.BigEndian.PutUint16(data[:], seq)
	return data
}

// icmpEcho sends pings on a raw ICMP socket.
type icmpEcho struct{ *net.IPConn }

func (c icmpEcho) send(seq uint16) error {
	data := echoMessage(seq)
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: int(seq), Data: data[:]}}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = c.Write(b)
	return err
}

func (c icmpEcho) receive() (uint16, error) {
	for in := make([]byte, 1500); ; {
		n, _, err := c.ReadFrom(in) // without the IP header, which Read leaves in
		if err != nil {
			return 0, err
		}
		m, err := icmp.ParseMessage(1, in[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		e, ok := m.Body.(*icmp.Echo)
		if ok && e.ID == os.Getpid()&0xffff && len(e.Data) == echoSize && [echoSize]byte(e.Data) == echoMessage(uint16(e.Seq)) {
			return uint16(e.Seq), nil
		}
	}
}

// udpEcho does the same over UDP, for network stacks in memory: the netstack package's ping socket forgets a reply that
// comes before it is waited for.
type udpEcho struct{ net.Conn }

func (c udpEcho) send(seq uint16) error {
	data := echoMessage(seq)
	_, err := c.Write(data[:])
	return err
}

func (c udpEcho) receive() (uint16, error) {
	for in := make([]byte, 1500); ; {
		n, err := c.Read(in)
		if err != nil {
			return 0, err
		}
		if n == echoSize {
			return binary.BigEndian.Uint16(in), nil
		}
	}
}

// echoUDP sends back what comes until c is closed.
func echoUDP(c net.PacketConn) {
	for in := make([]byte, 1500); ; {
		n, from, err := c.ReadFrom(in)
		if err != nil {
			return
		}
		if _, err := c.WriteTo(in[:n], from); err != nil {
			return
		}
	}
}
