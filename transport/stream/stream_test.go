package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"culvert/transport"
	"culvert/transport/transporttest"
)

var (
	clientAddr = netip.MustParseAddr("192.0.2.1")
	serverAddr = netip.MustParseAddr("192.0.2.2")
	serverAt   = netip.AddrPortFrom(serverAddr, 443)
	anywhere   = netip.MustParseAddrPort("[::]:443")
)

// world is a client and a server on networks in memory.
type world struct {
	t              testing.TB
	udp            *transporttest.Network
	tcp            *transporttest.TCP
	client, server *end
}

// end is one end: its network, its open socket, and what it has received.
type end struct {
	t       testing.TB
	network *Network
	host    *transporttest.TCPHost
	socket  transport.Streamer
	sender  transport.Sender
	got     chan arrival
}

type arrival struct {
	datagram []byte
	from     transport.Endpoint
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, udp: transporttest.New(1), tcp: transporttest.NewTCP()}
	w.tcp.Name("vpn.example.net", serverAddr)
	w.client, w.server = w.end(clientAddr), w.end(serverAddr)
	certificate, err := SelfSigned(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.server.network.Configure(Config{Listen: anywhere, Certificate: certificate}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) end(addr netip.Addr) *end {
	host := w.tcp.Host(addr)
	e := &end{t: w.t, host: host, got: make(chan arrival, 10000)}
	e.network = NewOn(w.udp.Host(addr), func() (Host, error) { return host, nil })
	s, err := e.network.Open(transport.Options{Port: 1000, Mark: 7})
	if err != nil {
		w.t.Fatal(err)
	}
	e.socket = s.(transport.Streamer)
	e.sender = s.NewSender()
	w.t.Cleanup(func() { s.Close() })
	for _, r := range s.Receivers() {
		go e.receive(r)
	}
	return e
}

func (e *end) receive(r transport.Receiver) {
	var trains [3]transport.Train
	for i := range trains {
		trains[i].Buf = make([]byte, transport.ReceiveBufferSize)
	}
	for {
		n, err := r.Receive(trains[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			e.t.Error(err)
			return
		}
		for i := range trains[:n] {
			t := &trains[i]
			for d, next := t.Next(0); d != nil; d, next = t.Next(next) {
				e.got <- arrival{bytes.Clone(d), t.Endpoint}
			}
		}
	}
}

// send sends datagrams of one size as a train.
func (e *end) send(to transport.Endpoint, datagrams ...string) error {
	t := transport.Train{Endpoint: to}
	for _, d := range datagrams {
		if t.Segment == 0 {
			t.Segment = len(d)
		}
		t.Buf = append(t.Buf, d...)
	}
	t.N = len(t.Buf)
	trains := []transport.Train{t}
	if n := e.sender.Send(trains); (n > 0) != (trains[0].Err != nil) {
		e.t.Fatalf("%d failed, %v", n, trains[0].Err)
	}
	return trains[0].Err
}

// expect fails unless exactly these came, and returns where the last one came from.
func (e *end) expect(want ...string) (from transport.Endpoint) {
	e.t.Helper()
	synctest.Wait()
	var got []string
	for len(e.got) > 0 {
		a := <-e.got
		got, from = append(got, string(a.datagram)), a.from
	}
	if !slices.Equal(got, want) {
		e.t.Fatalf("received %.300q, want %.300q", got, want)
	}
	return from
}

// dial opens a stream to the server and takes it into use.
func (w *world) dial() transport.Stream {
	w.t.Helper()
	s, err := w.client.socket.Dial(w.t.Context(), transport.StreamTarget{Host: "vpn.example.net", Port: 443})
	if err != nil {
		w.t.Fatal(err)
	}
	w.client.socket.InUse(s.Endpoint(), true)
	return s
}

func isDone(s transport.Stream) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

func TestDatagramsBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.dial()
		if s.Endpoint().Remote != serverAt || s.Endpoint().Stream == 0 || s.Endpoint().String() != "192.0.2.2:443 over TCP" {
			t.Errorf("endpoint %v", s.Endpoint())
		}
		if err := w.client.send(s.Endpoint(), "aa", "bb", "c"); err != nil {
			t.Fatal(err)
		}
		if err := w.client.send(s.Endpoint(), "dddd"); err != nil {
			t.Fatal(err)
		}
		back := w.server.expect("aa", "bb", "c", "dddd")
		if back.Remote.Addr() != clientAddr || back.Stream == 0 || back.Source.IsValid() {
			t.Errorf("from %+v", back)
		}
		w.server.socket.InUse(back, true)
		large := string(bytes.Repeat([]byte("x"), transport.MaxTrainBytes))
		if err := w.server.send(back, large); err != nil {
			t.Fatal(err)
		}
		w.client.expect(large)
		if err := w.client.send(s.Endpoint(), large); err != nil { // the server has the stream in use
			t.Fatal(err)
		}
		w.server.expect(large)
		// The same socket's datagrams go their own way, in one call with the stream's.
		udp := transport.Endpoint{Remote: netip.AddrPortFrom(serverAddr, 1000)}
		trains := make([]transport.Train, 5)
		for i, to := range []transport.Endpoint{udp, s.Endpoint(), udp, udp, s.Endpoint()} {
			trains[i] = transport.Train{Buf: []byte{byte('0' + i)}, N: 1, Endpoint: to}
		}
		if n := w.client.sender.Send(trains); n != 0 {
			t.Fatalf("%d failed: %v", n, trains)
		}
		synctest.Wait()
		var datagrams, stream string
		for len(w.server.got) > 0 {
			if a := <-w.server.got; a.from.Stream == 0 {
				datagrams += string(a.datagram)
			} else {
				stream += string(a.datagram)
			}
		}
		if datagrams != "023" || stream != "14" {
			t.Errorf("by datagrams %q, over the stream %q", datagrams, stream)
		}
		if c := w.server.socket.Counters().Streams; c.Accepted != 1 || c.Open != 1 || c.ReceivedDatagrams != 7 || c.SentDatagrams != 1 {
			t.Errorf("%+v", c)
		}
		if m := w.client.host.Mark(); m != 7 {
			t.Errorf("dialled with mark %d", m)
		}
		if err := w.client.socket.SetMark(9); err != nil || w.client.host.Mark() != 9 {
			t.Errorf("mark %d: %v", w.client.host.Mark(), err)
		}
		s.Close()
		synctest.Wait()
		if err := w.server.send(back, "x"); !errors.Is(err, transport.ErrStreamGone) {
			t.Errorf("sent over an ended stream: %v", err)
		}
		if err := w.client.send(s.Endpoint(), "x"); !errors.Is(err, transport.ErrStreamGone) {
			t.Errorf("sent over an ended stream: %v", err)
		}
	})
}

