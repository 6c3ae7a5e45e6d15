package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// pingRun says what to ping and how often. The far kernel answers, and this one tells when the answer was there (SO_TIMESTAMPNS), so that
// no program's wait for a processor is in the time but the daemons'.
type pingRun struct {
	To       netip.Addr // IPv4
	Count    int
	Interval time.Duration
	Wait     time.Duration // for the replies, after the last request
}

// pingResult has the round-trip time of each request that was answered.
type pingResult struct {
	Times []time.Duration
	Lost  int
}

// maxPings is how many requests fit the sequence number.
const maxPings = 1 << 16

// pingPayload is that of ping(8), in bytes.
const pingPayload = 56

var pingID atomic.Uint32

// ping sends echo requests and collects the replies.
func ping(p pingRun) (pingResult, error) {
	if p.Count < 1 || p.Count > maxPings || p.Interval <= 0 {
		return pingResult{}, errors.New("ping: count or interval out of range")
	}
	conn, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		return pingResult{}, err
	}
	defer conn.Close()
	if err := stampArrivals(conn); err != nil {
		return pingResult{}, err
	}
	// Not the process's number alone: replies to the measurement before may still be on their way.
	id := int(uint16(os.Getpid()) + uint16(pingID.Add(1)<<10))
	sent := make([]atomic.Int64, p.Count) // nanoseconds since 1970, as the kernel stamps; 0: not yet
	replies := make(chan []time.Duration, 1)
	go func() { replies <- collectReplies(conn, id, sent) }()
	err = sendRequests(conn, p, id, sent)
	if err == nil {
		err = conn.SetReadDeadline(time.Now().Add(p.Wait))
	}
	if err != nil {
		conn.Close()
		<-replies
		return pingResult{}, err
	}
	times := <-replies
	return pingResult{times, p.Count - len(times)}, nil
}

func sendRequests(conn *net.IPConn, p pingRun, id int, sent []atomic.Int64) error {
	tick := time.NewTicker(p.Interval)
	defer tick.Stop()
	to := &net.IPAddr{IP: p.To.AsSlice()}
	for seq := range p.Count {
		if seq > 0 {
			<-tick.C
		}
		echo := &icmp.Echo{ID: id, Seq: seq, Data: make([]byte, pingPayload)}
		request, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: echo}).Marshal(nil)
		if err != nil {
			return err
		}
		sent[seq].Store(time.Now().UnixNano())
		if _, err := conn.WriteTo(request, to); err != nil {
			return err
		}
	}
	return nil
}

// collectReplies returns the times of the first reply to each request, until there is one to each or the connection's
// deadline passes.
func collectReplies(conn *net.IPConn, id int, sent []atomic.Int64) (times []time.Duration) {
	answered := make([]bool, len(sent))
	control := make([]byte, 256)
	for buf := make([]byte, 2048); len(times) < len(sent); {
		n, controls, _, _, err := conn.ReadMsgIP(buf, control)
		if err != nil {
			return times
		}
		packet, err := ipv4.ParseHeader(buf[:n])
		if err != nil || packet.Len > n {
			continue
		}
		message, err := icmp.ParseMessage(1, buf[packet.Len:n])
		if err != nil || message.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		echo, ok := message.Body.(*icmp.Echo)
		if !ok || echo.ID != id || echo.Seq >= len(sent) || answered[echo.Seq] {
			continue
		}
		at, stamped := arrival(control[:controls])
		if since := sent[echo.Seq].Load(); stamped && since != 0 {
			answered[echo.Seq] = true
			times = append(times, time.Duration(at-since))
		}
	}
	return times
}
