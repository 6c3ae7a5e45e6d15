package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// udpTrain is how many datagrams at most are handed over in one system call, and udpTrainBytes how much (udp(7), UDP_SEGMENT).
	udpTrain      = 64
	udpTrainBytes = 65000
	// udpProbe is a train that shows whether the kernel can send any.
	udpProbe = 2
	// udpPause is the time between two trains where fewer than a train are due in it. Less would be a system call for each datagram
	// at high rates: a sender that is never early costs more than the tunnel.
	udpPause = 200 * time.Microsecond
	// udpLongestLag and udpMostAtOnce are what a sender that fell behind makes up for, the less of them. More at once would
	// overflow a queue by itself: a tun's holds 500 packets.
	udpLongestLag  = 5 * time.Millisecond
	udpMostAtOnce  = 256
	udpNice        = -20 // of the threads that send and receive
	maxUDPDatagram = 2048
	// udpLongestRun is what other senders of this program make up for that fell behind.
	udpLongestRun = 10 * time.Millisecond

	setTimerSlack = 29  // PR_SET_TIMERSLACK
	levelUDP      = 17  // SOL_UDP
	optionSegment = 103 // UDP_SEGMENT
)

// udpFlow says what a UDP sender offers.
type udpFlow struct {
	To       netip.AddrPort
	Size     int // payload of each datagram, in bytes
	Rate     int // datagrams per second; 0: as many as possible
	Duration time.Duration
}

// udpSent is what a UDP sender did.
type udpSent struct {
	Packets    int64
	Seconds    float64
	CPUSeconds float64 // of this process meanwhile
	Trains     bool    // datagrams went to the kernel in trains, not in batches of single ones
}

// sendUDP sends datagrams for a time and returns.
//
// They are handed to the kernel in trains, which cost less than a batch of as many datagrams: the path through the kernel up to the
// device is that of one. The device takes them one by one where its segmentation of UDP is switched off.
func sendUDP(f udpFlow) (sent udpSent, err error) {
	if f.Size < 1 || f.Size > maxUDPDatagram {
		return sent, fmt.Errorf("datagrams of %d bytes", f.Size)
	}
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(f.To))
	if err != nil {
		return sent, err
	}
	defer conn.Close()
	send, trains, err := udpSender(conn, f.Size)
	if err != nil {
		return sent, err
	}
	if sent.Trains = trains; trains {
		sent.Packets = udpProbe
	}
	runtime.LockOSThread() // so that it sleeps in the kernel, by the microsecond
	defer runtime.UnlockOSThread()
	defer beforeDaemons()()
	before, err := ownCPU()
	if err != nil {
		return sent, err
	}
	p := udpPace{rate: float64(f.Rate)}
	for start := time.Now(); ; {
		elapsed := time.Since(start)
		if elapsed >= f.Duration {
			after, err := ownCPU()
			sent.Seconds, sent.CPUSeconds = elapsed.Seconds(), (after - before).Seconds()
			return sent, err
		}
		n := p.due(elapsed)
		if wait := p.wait(n, elapsed); wait > 0 {
			pause := syscall.NsecToTimespec(int64(wait))
			_ = syscall.Nanosleep(&pause, nil) // a signal ends it early
			continue
		}
		// A full queue of the device is the loss that is measured, told to the sender.
		if n, err = send(n); err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return sent, err
		}
		p.sent += float64(n)
		sent.Packets += int64(n)
	}
}

// beforeDaemons has this thread go before the daemons, as far as it may, until the function returned is called: hosts behind a tunnel do
// not wait for it. A receiver that did would have its queue grow until all that comes out of it has left the caches.
func beforeDaemons() (end func()) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0) // in ns: by itself it sleeps up to 50 us too long
	if syscall.Setpriority(syscall.PRIO_PROCESS, 0, udpNice) != nil {
		return func() {}
	}
	return func() { _ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 0) }
}

// udpPace says how many datagrams are due.
type udpPace struct {
	rate float64 // per second; 0 for as many as possible
	sent float64 // since the start; those that will not be made up for count
}

// due returns how many to send now, at most a train.
func (p *udpPace) due(elapsed time.Duration) int {
	if p.rate == 0 {
		return udpTrain
	}
	due := elapsed.Seconds() * p.rate
	if most := max(1, min(udpMostAtOnce, udpLongestLag.Seconds()*p.rate)); due-p.sent > most {
		p.sent = due - most
	}
	return min(int(due-p.sent), udpTrain)
}

// wait returns how long to wait with n that are due until there are enough to send: as many as become due in udpPause, and no more than
// a train. It is 0 where they are.
func (p *udpPace) wait(n int, elapsed time.Duration) time.Duration {
	if p.rate == 0 {
		return 0
	}
	enough := max(1, min(udpTrain, math.Floor(udpPause.Seconds()*p.rate)))
	if float64(n) >= enough {
		return 0
	}
	return max(1, time.Duration((p.sent+enough)/p.rate*float64(time.Second))-elapsed)
}

// udpSender returns a function that sends up to so many datagrams and says how many it was rid of. Those a full queue refused
// count. It sends trains where the kernel can do so on the way to the peer.
func udpSender(conn *net.UDPConn, size int) (send func(n int) (int, error), trains bool, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, false, err
	}
	payload := make([]byte, udpTrain*size)
	write := func(n int) (int, error) {
		n = max(1, min(n, udpTrainBytes/size))
		var werr error
		err := raw.Write(func(fd uintptr) bool {
			_, werr = syscall.Write(int(fd), payload[:n*size])
			return werr != syscall.EAGAIN
		})
		return n, errors.Join(err, werr)
	}
	segment := func(size int) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), levelUDP, optionSegment, size)
		}), err)
	}
	if segment(size) == nil {
		if _, err := write(udpProbe); err == nil || errors.Is(err, syscall.ENOBUFS) {
			return write, true, nil
		}
		if err := segment(0); err != nil {
			return nil, false, err
		}
	}
	batch := ipv4.NewPacketConn(conn)
	messages := make([]ipv4.Message, udpTrain)
	for i := range messages {
		messages[i].Buffers = [][]byte{payload[:size]}
	}
	return func(n int) (int, error) {
		n, err := batch.WriteBatch(messages[:n], 0)
		return max(n, 1), err
	}, false, nil
}