// A far end that does not read has its queue filled, not the sender held up, and is let go of in the end.
func TestFarEndThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		raw, err := w.tcp.Host(clientAddr).Dial(t.Context(), serverAt, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, clientConfig("a.example"))
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(frame([]byte("hello"))); err != nil {
			t.Fatal(err)
		}
		to := w.server.expect("hello")
		w.server.socket.InUse(to, true)
		train := string(bytes.Repeat([]byte("x"), 60000))
		sent := 0
		for err == nil {
			if err = w.server.send(to, train); err == nil {
				sent += len(train)
			}
		}
		if !errors.Is(err, transport.ErrStreamFull) {
			t.Fatalf("%v after %d bytes", err, sent)
		}
		synctest.Wait() // the writer has taken what there was
		for err = nil; err == nil; {
			if err = w.server.send(to, train); err == nil {
				sent += len(train)
			}
		}
		if sent > 2*(queueChunks+1)*chunkSize {
			t.Errorf("%d bytes taken", sent)
		}
		if err := w.server.send(to, "a handshake"); err != nil { // has room of its own
			t.Error(err)
		}
		if n := w.server.socket.Counters().Streams.Full; n < 1 {
			t.Errorf("%d counted as dropped", n)
		}
		time.Sleep((stuckTime + 2) * time.Second)
		synctest.Wait()
		if err := w.server.send(to, "x"); !errors.Is(err, transport.ErrStreamGone) {
			t.Errorf("after %d s: %v", stuckTime, err)
		}
		if c := w.server.socket.Counters().Streams; c.Stuck != 1 || c.Open != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// What nobody uses is closed: soon where nothing authenticated ever came, later where it was left, and where nothing comes.
func TestUnusedStreamsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.dial()
		start := time.Now()
		closed := make(chan time.Duration, 1)
		go func() {
			<-s.Done()
			closed <- time.Since(start)
		}()
		if d := <-closed; d < silentTime*time.Second || d > (silentTime+2)*time.Second {
			t.Errorf("never used: closed after %v", d)
		}
		s = w.dial()
		w.client.send(s.Endpoint(), "x")
		at := w.server.expect("x")
		w.server.socket.InUse(at, true)
		time.Sleep(2 * silentTime * time.Second)
		synctest.Wait()
		if isDone(s) {
			t.Error("closed while in use")
		}
		w.server.socket.InUse(at, true) // two peers at one stream
		w.server.socket.InUse(at, false)
		time.Sleep(2 * unusedTime * time.Second)
		w.client.send(s.Endpoint(), "y")
		w.server.expect("y")
		if isDone(s) {
			t.Error("closed while the other peer uses it")
		}
		w.server.socket.InUse(at, false)
		time.Sleep((unusedTime - 2) * time.Second)
		synctest.Wait()
		if isDone(s) {
			t.Error("closed too soon after it was left")
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if !isDone(s) || s.Err() == nil {
			t.Errorf("not closed after it was left: %v", s.Err())
		}
		s = w.dial()
		w.client.send(s.Endpoint(), "z")
		w.server.socket.InUse(w.server.expect("z"), true)
		time.Sleep((idleTime - 2) * time.Second)
		synctest.Wait()
		if isDone(s) {
			t.Error("idle, and closed too soon")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !isDone(s) {
			t.Error("idle, and not closed")
		}
	})
}

// Hostile clients: half-open connections, half a handshake, garbage in place of TLS, another protocol within it, datagrams beyond
// what is read of strangers. Their number is bounded, their time too, and who comes later still gets in.
func TestHostileClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		connect := func(from string) net.Conn {
			c, err := w.tcp.Host(netip.MustParseAddr(from)).Dial(t.Context(), serverAt, 0)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		ended := func(c net.Conn) bool {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := c.Read(make([]byte, 1))
			var timeout interface{ Timeout() bool }
			return !(errors.As(err, &timeout) && timeout.Timeout())
		}
		// Half-open, from one address.
		var open []net.Conn
		for range 2 * maxOfAddress {
			open = append(open, connect("203.0.113.1"))
			time.Sleep(2 * acceptPause)
		}
		synctest.Wait()
		for i, c := range open {
			if got := ended(c); got != (i >= maxOfAddress) {
				t.Errorf("connection %d of one address: closed %v", i, got)
			}
		}
		if c := w.server.socket.Counters().Streams; c.Refused != maxOfAddress || c.Open != maxOfAddress {
			t.Errorf("%+v", c)
		}
		time.Sleep((silentTime + 2) * time.Second)
		synctest.Wait()
		if c := w.server.socket.Counters().Streams; c.Open != 0 || c.Silent != maxOfAddress {
			t.Errorf("after a while %+v", c)
		}
		// From many addresses: the oldest make room.
		open = open[:0]
		for i := range maxUnused + 10 {
			open = append(open, connect(fmt.Sprintf("203.0.%d.%d", i/200, 1+i%200)))
			time.Sleep(2 * acceptPause)
		}
		synctest.Wait()
		for i, c := range open {
			if got := ended(c); got != (i < 10) {
				t.Errorf("connection %d of many addresses: closed %v", i, got)
			}
		}
		s := w.dial()
		w.client.send(s.Endpoint(), "let me in")
		w.server.socket.InUse(w.server.expect("let me in"), true)
		if c := w.server.socket.Counters().Streams; c.Open != maxUnused || c.Evicted != 11 {
			t.Errorf("%+v", c)
		}
		// Garbage in place of TLS, and HTTP within it.
		c := connect("198.51.100.1")
		go c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(make([]byte, 100)); n > 7 { // an alert, if that
			t.Errorf("%d bytes and %v for garbage", n, err)
		}
		c = connect("198.51.100.2")
		config := clientConfig("a.example")
		web := tls.Client(c, config)
		if _, err := web.Write([]byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if state := web.ConnectionState(); state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "h2" {
			t.Errorf("version %x, protocol %q", state.Version, state.NegotiatedProtocol)
		}
		web.SetReadDeadline(time.Now().Add((silentTime + 2) * time.Second))
		if n, err := web.Read(make([]byte, 100)); n != 0 || err == nil {
			t.Errorf("%d bytes answered to HTTP", n)
		}
		// Older TLS.
		c = connect("198.51.100.3")
		if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}).Handshake(); err == nil {
			t.Error("TLS 1.2 was accepted")
		}
		// A flood of datagrams: no more is read than is allowed for.
		c = connect("198.51.100.4")
		flood := tls.Client(c, config)
		if err := flood.Handshake(); err != nil {
			t.Fatal(err)
		}
		written := 0
		flood.SetWriteDeadline(time.Now().Add(time.Second))
		for {
			n, err := flood.Write(frame(make([]byte, 1200)))
			written += n
			if err != nil {
				break
			}
		}
		if written > untrustedBytes+2*readSize {
			t.Errorf("%d bytes were read of a stranger", written)
		}
		if isDone(s) {
			t.Error("the good stream was closed")
		}
		w.client.send(s.Endpoint(), "still here")
		for {
			a := <-w.server.got
			if string(a.datagram) == "still here" {
				break
			}
		}
	})
}

