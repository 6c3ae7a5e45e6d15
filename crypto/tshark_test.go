package crypto_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"culvert/crypto/noise"
	"culvert/internal/lab"
)

// datagram is one line of a capture.
type datagram struct {
	from, to netip.AddrPort
	payload  []byte
}

// ipv4 builds a packet of a protocol, with its header's checksum.
func ipv4(from, to netip.Addr, protocol byte, payload []byte) []byte {
	p := make([]byte, 20, 20+len(payload))
	p[0], p[8], p[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(payload)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	binary.BigEndian.PutUint16(p[10:], checksum(p))
	return append(p, payload...)
}

// ipv6 builds a packet of a protocol.
func ipv6(from, to netip.Addr, protocol byte, payload []byte) []byte {
	p := make([]byte, 40, 40+len(payload))
	p[0], p[6], p[7] = 0x60, protocol, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[8:], from.AsSlice())
	copy(p[24:], to.AsSlice())
	return append(p, payload...)
}

// udp builds a datagram without a checksum, which IPv4 allows.
func udp(from, to uint16, payload []byte) []byte {
	p := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(p, from)
	binary.BigEndian.PutUint16(p[2:], to)
	binary.BigEndian.PutUint16(p[4:], uint16(8+len(payload)))
	return append(p, payload...)
}

// echo builds an ICMP echo request.
func echo(id, sequence uint16) []byte {
	p := make([]byte, 8+24)
	p[0] = 8
	binary.BigEndian.PutUint16(p[4:], id)
	binary.BigEndian.PutUint16(p[6:], sequence)
	binary.BigEndian.PutUint16(p[2:], checksum(p))
	return p
}

// checksum is RFC 1071 over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

// pcap writes a capture file of bare IP packets.
func pcap(t *testing.T, path string, datagrams []datagram) {
	t.Helper()
	const linkRaw = 101
	var file []byte
	for _, field := range []uint32{0xa1b2c3d4, 2 | 4<<16, 0, 0, 65535, linkRaw} {
		file = binary.LittleEndian.AppendUint32(file, field)
	}
	for i, d := range datagrams {
		packet := ipv4(d.from.Addr(), d.to.Addr(), 17, udp(d.from.Port(), d.to.Port(), d.payload))
		for _, field := range []uint32{1_770_000_000 + uint32(i), 0, uint32(len(packet)), uint32(len(packet))} {
			file = binary.LittleEndian.AppendUint32(file, field)
		}
		file = append(file, packet...)
	}
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
}

