package capture

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"culvert/crypto"
	"culvert/internal/lab"
	"culvert/tunnel/device"
)

var (
	epoch  = time.Unix(1_700_000_000, 123_456_789)
	branch = crypto.PublicKey{1, 2, 3}
	other  = crypto.PublicKey{0xff, 0xee}
)

func nameOf(k crypto.PublicKey) string {
	if k == branch {
		return "branch"
	}
	return ""
}

// udp4 is a UDP packet of IPv4 with all its checksums.
func udp4(payload string) []byte {
	b := []byte{
		0x45, 0, 0, byte(28 + len(payload)), 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 20, 0, 1, 10, 20, 0, 2,
		0x30, 0x39, 0x00, 0x07, 0, byte(8 + len(payload)), 0, 0,
	}
	put := func(at int, v uint16) { b[at], b[at+1] = byte(v>>8), byte(v) }
	put(10, ^sum16(b[:20]))
	b = append(b, payload...)
	put(26, ^sum16(b[12:20], []byte{0, 17, 0, byte(8 + len(payload))}, b[20:]))
	return b
}

// sum16 is the ones' complement sum (RFC 1071) of parts, each but the last of even length.
func sum16(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for i, v := range p {
			sum += uint32(v) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func frameOf(packet []byte) []byte {
	return append([]byte("\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01\x08\x00"), packet...)
}

// A capture of one packet, byte by byte as the format's specification has it.
func TestWriterBytes(t *testing.T) {
	var got bytes.Buffer
	w, err := NewWriter(&got, Interface{Name: "wg0", Program: "prog", Snap: 96, Epoch: time.Unix(0, 0x1_0000_0005), Peer: nameOf}, time.Unix(0, 0x2_0000_0001))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Packet(Record{Meta: Meta{At: 2, Peer: branch, Out: true, Partial: true, Super: true}, Length: 1000, Data: []byte{0x45, 1, 2, 3, 4}, Dropped: 9}); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(time.Unix(0, 0x3_0000_0002), Statistics{Delivered: 1, Dropped: 9}); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		// Section Header Block
		"0a0d0d0a", "28000000", "4d3c2b1a", "0100", "0000", "ffffffffffffffff", "0400", "0400", "70726f67", "00000000", "28000000",
		// Interface Description Block: raw, snap 96, if_name wg0, if_tsresol 9
		"01000000", "28000000", "6500", "0000", "60000000", "0200", "0300", "77673000", "0900", "0100", "09000000", "00000000", "28000000",
		// Enhanced Packet Block
		"06000000", "50000000", "00000000", "01000000", "07000000", "05000000", "e8030000", "4501020304000000",
		"0100", "0900", "746f206272616e6368000000", // "to branch"
		"0200", "0400", "020a0000", // outbound, checksum not ready, to be segmented
		"0400", "0800", "0900000000000000", "00000000", "50000000",
		// Interface Statistics Block
		"05000000", "58000000", "00000000", "03000000", "02000000",
		"0200", "0800", "02000000", "01000000", "0300", "0800", "03000000", "02000000",
		"0400", "0800", "0a00000000000000", "0500", "0800", "0900000000000000", "0800", "0800", "0100000000000000",
		"00000000", "58000000",
	}, "")
	if hex.EncodeToString(got.Bytes()) != want {
		t.Errorf("wrote\n%x\nwant\n%s", got.Bytes(), want)
	}
}

