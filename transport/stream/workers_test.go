package stream

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"culvert/transport"
)

// A socket of several workers has its receivers of datagrams and one for streams, which is the first worker's; what each worker
// sends goes over streams too.
func TestWorkersShareStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		host := w.tcp.Host(netip.MustParseAddr("192.0.2.77"))
		network := NewOn(w.udp.Host(netip.MustParseAddr("192.0.2.77")), func() (Host, error) { return host, nil })
		s, err := network.Open(transport.Options{Port: 1000, Workers: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		workers := map[int]int{}
		for _, r := range s.Receivers() {
			workers[r.Worker()]++
		}
		if len(workers) != 3 || workers[0] != 2 || workers[1] != 1 || workers[2] != 1 {
			t.Errorf("receivers of each worker: %v", workers)
		}
		opened, err := s.(transport.Streamer).Dial(t.Context(), transport.StreamTarget{Host: serverAddr.String(), Port: anywhere.Port()})
		if err != nil {
			t.Fatal(err)
		}
		for worker := range 3 {
			text := []byte{'w', byte('0' + worker)}
			train := []transport.Train{{Buf: text, N: len(text), Endpoint: opened.Endpoint()}}
			if s.NewWorkerSender(worker).Send(train) != 0 {
				t.Fatal(train[0].Err)
			}
			if from := w.server.expect(string(text)); from.Stream == 0 {
				t.Errorf("worker %d's came from %v", worker, from)
			}
		}
	})
}

// A further socket without streams leaves the first one's where they are.
func TestSocketWithoutStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other, err := w.server.network.Open(transport.Options{WithoutStreams: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := other.(transport.Streamer); ok {
			t.Error("it has streams")
		}
		opened := w.dial()
		other.Close()
		train := []transport.Train{{Buf: []byte("x"), N: 1, Endpoint: opened.Endpoint()}}
		if w.client.sender.Send(train) != 0 {
			t.Fatal(train[0].Err)
		}
		if from := w.server.expect("x"); from.Stream == 0 {
			t.Errorf("it came from %v", from)
		}
	})
}