// tshark dissects datagrams with the keys of a key log and returns a map of fields for each. A field that occurs more than once,
// outside and inside the tunnel, has its values separated by commas.
func tshark(t *testing.T, program string, datagrams []datagram, keys []string, fields ...string) []map[string]string {
	t.Helper()
	dir := t.TempDir()
	capture, log := filepath.Join(dir, "wire.pcap"), filepath.Join(dir, "keys")
	pcap(t, capture, datagrams)
	if err := os.WriteFile(log, []byte(strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"-n", "-r", capture, "-o", "wg.keylog_file:" + log, "-o", "ip.check_checksum:TRUE",
		"-d", fmt.Sprintf("udp.port==%d,wg", responderAddr.Port()), "-T", "fields", "-E", "separator=|", "-E", "occurrence=a",
	}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "WIRESHARK_CONFIG_DIR="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(datagrams) {
		t.Fatalf("tshark shows %d datagrams of %d:\n%s", len(lines), len(datagrams), out)
	}
	dissected := make([]map[string]string, len(lines))
	for i, line := range lines {
		values := strings.Split(line, "|")
		if len(values) != len(fields) {
			t.Fatalf("tshark: %q", line)
		}
		dissected[i] = make(map[string]string)
		for k, f := range fields {
			dissected[i][f] = values[k]
		}
	}
	return dissected
}

// TestTshark has tshark decrypt a recorded exchange: an initiation turned away with a cookie, one with mac2, its response, packets
// of both directions and a keepalive. tshark's dissector is an implementation of the wire that shares nothing with this one.
func TestTshark(t *testing.T) {
	program := lab.NeedProgram(t, "tshark")
	initiator, responder := newEnds(t)

	record := func() []datagram {
		out := func(payload []byte) datagram { return datagram{initiatorAddr, responderAddr, bytes.Clone(payload)} }
		in := func(payload []byte) datagram { return datagram{responderAddr, initiatorAddr, bytes.Clone(payload)} }

		first, _ := initiator.initiate(t, 0)
		reply, err := responder.checker.Reply(nil, first, initiatorAddr, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := initiator.stamper.ConsumeReply(reply, 0); err != nil {
			t.Fatal(err)
		}
		second, i := initiator.initiate(t, 0)
		response, theirs := responder.answer(second, 0)
		if theirs == nil {
			t.Fatal("no answer")
		}
		ours := initiator.finish(i, response, 0)
		if ours == nil {
			t.Fatal("no session")
		}

		ping := ipv4(netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2"), 1, echo(0x1234, 7))
		six := ipv6(netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::1"), 17, udp(4000, 5000, []byte("inside")))
		pad := func(p []byte) []byte { return append(p, make([]byte, -len(p)&15)...) }
		return []datagram{
			out(first), in(reply), out(second), in(response),
			out(seal(t, ours, pad(ping))), in(seal(t, theirs, pad(six))), out(seal(t, ours, nil)),
		}
	}
	datagrams := record()

	fields := []string{
		"wg.type", "wg.handshake_ok", "wg.receiver_pubkey", "wg.static", "wg.timestamp.tai64_label", "wg.sender", "wg.receiver", "wg.counter",
		"wg.decryption_error", "wg.keepalive", "wg.mac2", "ip.src", "ip.dst", "icmp.type", "icmp.ident", "icmp.seq", "icmp.checksum.status",
		"ipv6.src", "ipv6.dst", "udp.srcport", "udp.dstport", "_ws.malformed",
	}
	static, peer := "LOCAL_STATIC_PRIVATE_KEY = "+initiatorStatic.Base64(), "REMOTE_STATIC_PUBLIC_KEY = "+responderStatic.Public().Base64()
	ephemeral := "LOCAL_EPHEMERAL_PRIVATE_KEY = " + initiatorEphemeral.Base64()
	keys := []string{static, peer, ephemeral, "PRESHARED_KEY = " + presharedKey.Base64()}
	zeroMAC := strings.Repeat("00", noise.MACSize)

	got := tshark(t, program, datagrams, keys, fields...)
	label := fmt.Sprint(binary.BigEndian.Uint64(timestamp[:8]))
	ours, theirs := fmt.Sprintf("0x%08x", initiatorIndex), fmt.Sprintf("0x%08x", responderIndex)
	for i, want := range []map[string]string{
		{
			"wg.type": "1", "wg.sender": ours, "wg.receiver_pubkey": responderStatic.Public().Base64(),
			"wg.timestamp.tai64_label": label,
			"wg.static":                initiatorStatic.Public().Base64(), "wg.mac2": zeroMAC,
		},
		{"wg.type": "3", "wg.receiver": ours},
		{
			"wg.type": "1", "wg.sender": ours, "wg.receiver_pubkey": responderStatic.Public().Base64(),
			"wg.timestamp.tai64_label": label,
			"wg.static":                initiatorStatic.Public().Base64(),
		},
		{
			"wg.type": "2", "wg.sender": theirs, "wg.receiver": ours, "wg.receiver_pubkey": initiatorStatic.Public().Base64(),
			"wg.handshake_ok": "1", "wg.mac2": zeroMAC,
		},
		{
			"wg.type": "4", "wg.receiver": theirs, "wg.counter": "0", "ip.src": "192.0.2.1,10.7.0.1", "ip.dst": "198.51.100.2,10.7.0.2",
			"icmp.type": "8", "icmp.ident": "4660", "icmp.seq": "7", "icmp.checksum.status": "1",
		},
		{
			"wg.type": "4", "wg.receiver": ours, "wg.counter": "0", "ipv6.src": "fd00::2", "ipv6.dst": "fd00::1",
			"udp.srcport": "51820,4000", "udp.dstport": "40000,5000",
		},
		{"wg.type": "4", "wg.receiver": theirs, "wg.counter": "1", "wg.keepalive": "1"},
	} {
		want["wg.decryption_error"], want["_ws.malformed"] = "", ""
		for f, v := range want {
			if !sameValue(got[i][f], v) {
				t.Errorf("datagram %d: %s is %q, want %q", i, f, got[i][f], v)
			}
		}
	}
	if got[2]["wg.mac2"] == zeroMAC {
		t.Error("the second initiation has no mac2")
	}

	// The same tests must be able to fail: tshark with other keys, and a message with a bit of mac1 flipped.
	t.Run("without the PSK", func(t *testing.T) {
		got := tshark(t, program, datagrams, []string{static, peer, ephemeral}, fields...)
		if sameValue(got[3]["wg.handshake_ok"], "1") || got[4]["icmp.type"] != "" {
			t.Errorf("decrypted: %v", got[4])
		}
	})
	t.Run("wrong mac1", func(t *testing.T) {
		bad := slices.Clone(datagrams)
		bad[0].payload = bytes.Clone(bad[0].payload)
		bad[0].payload[noise.InitiationSize-2*noise.MACSize] ^= 1
		got := tshark(t, program, bad, keys, fields...)
		if got[0]["wg.receiver_pubkey"] == responderStatic.Public().Base64() {
			t.Error("tshark takes a wrong mac1 for right")
		}
	})
}

// sameValue compares a field with what is expected, in either way tshark's versions write a true boolean.
func sameValue(got, want string) bool {
	return got == want || want == "1" && got == "True"
}