// example is a capture of tun or tap with packets of all sorts, and what of them is to be read.
func example(t testing.TB, layer device.Layer) (capture []byte, want []Packet) {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, Interface{
		Name: "wg0", Description: "site, tunnel wg0", Program: "culvert test", Layer: layer, Snap: MaxSnap, Epoch: epoch, Peer: nameOf,
	}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	in := func(packet []byte) []byte {
		if layer == device.LayerEthernet {
			return frameOf(packet)
		}
		return packet
	}
	whole := in(udp4("whole"))
	elided := in(udp4("elided"))
	elided[len(elided)-len("elided")-1] ^= 0x55
	cut := in(udp4("this one is cut off"))
	for _, rec := range []Record{
		{Meta: Meta{At: 1, Peer: branch, Out: true}, Length: len(whole), Data: whole},
		{Meta: Meta{At: time.Second, Peer: branch, Elided: true}, Length: len(elided), Data: elided},
		{Meta: Meta{At: time.Second, Peer: other}, Length: len(cut), Data: cut[:len(cut)-7]},
		{Meta: Meta{At: time.Hour + 1}, Length: len(whole), Data: whole, Dropped: 1 << 40},
	} {
		p := Packet{At: epoch.Add(rec.At), Out: rec.Out, Length: rec.Length, Data: bytes.Clone(rec.Data), Dropped: rec.Dropped}
		switch {
		case rec.Peer == branch && rec.Out:
			p.Comment = "to branch"
		case rec.Peer == branch:
			p.Comment = "from branch"
			p.Data = in(udp4("elided"))
		case rec.Peer == other:
			p.Comment = "from /+4AAAAA…"
		}
		want = append(want, p)
		if err := w.Packet(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(epoch.Add(2*time.Hour), Statistics{Delivered: 4, Dropped: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), want
}

func TestReaderReadsWhatWriterWrites(t *testing.T) {
	for _, layer := range []device.Layer{device.LayerIP, device.LayerEthernet} {
		capture, want := example(t, layer)
		r := NewReader(bytes.NewReader(capture))
		var raw []byte
		var kinds []Kind
		for {
			b, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, b.Raw...)
			kinds = append(kinds, b.Kind)
			if b.Kind == KindPacket {
				p := b.Packet
				if !p.At.Equal(want[0].At) || p.Out != want[0].Out || p.Comment != want[0].Comment || p.Length != want[0].Length ||
					p.Dropped != want[0].Dropped || !bytes.Equal(p.Data, want[0].Data) {
					t.Errorf("packet %+v\nwant   %+v", p, want[0])
				}
				want = want[1:]
			}
			if b.Kind == KindStatistics && b.Statistics != (Statistics{4, 1 << 40}) {
				t.Errorf("statistics %+v", b.Statistics)
			}
		}
		if !bytes.Equal(raw, capture) || len(want) != 0 || r.Layer() != layer || !r.Ended() {
			t.Errorf("%d of %d bytes, %d packets not read, layer %v, ended %v", len(raw), len(capture), len(want), r.Layer(), r.Ended())
		}
		if want := []Kind{KindHeader, KindHeader, KindPacket, KindPacket, KindPacket, KindPacket, KindStatistics}; !bytes.Equal(bytesOf(kinds), bytesOf(want)) {
			t.Errorf("blocks %v, want %v", kinds, want)
		}
	}
}

func bytesOf(kinds []Kind) (b []byte) {
	for _, k := range kinds {
		b = append(b, byte(k))
	}
	return b
}

// A capture that ends early says so, wherever it is cut, and any length that is changed is noticed.
func TestReaderRefuses(t *testing.T) {
	capture, _ := example(t, device.LayerIP)
	ends := map[int]bool{}
	for at := 0; at < len(capture); {
		ends[at] = true
		at += int(capture[at+4]) | int(capture[at+5])<<8
	}
	for n := range capture {
		r := NewReader(bytes.NewReader(capture[:n]))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[ends[n]]; err != want || r.Ended() {
			t.Fatalf("cut to %d bytes: %v, want %v; ended %v", n, err, want, r.Ended())
		}
		if _, again := r.Next(); again != err {
			t.Fatalf("the error is %v, and then %v", err, again)
		}
	}
	for at := range ends {
		bad := bytes.Clone(capture)
		bad[at+4] += 4
		r := NewReader(bytes.NewReader(bad))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, ErrFormat) && err != io.ErrUnexpectedEOF {
			t.Errorf("block at %d with another length: %v", at, err)
		}
	}
	for name, text := range map[string]string{"text": "culvert: no such thing as this\n", "huge": "\x0a\x0d\x0d\x0a\x00\x00\x00\x7f"} {
		if _, err := NewReader(strings.NewReader(text)).Next(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	for _, name := range []string{strings.Repeat("a", 70000), strings.Repeat("ä", 300) + strings.Repeat("€", 70000), "bad \xff\xfe utf-8"} {
		var b bytes.Buffer
		w, err := NewWriter(&b, Interface{Name: name, Peer: func(crypto.PublicKey) string { return name }}, epoch)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Packet(Record{Meta: Meta{Peer: branch}, Length: MaxSnap, Data: make([]byte, MaxSnap)}); err != nil {
			t.Fatal(err)
		}
		r := NewReader(&b)
		for range 3 {
			block, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if c := block.Packet.Comment; len(c) > maxText || !utf8.ValidString(c) {
				t.Errorf("comment of %d bytes, valid %v", len(c), utf8.ValidString(c))
			}
		}
	}
}

// run gives a program a capture file and returns what it says.
func run(t *testing.T, capture []byte, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "capture.pcapng")
	if err := os.WriteFile(path, capture, 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "FILE", path)
	}
	cmd := exec.Command(lab.NeedProgram(t, name), args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "HOME="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, stderr.String())
	}
	return string(out)
}

