package uapi

import (
	"bytes"
	"strings"
	"testing"

	"culvert/tunnel"
)

// FuzzSet: what is accepted as a transaction and applied to an empty tunnel reads back as a transaction that makes the
// same tunnel.
func FuzzSet(f *testing.F) {
	pk := "public_key=" + hexKey("a") + "\n"
	f.Add([]byte("\n"))
	f.Add([]byte("private_key=" + hexKey("c") + "\nlisten_port=51820\nfwmark=32\nreplace_peers=true\n" + pk +
		"preshared_key=" + hexKey("d") + "\nendpoint=[fe80::1%eth0]:51820\npersistent_keepalive_interval=25\n" +
		"replace_allowed_ips=true\nallowed_ip=10.1.2.3/8\nallowed_ip=-10.0.0.0/8\nallowed_ip=::/0\nprotocol_version=1\n\n"))
	f.Add([]byte(pk + "remove=true\n" + pk + "update_only=true\nendpoint=192.0.2.1:1\n\n"))
	f.Add([]byte("unknown=1\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		change, err := readChange(newLines(bytes.NewReader(text)), testZone)
		if err != nil {
			return
		}
		first := newFakeEngine()
		if err := first.Configure(change); err != nil {
			t.Fatal(err)
		}
		settings := asSet(format(first.Status()))
		again, err := readChange(newLines(strings.NewReader(settings)), testZone)
		if err != nil {
			t.Fatalf("%v in\n%s", err, settings)
		}
		second := newFakeEngine()
		if err := second.Configure(again); err != nil {
			t.Fatal(err)
		}
		if got, want := format(second.Status()), format(first.Status()); got != want {
			t.Fatalf("not stable:\n%s\nbecame\n%s", want, got)
		}
	})
}

// FuzzServer: whatever a client sends, the server neither panics nor hangs nor answers in another form.
func FuzzServer(f *testing.F) {
	f.Add([]byte("get=1\n\nset=1\nlisten_port=1\n\nget=1\n\n"))
	f.Add([]byte("set=1\nunknown=1\n\nget=1\nx\n\nget=2\n\n"))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := NewServer(newFakeEngine(), Options{})
		c := &script{in: bytes.NewReader(text)}
		s.converse(c)
		for answer := range strings.SplitAfterSeq(c.out.String(), "\n\n") {
			if answer == "" {
				continue
			}
			if i := strings.Index(answer, "errno="); i < 0 || !strings.HasSuffix(answer, "\n\n") {
				t.Fatalf("answer %q", answer)
			}
		}
	})
}

func format(s tunnel.Status) string {
	var b bytes.Buffer
	o := newOutput(&b)
	o.status(&s)
	o.flush()
	return b.String()
}

// asSet makes a transaction of a tunnel's state by leaving out what cannot be set.
func asSet(state string) string {
	var b strings.Builder
	for line := range strings.Lines(state) {
		switch key, _, _ := strings.Cut(line, "="); key {
		case "last_handshake_time_sec", "last_handshake_time_nsec", "tx_bytes", "rx_bytes":
		default:
			b.WriteString(line)
		}
	}
	b.WriteString("\n")
	return b.String()
}
