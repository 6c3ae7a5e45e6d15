package uapi

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"culvert/crypto"
	"culvert/tunnel"
)

// manyPeers is the transaction of a server with 100,000 peers.
func manyPeers() string {
	var b strings.Builder
	b.WriteString("set=1\nlisten_port=51820\nreplace_peers=true\n")
	for i := range 100_000 {
		k := crypto.PublicKey{31: 1, 0: byte(i), 1: byte(i >> 8), 2: byte(i >> 16)}
		fmt.Fprintf(&b, "public_key=%s\npreshared_key=%s\nendpoint=192.0.2.1:%d\npersistent_keepalive_interval=25\n"+
			"replace_allowed_ips=true\nallowed_ip=10.%d.%d.%d/32\nallowed_ip=fd00::%x:%x/128\n", k.Hex(), k.Hex(), i%65535+1, i>>16, i>>8&255, i&255, i>>16, i&0xffff)
	}
	b.WriteString("\n")
	return b.String()
}

// still is an engine that does nothing: what is measured is this package.
type still struct{ status tunnel.Status }

func (s *still) Configure(tunnel.Change) error { return nil }
func (s *still) Status() tunnel.Status         { return s.status }

// sink is a client's connection that throws the answer away.
type sink struct {
	script
	n int64
}

func (s *sink) Write(b []byte) (int, error) {
	s.n += int64(len(b))
	return len(b), nil
}

func BenchmarkSet100000(b *testing.B) {
	text := []byte(manyPeers())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	s := NewServer(&still{}, Options{})
	for b.Loop() {
		c := &script{in: bytes.NewReader(text)}
		s.converse(c)
		if c.out.String() != "errno=0\n\n" {
			b.Fatal(c.out.String())
		}
	}
}

func BenchmarkGet100000(b *testing.B) {
	f := newFakeEngine()
	if got := talk(NewServer(f, Options{}), manyPeers()); got != "errno=0\n\n" {
		b.Fatal(got)
	}
	s := NewServer(&still{f.Status()}, Options{})
	b.ReportAllocs()
	for b.Loop() {
		c := &sink{script: script{in: strings.NewReader("get=1\n\n")}}
		s.converse(c)
		b.SetBytes(c.n)
	}
}