func TestTsharkReadsIt(t *testing.T) {
	for _, layer := range []device.Layer{device.LayerIP, device.LayerEthernet} {
		capture, want := example(t, layer)
		got := run(t, capture, "tshark", "-r", "FILE", "-o", "udp.check_checksum:TRUE", "-T", "fields", "-E", "separator=|",
			"-e", "frame.time_epoch", "-e", "frame.interface_name", "-e", "frame.interface_description", "-e", "frame.packet_flags_direction",
			"-e", "frame.comment", "-e", "frame.len", "-e", "frame.cap_len", "-e", "ip.src", "-e", "udp.dstport", "-e", "udp.checksum.status")
		size := map[device.Layer]string{device.LayerIP: "33|33", device.LayerEthernet: "47|47"}[layer]
		const good, unchecked = "1", "2"
		lines := []string{
			"1700000000.123456790|wg0|site, tunnel wg0|0x00000002|to branch|" + size + "|10.20.0.1|7|" + good,
			"1700000001.123456789|wg0|site, tunnel wg0|0x00000001|from branch|" + strings.NewReplacer("33", "34", "47", "48").Replace(size) + "|10.20.0.1|7|" + good,
			"1700000001.123456789|wg0|site, tunnel wg0|0x00000001|from /+4AAAAA…|" + strings.NewReplacer("33|33", "47|40", "47|47", "61|54").Replace(size) + "|10.20.0.1|7|" + unchecked,
			"1700003600.123456790|wg0|site, tunnel wg0|0x00000001||" + size + "|10.20.0.1|7|" + good,
		}
		if want := strings.Join(lines, "\n") + "\n"; got != want {
			t.Errorf("layer %d: tshark says\n%s\nwant\n%s", layer, got, want)
		}
		if len(lines) != len(want) {
			t.Errorf("%d packets", len(want))
		}
		if info := run(t, capture, "capinfos", "FILE"); !strings.Contains(info, "culvert test") || !strings.Contains(info, "Number of packets:   4") {
			t.Errorf("capinfos says\n%s", info)
		}
	}
}

func TestTcpdumpReadsIt(t *testing.T) {
	for _, layer := range []device.Layer{device.LayerIP, device.LayerEthernet} {
		capture, _ := example(t, layer)
		got := run(t, capture, "tcpdump", "--nano", "-tttt", "-vvnr", "FILE")
		for _, want := range []string{"22:13:20.123456790 IP", "22:13:21.123456789 IP", "10.20.0.1.12345 > 10.20.0.2.7: [udp sum ok] UDP, length 6"} {
			if !strings.Contains(got, want) {
				t.Errorf("layer %d: tcpdump does not say %q:\n%s", layer, want, got)
			}
		}
		if strings.Contains(got, "bad") || strings.Count(got, "UDP, length") != 4 {
			t.Errorf("layer %d: tcpdump says\n%s", layer, got)
		}
	}
}

// FuzzReader reads anything: no panic, nothing out of bounds, and of what is read nothing is left out.
func FuzzReader(f *testing.F) {
	for _, layer := range []device.Layer{device.LayerIP, device.LayerEthernet} {
		capture, _ := example(f, layer)
		f.Add(capture)
		f.Add(capture[:len(capture)-3])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		var raw []byte
		for {
			block, err := r.Next()
			if err != nil {
				break
			}
			raw = append(raw, block.Raw...)
			if p := block.Packet; block.Kind == KindPacket && (len(p.Data) > p.Length || p.Length > MaxSnap) {
				t.Fatalf("%d bytes of a packet of %d", len(p.Data), p.Length)
			}
			if cap(r.buf) > maxBlock+4096 {
				t.Fatalf("buffer of %d bytes", cap(r.buf))
			}
		}
		if !bytes.HasPrefix(b, raw) {
			t.Fatal("blocks are not what was read")
		}
	})
}

// FuzzWriter writes any packet, which is read again as it was but for a checksum that was elided.
func FuzzWriter(f *testing.F) {
	f.Add(udp4("x"), uint16(29), byte(1), int64(5), "branch")
	f.Add(frameOf(udp4("x")), uint16(43), byte(2), int64(0), "\xff")
	f.Fuzz(func(t *testing.T, packet []byte, length uint16, flags byte, at int64, name string) {
		packet = packet[:min(len(packet), int(length))]
		layer := device.Layer(flags >> 7)
		var b bytes.Buffer
		w, err := NewWriter(&b, Interface{Name: name, Layer: layer, Snap: MaxSnap, Epoch: epoch, Peer: func(crypto.PublicKey) string { return name }}, epoch)
		if err != nil {
			t.Fatal(err)
		}
		rec := Record{Meta: Meta{At: time.Duration(at), Peer: branch, Out: flags&1 != 0, Elided: flags&2 != 0, Partial: flags&4 != 0}, Length: int(length), Data: bytes.Clone(packet)}
		if err := w.Packet(rec); err != nil {
			t.Fatal(err)
		}
		r := NewReader(&b)
		r.Next()
		r.Next()
		block, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		p := block.Packet
		want := bytes.Clone(packet)
		if rec.Elided && !rec.Partial && len(packet) == int(length) {
			device.CompleteChecksum(want, layer == device.LayerEthernet)
		}
		same := bytes.Equal(p.Data, want) || rec.Elided && rec.Partial
		if p.Out != rec.Out || p.Length != rec.Length || !same || !p.At.Equal(time.Unix(0, epoch.UnixNano()+at)) {
			t.Fatalf("%+v became %+v", rec, p)
		}
	})
}
