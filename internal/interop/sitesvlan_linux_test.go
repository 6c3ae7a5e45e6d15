package interop

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"culvert/internal/lab"
	"golang.org/x/sys/unix"
)

// experimental is an EtherType that nobody else uses (IEEE 802-2014 table 9-1).
const experimental = 0x88b6

// trunkPort is a packet socket on a station's cable that sees VLAN tags. The kernel takes the outer one off each frame and
// tells of it beside (packet(7), PACKET_AUXDATA).
type trunkPort struct {
	station *station
	fd      int
}

func (st *station) trunk(t *testing.T) *trunkPort {
	t.Helper()
	p := &trunkPort{station: st}
	st.host.Must(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("socket", err)
		}
		t.Cleanup(func() { unix.Close(p.fd) })
		if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		var all [2]byte
		binary.BigEndian.PutUint16(all[:], unix.ETH_P_ALL)
		address := unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(all[:]), Ifindex: i.Index}
		return os.NewSyscallError("bind", unix.Bind(p.fd, &address))
	})
	return p
}

// send sends a broadcast; vlan 0 is untagged.
func (p *trunkPort) send(t *testing.T, vlan uint16, text string) {
	t.Helper()
	mac, err := net.ParseMAC(p.station.mac)
	if err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
	if vlan != 0 {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x81, 0), vlan)
	}
	frame = append(binary.BigEndian.AppendUint16(frame, experimental), text...)
	if _, err := unix.Write(p.fd, append(frame, make([]byte, 60)...)); err != nil {
		t.Fatal(err)
	}
}

// receive waits for the frame with that text and returns its VLAN; none comes where what came before it has not come either.
func (p *trunkPort) receive(t *testing.T, text string, wait time.Duration) (vlan int, ok bool) {
	t.Helper()
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for end := time.Now().Add(wait); time.Now().Before(end); {
		n, oobn, _, from, err := unix.Recvmsg(p.fd, buf, oob, 0)
		if err != nil {
			continue // the timeout
		}
		if a, ok := from.(*unix.SockaddrLinklayer); ok && a.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if n < 14 || binary.BigEndian.Uint16(buf[12:]) != experimental || strings.TrimRight(string(buf[14:n]), "\x00") != text {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			// struct tpacket_auxdata of linux/if_packet.h: status, two lengths, two places, TCI, TPID.
			if m.Header.Type == unix.PACKET_AUXDATA && binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
				return int(binary.NativeEndian.Uint16(m.Data[16:]) & 0xfff), true
			}
		}
		return 0, true
	}
	return 0, false
}

// A hub gives one spoke an untagged VLAN and tagged ones, another spoke one of these untagged. Each sees what is meant for it, under
// the tag that it has there; all else is dropped and counted. The host's kernel needs no VLANs for that: bridges pass tags on.
func TestPeerVLANs(t *testing.T) {
	t.Parallel()
	hub, b, c := newSite(t, "hub"), newSite(t, "b"), newSite(t, "c")
	wires := []lab.Wire{lab.Link(t, hub.host, b.host), lab.Link(t, hub.host, c.host)}
	center, atB, atC := hub.tap("office", etherPort), b.tap("office", etherPort), c.tap("office", etherPort)
	var ports []*trunkPort
	var stations []*station
	for i, s := range []*site{hub, b, c} {
		s.bridge()
		stations = append(stations, s.station("host"+s.host.Name, i+1))
		ports = append(ports, stations[i].trunk(t))
	}
	_, ofB := connect(atB, center, wires[0])
	_, ofC := connect(atC, center, wires[1])
	ofB.extra = "        spoke: true\n        vlan: {pvid: 10, tagged: [20, \"30-31\"]}\n"
	ofC.extra = "        spoke: true\n        vlan: {pvid: 20}\n"
	up(center, atB, atC)
	for _, e := range []*tap{atB, atC} {
		lab.Eventually(t, patience, "the hub is reached", func() bool { return e.status().Switch.Carrier })
	}

	const atHub, ofSpokeB, ofSpokeC, nowhere = 0, 1, 2, -1
	for _, x := range []struct {
		from int
		vlan uint16
		want [3]int // the VLAN it has at each, or nowhere
	}{
		{atHub, 0, [3]int{nowhere, nowhere, nowhere}},
		{atHub, 10, [3]int{nowhere, 0, nowhere}},
		{atHub, 20, [3]int{nowhere, 20, 0}},
		{atHub, 31, [3]int{nowhere, 31, nowhere}},
		{atHub, 32, [3]int{nowhere, nowhere, nowhere}},
		{ofSpokeB, 0, [3]int{10, nowhere, nowhere}},
		{ofSpokeB, 20, [3]int{20, nowhere, 0}},
		{ofSpokeB, 30, [3]int{30, nowhere, nowhere}},
		{ofSpokeB, 40, [3]int{nowhere, nowhere, nowhere}},
		{ofSpokeC, 0, [3]int{20, 20, nowhere}},
		{ofSpokeC, 10, [3]int{nowhere, nowhere, nowhere}},
	} {
		text := fmt.Sprintf("from %d in %d", x.from, x.vlan)
		ports[x.from].send(t, x.vlan, text)
		for at, want := range x.want {
			if at == x.from || want == nowhere {
				continue
			}
			if got, ok := ports[at].receive(t, text, 5*time.Second); !ok || got != want {
				t.Errorf("%s: arrives at %d: %v, in VLAN %d, want %d", text, at, ok, got, want)
			}
		}
		for at, want := range x.want { // by now it would have come
			if want != nowhere {
				continue
			}
			if got, ok := ports[at].receive(t, text, 200*time.Millisecond); ok {
				t.Errorf("%s: arrives at %d in VLAN %d and should not", text, at, got)
			}
		}
	}

	// To b: frames of the hub's in no VLAN and in 32. To c: of the hub's in none, 10, 31 and 32; of b's in 10 and 30; the
	// stations' own neighbour discovery besides.
	drops := center.status().Drops
	if in, out := drops["in: VLAN not the peer's"], drops["out: VLAN not the peer's"]; in < 2 || out < 8 {
		t.Errorf("the hub has dropped %d frames that came in and %d that went out, want at least 2 and 8: %v", in, out, drops)
	}
	// The same station in two VLANs is two entries.
	vlans := map[string]bool{}
	for _, a := range center.status().Switch.Addresses {
		vlans[fmt.Sprintf("%s %d %s", a.MAC, a.VLAN, a.Name)] = true
	}
	for _, want := range []string{
		stations[ofSpokeB].mac + " 10 b", stations[ofSpokeB].mac + " 20 b", stations[ofSpokeC].mac + " 20 c", stations[atHub].mac + " 10 ",
	} {
		if !vlans[want] {
			t.Errorf("the hub does not show the address, VLAN and site %q: %v", want, vlans)
		}
	}
}
