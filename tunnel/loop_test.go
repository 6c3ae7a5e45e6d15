package tunnel

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"

	"culvert/transport"
	"culvert/transport/transporttest"
	"culvert/tunnel/device"
)

// firstFragment6 is the first IPv6 fragment of a UDP datagram.
func firstFragment6(from, to netip.AddrPort, payload []byte) []byte {
	p := make([]byte, 40+8+8+len(payload))
	p[0], p[6], p[7] = 0x60, protocolFragment, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	copy(p[8:], from.Addr().AsSlice())
	copy(p[24:], to.Addr().AsSlice())
	p[40] = protocolUDP
	p[43] = 1 // more fragments follow
	udp := p[48:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	copy(udp[8:], payload)
	return p
}

func TestRoutingLoopOfFragmentsIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := transporttest.New(1)
		a, b := newPair(t, network)
		endpoint := netip.AddrPortFrom(b.host.Addrs()[1], testPort)
		a.configure(Change{Peers: []PeerChange{{PublicKey: b.public,
			Endpoint:   &transport.Endpoint{Remote: endpoint},
			AllowedIPs: []AllowedIPChange{{Prefix: netip.PrefixFrom(endpoint.Addr(), 128)}}}}})
		var sealed []byte
		network.Tap(func(p *transporttest.Packet) {
			if p.From.Port() == testPort && p.To == endpoint {
				sealed = append(sealed[:0], p.Data...)
			}
		})
		a.send(b, "whose datagram comes back from the route")
		b.expect("whose datagram comes back from the route")
		from := netip.AddrPortFrom(a.host.Addrs()[1], testPort)
		sent := a.Status().Peers[0].SentPackets
		a.dev.Queue(0).Push(firstFragment6(from, endpoint, sealed), device.Offload{})
		synctest.Wait()
		if a.dropped(DropOutRoutingLoop) != 1 || a.Status().Peers[0].SentPackets != sent {
			t.Errorf("drops: %v", a.Status().Drops)
		}
		// Another host's fragment that looks alike but is not ours goes through.
		binary.LittleEndian.PutUint32(sealed[4:], ^binary.LittleEndian.Uint32(sealed[4:]))
		a.dev.Queue(0).Push(firstFragment6(from, endpoint, sealed), device.Offload{})
		synctest.Wait()
		if a.dropped(DropOutRoutingLoop) != 1 || a.Status().Peers[0].SentPackets != sent+1 {
			t.Errorf("drops: %v", a.Status().Drops)
		}
	})
}
