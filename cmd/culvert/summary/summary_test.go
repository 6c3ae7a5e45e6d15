package summary

import (
	"encoding/hex"
	"strings"
	"testing"

	"culvert/tunnel/device"
)

// bytesOf reads hexadecimal, spaces apart.
func bytesOf(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	// Headers of packets from 10.0.0.1 to 10.0.0.2; the blank is the total length, the protocol is in two parts.
	to4 = "0a000001 0a000002"
	to6 = "fd000000000000000000000000000001 fd000000000000000000000000000002"

	tcpSyn  = "d431 0016 00000001 00000000 5002 faf0 0000 0000"
	tcpData = "0016 d431 00000064 000000c8 5018 0100 0000 0000 68656c6c6f"
	udp     = "0035 d431 000d 0000 68656c6c6f"

	macs = "525400000002 525400000001"
)

var packets = []struct {
	name  string
	layer device.Layer
	data  string
	more  int // bytes that were not captured
	want  string
}{
	{"tcp", 0, "45000028 00010000 4006 0000" + to4 + tcpSyn, 0, "IP 10.0.0.1.54321 > 10.0.0.2.22: TCP [S], seq 1, win 64240, length 0"},
	{"tcp data", 0, "4500002d 00010000 4006 0000" + to4 + tcpData, 0, "IP 10.0.0.1.22 > 10.0.0.2.54321: TCP [P.], seq 100, ack 200, win 256, length 5"},
	{"super-packet", 0, "4500ffdc 00010000 4006 0000" + to4 + tcpData, 0xffdc - 45, "IP 10.0.0.1.22 > 10.0.0.2.54321: TCP [P.], seq 100, ack 200, win 256, length 65460"},
	{"tcp cut", 0, "45000028 00010000 4006 0000" + to4 + "d431 0016 00", 15, "IP 10.0.0.1.54321 > 10.0.0.2.22: [|TCP]"},
	{"tcp cut in ports", 0, "45000028 00010000 4006 0000" + to4 + "d431", 18, "IP 10.0.0.1 > 10.0.0.2: [|TCP]"},
	{"tcp offset", 0, "45000028 00010000 4006 0000" + to4 + "d431 0016 00000001 00000000 f002 faf0 0000 0000", 0, "IP 10.0.0.1.54321 > 10.0.0.2.22: TCP [S], seq 1, win 64240, wrong header length 60"},
	{"tcp6", 0, "60000000 0014 06 40" + to6 + tcpSyn, 0, "IP6 fd00::1.54321 > fd00::2.22: TCP [S], seq 1, win 64240, length 0"},
	{"options of ip", 0, "4600002c 00010000 4006 0000" + to4 + "01010101" + tcpSyn, 0, "IP 10.0.0.1.54321 > 10.0.0.2.22: TCP [S], seq 1, win 64240, length 0"},
	{"udp", 0, "45000021 00010000 4011 0000" + to4 + udp, 0, "IP 10.0.0.1.53 > 10.0.0.2.54321: UDP, length 5"},
	{"udp6", 0, "60000000 000d 11 40" + to6 + udp, 0, "IP6 fd00::1.53 > fd00::2.54321: UDP, length 5"},
	{"udp behind options", 0, "60000000 0015 3c 40" + to6 + "1100010400000000" + udp, 0, "IP6 fd00::1.53 > fd00::2.54321: UDP, length 5"},
	{"first fragment", 0, "45000021 00072000 4011 0000" + to4 + udp, 0, "IP 10.0.0.1.53 > 10.0.0.2.54321: UDP, length 5, fragment 7, offset 0+"},
	{"later fragment", 0, "45000021 000700b9 4011 0000" + to4 + udp, 0, "IP 10.0.0.1 > 10.0.0.2: UDP fragment 7, offset 1480, length 13"},
	{"later fragment 6", 0, "60000000 0015 2c 40" + to6 + "110005a9 00000007" + udp, 0, "IP6 fd00::1 > fd00::2: UDP fragment 7, offset 1448, length 13+"},
	{"echo", 0, "45000054 00010000 4001 0000" + to4 + "0800 0000 1234 0003", 56, "IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 4660, seq 3, length 64"},
	{"echo6", 0, "60000000 0040 3a 40" + to6 + "8100 0000 1234 0003", 56, "IP6 fd00::1 > fd00::2: ICMPv6 echo reply, id 4660, seq 3, length 64"},
	{"fragmentation needed", 0, "45000038 00010000 4001 0000" + to4 + "0304 0000 0000 0578", 28, "IP 10.0.0.1 > 10.0.0.2: ICMP destination unreachable, code 4, mtu 1400, length 36"},
	{"port unreachable", 0, "45000038 00010000 4001 0000" + to4 + "0303 0000 0000 0000", 28, "IP 10.0.0.1 > 10.0.0.2: ICMP destination unreachable, code 3, length 36"},
	{"too big", 0, "60000000 0030 3a 40" + to6 + "0200 0000 00000500", 40, "IP6 fd00::1 > fd00::2: ICMPv6 packet too big, mtu 1280, length 48"},
	{"neighbour", 0, "60000000 0018 3a ff" + to6 + "8700 0000 00000000 fd000000000000000000000000000002", 0, "IP6 fd00::1 > fd00::2: ICMPv6 neighbor solicitation, target fd00::2, length 24"},
	{"neighbour cut", 0, "60000000 0018 3a ff" + to6 + "8700 0000 00000000 fd00", 14, "IP6 fd00::1 > fd00::2: ICMPv6 neighbor solicitation, [|target]"},
	{"icmp type", 0, "4500001c 00010000 4001 0000" + to4 + "2a01 0000 00000000", 0, "IP 10.0.0.1 > 10.0.0.2: ICMP type 42, code 1, length 8"},
	{"gre", 0, "45000018 00010000 402f 0000" + to4 + "00000800", 0, "IP 10.0.0.1 > 10.0.0.2: GRE, length 4"},
	{"unknown protocol", 0, "45000014 00010000 40fd 0000" + to4, 0, "IP 10.0.0.1 > 10.0.0.2: protocol 253, length 0"},
	{"length of ip", 0, "450005dc 00010000 4006 0000" + to4 + tcpSyn, 0, "IP 10.0.0.1 > 10.0.0.2: wrong length, header 20, packet 1500 of 40"},
	{"header of ip", 0, "44000028 00010000 4006 0000" + to4 + tcpSyn, 0, "IP 10.0.0.1 > 10.0.0.2: wrong length, header 16, packet 40 of 40"},
	{"length of ip6", 0, "60000000 0015 06 40" + to6 + tcpSyn, 0, "IP6 fd00::1 > fd00::2: wrong length, payload 21 of 20"},
	{"extension cut", 0, "60000000 0030 00 40" + to6 + "0605", 46, "IP6 fd00::1 > fd00::2: [|extension header 0]"},
	{"version", 0, "90", 9, "IP version 9, length 10"},
	{"nothing", 0, "", 0, "[|IP] length 0"},
	{"ip cut", 0, "4500", 38, "[|IP] length 40"},

	{"frame", 1, macs + "0800 45000021 00010000 4011 0000" + to4 + udp, 0, "52:54:00:00:00:01 > 52:54:00:00:00:02, IP 10.0.0.1.53 > 10.0.0.2.54321: UDP, length 5"},
	{"vlan", 1, macs + "8100 0007 86dd 60000000 000d 11 40" + to6 + udp, 0, "52:54:00:00:00:01 > 52:54:00:00:00:02, vlan 7, IP6 fd00::1.53 > fd00::2.54321: UDP, length 5"},
	{"two vlans", 1, macs + "88a8 e064 8100 0007 88cc 0207", 10, "52:54:00:00:00:01 > 52:54:00:00:00:02, vlan 100, vlan 7, LLDP, length 12"},
	{"vlan cut", 1, macs + "8100 0007", 50, "52:54:00:00:00:01 > 52:54:00:00:00:02, [|VLAN]"},
	{"arp", 1, "ffffffffffff 525400000001 0806 0001 0800 06 04 0001 525400000001 0a000001 000000000000 0a000002", 18, "52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff, ARP, request who-has 10.0.0.2 tell 10.0.0.1"},
	{"arp reply", 1, macs + "0806 0001 0800 06 04 0002 525400000001 0a000001 525400000002 0a000002", 0, "52:54:00:00:00:01 > 52:54:00:00:00:02, ARP, reply 10.0.0.1 is-at 52:54:00:00:00:01"},
	{"gratuitous arp", 1, macs + "0806 0001 0800 06 04 0001 525400000001 0a000001 000000000000 0a000001", 0, "52:54:00:00:00:01 > 52:54:00:00:00:02, ARP, announcement 10.0.0.1 is-at 52:54:00:00:00:01"},
	{"arp cut", 1, macs + "0806 0001 0800 06 04 0001 5254", 18, "52:54:00:00:00:01 > 52:54:00:00:00:02, [|ARP]"},
	{"arp of another", 1, macs + "0806 0006 0800 08 04 0001", 20, "52:54:00:00:00:01 > 52:54:00:00:00:02, ARP of hardware 6 and protocol 0x0800, length 28"},
	{"spanning tree", 1, "0180c2000000 525400000001 0026 424203", 35, "52:54:00:00:00:01 > 01:80:c2:00:00:00, STP, length 38"},
	{"802.3", 1, macs + "0100 f0f003", 253, "52:54:00:00:00:01 > 52:54:00:00:00:02, 802.3, length 256"},
	{"type", 1, macs + "1234 00", 45, "52:54:00:00:00:01 > 52:54:00:00:00:02, type 0x1234, length 46"},
	{"ip padded", 1, macs + "0800 45000014 00010000 40fd 0000" + to4 + "000000000000", 0, "52:54:00:00:00:01 > 52:54:00:00:00:02, IP 10.0.0.1 > 10.0.0.2: protocol 253, length 0"},
	{"frame cut", 1, "525400", 57, "[|Ethernet] length 60"},
}

