package stream

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"
	"time"

	"culvert/transport"
	"culvert/transport/transporttest"
)

// nowhere is a sender that sends nothing.
type nowhere struct{ trains int }

func (n *nowhere) Send(trains []transport.Train) int {
	n.trains += len(trains)
	return 0
}

// BenchmarkDatagrams is what a sender costs beside the one below it, for a batch of four trains by datagrams.
func BenchmarkDatagrams(b *testing.B) {
	trains := make([]transport.Train, 4)
	for i := range trains {
		trains[i] = transport.Train{Buf: make([]byte, 60000), N: 60000, Segment: 1400, Endpoint: transport.Endpoint{Remote: serverAt}}
	}
	below := &nowhere{}
	for name, s := range map[string]transport.Sender{"below": below, "wrapped": &sender{datagrams: below}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Send(trains)
			}
		})
	}
}

// BenchmarkHandshake is a TLS handshake, both ends.
func BenchmarkHandshake(b *testing.B) {
	certificate, err := SelfSigned(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	server, client := serverConfig(Config{Certificate: certificate}), clientConfig("vpn.example.net")
	for b.Loop() {
		near, far := net.Pipe()
		done := make(chan error)
		go func() { done <- tls.Server(far, server).Handshake() }()
		if err := tls.Client(near, client).Handshake(); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		near.Close()
		far.Close()
	}
}

// BenchmarkMemory is the live memory of a stream, both ends, TLS included; the pipe is no socket, so the kernel's part is not in it.
func BenchmarkMemory(b *testing.B) {
	const count = 200
	certificate, err := SelfSigned(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	host := func() (Host, error) { return transporttest.NewTCP().Host(serverAddr), nil }
	opened, err := NewOn(transporttest.New(1).Host(serverAddr), host).Open(transport.Options{Port: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer opened.Close()
	s := opened.(*socket)
	server, client := serverConfig(Config{Certificate: certificate}), clientConfig("vpn.example.net")
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	for b.Loop() {
		var ends []net.Conn
		before := heap()
		for range count {
			near, far := net.Pipe()
			ends = append(ends, near, far)
			c := s.newConn(&tcpPipe{far}, true)
			c.tls = tls.Server(&tcpPipe{far}, server)
			go c.serve()
			if err := tls.Client(near, client).Handshake(); err != nil {
				b.Fatal(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
		b.ReportMetric(float64(heap()-before)/count/1024, "KiB/stream")
		for _, c := range ends {
			c.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
}