// Frames that cannot be end the stream, in use or not.
func TestGarbageEndsAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		raw, err := w.tcp.Host(clientAddr).Dial(t.Context(), serverAt, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, clientConfig("a.example"))
		c.Write(append(frame([]byte("good")), 0, 0, 1, 2, 3))
		w.server.expect("good")
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the stream goes on")
		}
		if n := w.server.socket.Counters().Streams.Failed; n != 1 {
			t.Errorf("%d failed", n)
		}
	})
}

func TestDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dial := func(host string) error {
			_, err := w.client.socket.Dial(t.Context(), transport.StreamTarget{Host: host, Port: 443})
			return err
		}
		if err := dial("nobody.example"); err == nil {
			t.Error("a name nobody has")
		}
		w.tcp.Refuse(true)
		if err := dial("vpn.example.net"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		w.tcp.Refuse(false)
		// The first address does not answer, the second does.
		w.tcp.Name("two.example", netip.MustParseAddr("192.0.2.77"), serverAddr)
		if err := dial("two.example"); err != nil {
			t.Error(err)
		}
		// Somebody listens who never says a word.
		silent, err := w.tcp.Host(netip.MustParseAddr("192.0.2.3")).Listen(netip.MustParseAddrPort("192.0.2.3:443"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		go silent.Accept()
		start := time.Now()
		if err := dial("192.0.2.3"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > dialTime {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		w.client.socket.Close()
		if err := dial("vpn.example.net"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("on a closed socket: %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := w.tcp.Open(); n != 1 { // the silent listener's own end
			t.Errorf("%d ends of connections left", n)
		}
	})
}

// Listening is changed while streams are open.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		certificate := w.server.network.config.Certificate
		s := w.dial()
		w.client.send(s.Endpoint(), "x")
		w.server.socket.InUse(w.server.expect("x"), true)
		other := netip.MustParseAddrPort("[::]:8443")
		taken, err := w.tcp.Host(serverAddr).Listen(other, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.server.network.Configure(Config{Listen: other, Certificate: certificate}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		w.dial() // as before
		taken.Close()
		if err := w.server.network.Configure(Config{Listen: other, Certificate: certificate}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.socket.Dial(t.Context(), transport.StreamTarget{Host: "192.0.2.2", Port: 8443}); err != nil {
			t.Error(err)
		}
		if _, err := w.client.socket.Dial(t.Context(), transport.StreamTarget{Host: "192.0.2.2", Port: 443}); err == nil {
			t.Error("still listening at the old port")
		}
		if isDone(s) {
			t.Error("a stream was closed")
		}
		// Another socket, at another UDP port, takes the listener over.
		next, err := w.server.network.Open(transport.Options{Port: 1001})
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		w.server.socket.Close()
		synctest.Wait()
		if !isDone(s) {
			t.Error("the old socket's stream is open")
		}
		if _, err := w.client.socket.Dial(t.Context(), transport.StreamTarget{Host: "192.0.2.2", Port: 8443}); err != nil {
			t.Error(err)
		}
		if err := w.server.network.Configure(Config{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.socket.Dial(t.Context(), transport.StreamTarget{Host: "192.0.2.2", Port: 8443}); err == nil {
			t.Error("still listening")
		}
		synctest.Wait()
		if n := next.Counters().Streams.Open; n != 0 {
			t.Errorf("%d streams accepted before are open", n)
		}
	})
}

// Many datagrams arrive in order, and none is lost on the receiving side, however slow the receiver.
func TestManyDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.dial()
		w.client.send(s.Endpoint(), "first")
		w.server.socket.InUse(w.server.expect("first"), true)
		for i := range 5000 {
			d := fmt.Sprintf("%05d", i)
			d += string(bytes.Repeat([]byte("."), i%1400))
			for w.client.send(s.Endpoint(), d) != nil {
				time.Sleep(time.Millisecond)
			}
		}
		synctest.Wait()
		for i := range 5000 {
			if a := <-w.server.got; string(a.datagram[:5]) != fmt.Sprintf("%05d", i) || len(a.datagram) != 5+i%1400 {
				t.Fatalf("datagram %d is %.10q of %d bytes", i, a.datagram, len(a.datagram))
			}
		}
	})
}

// What the engine's goroutines do allocates nothing, over a stream as little as by datagrams.
func TestStreamsAllocateNothing(t *testing.T) {
	n := NewOn(transporttest.New(1).Host(clientAddr), func() (Host, error) { return transporttest.NewTCP().Host(clientAddr), nil })
	opened, err := n.Open(transport.Options{Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	s := opened.(*socket)
	near, far := net.Pipe()
	defer far.Close()
	c := s.newConn(&tcpPipe{near}, true)
	send := s.NewSender()
	trains := []transport.Train{{Buf: make([]byte, 60000), N: 60000, Segment: 1400, Endpoint: c.endpoint}}
	var taken [queueChunks + 1]*chunk
	if n := testing.AllocsPerRun(200, func() {
		if send.Send(trains) != 0 {
			t.Fatal(trains[0].Err)
		}
		for i := range c.queue.take(&taken) {
			taken[i].free()
		}
	}); n != 0 {
		t.Errorf("sending allocates %v times", n)
	}
	r := s.receivers[len(s.receivers)-1].(*receiver)
	in := []transport.Train{{Buf: make([]byte, transport.ReceiveBufferSize)}, {Buf: make([]byte, transport.ReceiveBufferSize)}}
	datagram := make([]byte, 1400)
	if n := testing.AllocsPerRun(200, func() {
		for range 40 {
			if !s.postbox.put(c, datagram) {
				t.Fatal("no room")
			}
		}
		s.postbox.list(c)
		if n, err := r.Receive(in); n != 1 || err != nil || in[0].Datagrams() != 40 {
			t.Fatalf("%d trains of %d, %v", n, in[0].Datagrams(), err)
		}
	}); n != 0 {
		t.Errorf("receiving allocates %v times", n)
	}
}

// tcpPipe is a pipe that has addresses.
type tcpPipe struct{ net.Conn }

func (*tcpPipe) LocalAddr() net.Addr { return &net.TCPAddr{IP: clientAddr.AsSlice(), Port: 1} }
func (*tcpPipe) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: serverAddr.AsSlice(), Port: 443}
}