func TestAppend(t *testing.T) {
	for _, p := range packets {
		t.Run(p.name, func(t *testing.T) {
			data := bytesOf(t, p.data)
			if got := string(Append([]byte("> "), p.layer, data, len(data)+p.more)); got != "> "+p.want {
				t.Errorf("got  %s\nwant > %s", got, p.want)
			}
		})
	}
}

// FuzzAppend gives it anything: it neither panics nor writes what does not belong on a terminal, nor much.
func FuzzAppend(f *testing.F) {
	for _, p := range packets {
		data := bytesOf(f, p.data)
		f.Add(data, uint16(len(data)+p.more), p.layer == device.LayerEthernet)
	}
	f.Fuzz(func(t *testing.T, data []byte, length uint16, isFrame bool) {
		data = data[:min(len(data), int(length))]
		layer := device.LayerIP
		if isFrame {
			layer = device.LayerEthernet
		}
		line := Append(nil, layer, data, int(length))
		if len(line) == 0 || len(line) > 400 {
			t.Errorf("%d bytes: %s", len(line), line)
		}
		for _, c := range line {
			if c < ' ' || c > '~' {
				t.Fatalf("byte %#x in %q", c, line)
			}
		}
		if strings.Contains(string(line), "length -") {
			t.Errorf("a negative length: %s", line)
		}
		// With nothing more than before captured, the line is the same.
		if again := Append(nil, layer, append([]byte(nil), data...), int(length)); string(again) != string(line) {
			t.Errorf("%s, and then %s", line, again)
		}
	})
}
