package transport

import (
	"testing"
)

// BenchmarkLoopback sends trains to a socket of this process and receives them, in turn on one goroutine, with and without
// segmentation offload.
func BenchmarkLoopback(b *testing.B) {
	for _, c := range []struct {
		name    string
		offload bool
		trains  int
		size    int
		segment int
	}{
		{"offload/45x1452", true, 1, 45 * 1452, 1452},
		{"offload/4x45x1452", true, 4, 45 * 1452, 1452},
		{"single/45x1452", false, 1, 45 * 1452, 1452},
		{"single/64x64", false, 1, 64 * 64, 64},
		{"offload/64x64", true, 1, 64 * 64, 64},
		{"one/1452", true, 1, 1452, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			from, to := openUDP(b, Options{}), openUDP(b, Options{})
			from.segmentOff.Store(!c.offload)
			var out []Train
			for range c.trains {
				tr := trainTo(loopbacks(to)[0], pattern(c.size), c.segment)
				tr.Endpoint.Source, tr.TOS = loopback4, ECNECT0
				out = append(out, tr)
			}
			sender, receiver, in := from.NewSender(), to.Receivers()[0], newTrains(batchMessages)
			datagrams := 0
			b.SetBytes(int64(c.trains * c.size))
			b.ReportAllocs()
			for b.Loop() {
				if sender.Send(out) != 0 {
					b.Fatal(out[0].Err)
				}
				for got := 0; got < c.trains*c.size; {
					n, err := receiver.Receive(in)
					if err != nil {
						b.Fatal(err)
					}
					for i := range in[:n] {
						got += in[i].N
						datagrams += in[i].Datagrams()
					}
				}
			}
			b.ReportMetric(float64(datagrams)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}
