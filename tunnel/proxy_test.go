package tunnel

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport/transporttest"
	"culvert/tunnel/ethernet"
)

// arpFrame makes an ARP packet (RFC 826).
func arpFrame(to, from ethernet.Address, operation uint16, sender netip.Addr, target ethernet.Address, asked netip.Addr) []byte {
	f := frame(to, from, "\x00\x01\x08\x00\x06\x04")
	binary.BigEndian.PutUint16(f[12:], ethernet.TypeARP)
	f = binary.BigEndian.AppendUint16(f, operation)
	address := func(a ethernet.Address) { f = append(f, make([]byte, ethernet.AddressSize)...); a.Put(f[len(f)-6:]) }
	address(from)
	f = append(f, sender.AsSlice()...)
	address(target)
	f = append(f, asked.AsSlice()...)
	return append(f, make([]byte, max(0, 60-len(f)))...)
}

// With proxy a question for a station that is known behind a peer is answered there and sent to nobody; all others are sent on,
// and so is everything without.
func TestProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTapMesh(t, transporttest.New(1), 3)
		a, b, c := all[0], all[1], all[2]
		here, there := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		question := arpFrame(ethernet.Broadcast, station(1), 1, here, 0, there)
		announce := func(from *node, mac ethernet.Address) {
			from.sendFrame(arpFrame(ethernet.Broadcast, mac, 1, there, 0, there))
			tick()
			for _, n := range all {
				n.frames()
			}
		}
		sentOn := func(what string, f []byte) {
			t.Helper()
			tick()
			before := a.Status().Switch.Answers
			a.sendFrame(f)
			a.expectFrames()
			b.expectFrames(f)
			if f[0]&1 != 0 {
				c.expectFrames(f)
			} else {
				c.expectFrames()
			}
			if a.Status().Switch.Answers != before {
				t.Errorf("%s: an answer was counted", what)
			}
		}
		answered := func(what string, mac ethernet.Address) {
			t.Helper()
			tick()
			before := a.Status().Switch.Answers
			a.sendFrame(question)
			if got, want := a.frames(), arpFrame(station(1), mac, 2, there, station(1), here); len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Errorf("%s: the answers %x, want %x", what, got, want)
			}
			b.expectFrames()
			c.expectFrames()
			if a.Status().Switch.Answers != before+1 {
				t.Errorf("%s: no answer was counted", what)
			}
		}

		announce(b, station(2))
		sentOn("without proxy", question)
		a.configure(Change{Switch: &SwitchChange{Proxy: true}})
		sentOn("not heard of yet", question)
		announce(b, station(2))
		answered("known", station(2))
		sentOn("a question to the station alone", arpFrame(station(2), station(1), 1, here, station(2), there))
		sentOn("a probe for duplicates", arpFrame(ethernet.Broadcast, station(1), 1, netip.IPv4Unspecified(), 0, there))
		sentOn("an announcement", arpFrame(ethernet.Broadcast, station(1), 1, here, 0, here))
		sentOn("for another", arpFrame(ethernet.Broadcast, station(1), 1, here, 0, there.Next()))
		sentOn("in a VLAN", tagged(5, question))
		announce(c, station(3))
		sentOn("claimed by two stations", question)
		time.Sleep(DefaultAgeing + 2*time.Second)
		for _, n := range all {
			n.frames()
		}
		announce(c, station(3))
		answered("claimed by one since", station(3))
		c.sendFrame(frame(station(1), station(4), "c is heard from"))
		b.sendFrame(frame(ethernet.Broadcast, station(3), "moved without a word of its address"))
		tick()
		for _, n := range all {
			n.frames()
		}
		sentOn("moved", question)
		announce(b, station(3))
		answered("announced where it moved to", station(3))
		time.Sleep(DefaultAgeing + 2*time.Second)
		for _, n := range all {
			n.frames()
		}
		sentOn("aged", question)
	})
}
