package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

var pingCount atomic.Uint32

// pingTimeout bounds the wait for an echo reply.
const pingTimeout = 2 * time.Second

// Ping sends an ICMP echo request from the host and waits for the reply.
func (h *Host) Ping(to netip.Addr) error { return h.PingSize(to, 56) }

// PingSize is Ping with that many bytes of payload, at least 8. A reply whose payload differs is an error. The kernel
// fragments what exceeds the path MTU.
func (h *Host) PingSize(to netip.Addr, size int) error {
	network, proto, request, reply := "ip4:icmp", 1, icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if to.Is6() {
		network, proto, request, reply = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var conn *icmp.PacketConn
	err := h.Do(func() (err error) {
		conn, err = icmp.ListenPacket(network, "")
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	data := make([]byte, max(size, 8))
	for i := range data {
		data[i] = byte(i)
	}
	id := pingCount.Add(1)
	binary.BigEndian.PutUint32(data, id)
	msg, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: int(id & 0xffff), Seq: 1, Data: data}}).Marshal(nil)
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(pingTimeout)); err != nil {
		return err
	}
	if _, err := conn.WriteTo(msg, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
		return fmt.Errorf("ping %s from %s: %w", to, h.Name, err)
	}
	for buf := make([]byte, 1<<16); ; {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("ping %s from %s: no reply within %v", to, h.Name, pingTimeout)
		}
		if err != nil {
			return fmt.Errorf("ping %s from %s: %w", to, h.Name, err)
		}
		m, err := icmp.ParseMessage(proto, buf[:n])
		if err != nil || m.Type != reply {
			continue
		}
		// The raw socket sees the replies to other pings, too.
		echo, ok := m.Body.(*icmp.Echo)
		if !ok || len(echo.Data) < 4 || binary.BigEndian.Uint32(echo.Data) != id {
			continue
		}
		if string(echo.Data) != string(data) {
			return fmt.Errorf("ping %s from %s: the reply's payload differs", to, h.Name)
		}
		return nil
	}
}
