package main

import (
	"fmt"
	"slices"
)

// quantities are the lines of a tunnel's table: what a gigabyte costs first, then speed. Each group is about one thing.
var quantities = slices.Concat([][]quantity{tcpCosts(), tcpSpeeds()}, udpLines(), [][]quantity{floodLines, rttLines, requestLines(), {
	{name: "handshake and first packet, median", unit: "ms", best: less, of: timed(handshake, middle)},
	{name: "handshake and first packet, max", unit: "ms", best: less, of: timed(handshake, maximum)},
}, {
	{name: "peak memory, the larger end", unit: "MB", best: less, of: peakOf},
}})

// peakOf is the peak memory of the end that has more, in megabytes.
func peakOf(t *Trial) (float64, bool) {
	if len(t.PeakMemory) == 0 {
		return 0, false
	}
	return float64(slices.Max(t.PeakMemory)) / 1e6, true
}

// value is what a quantity reads of a trial; false where the trial does not have it.
type value = func(*Trial) (float64, bool)

// end is one end of a tunnel, or both together.
type end int

const (
	sendingEnd end = iota
	receivingEnd
	bothEnds
)

// cpu returns the processor time of the daemons at an end; false where there are none.
func (e end) cpu(c *CPU) (float64, bool) {
	switch {
	case e == bothEnds:
		return sum(c.Daemons), len(c.Daemons) > 0
	case int(e) < len(c.Daemons):
		return c.Daemons[e], true
	}
	return 0, false
}

// flowsText names flows: "1 flow", "4 flows".
func flowsText(flows int) string {
	if flows == 1 {
		return "1 flow"
	}
	return fmt.Sprintf("%d flows", flows)
}

// wayText is what follows the number of flows in a line's name.
var wayText = map[way]string{forward: "", reverse: ", reverse", both: ", both ways"}

func tcpCosts() (lines []quantity) {
	for _, w := range tcpWays {
		for _, flows := range tcpFlowCounts {
			lines = append(lines, quantity{name: "CPU of both daemons, TCP " + flowsText(flows) + wayText[w], unit: "s/GB", best: less,
				of: daemonCost(flows, w, bothEnds)})
		}
	}
	for _, flows := range tcpFlowCounts {
		lines = append(lines,
			quantity{name: "CPU of the sending end, TCP " + flowsText(flows), unit: "s/GB", best: less, of: daemonCost(flows, forward, sendingEnd)},
			quantity{name: "CPU of the receiving end, TCP " + flowsText(flows), unit: "s/GB", best: less, of: daemonCost(flows, forward, receivingEnd)})
	}
	for _, flows := range tcpFlowCounts {
		lines = append(lines, quantity{name: "CPU of the machine, TCP " + flowsText(flows), unit: "s/GB", best: less, of: machineCost(flows, forward)})
	}
	return append(lines, quantity{name: "CPU used by others, TCP 1 flow", unit: "cores", best: neither, of: foreign(1, forward)})
}

func tcpSpeeds() (lines []quantity) {
	for _, w := range tcpWays {
		for _, flows := range tcpFlowCounts {
			name := "TCP " + flowsText(flows) + wayText[w]
			lines = append(lines, quantity{name: name, unit: "Gbit/s", best: more, of: speed(flows, w)})
			if w == both {
				lines = append(lines, quantity{name: name + ": forward", unit: "Gbit/s", best: more, of: speedEachWay(flows, false)},
					quantity{name: name + ": reverse", unit: "Gbit/s", best: more, of: speedEachWay(flows, true)})
			}
		}
	}
	return lines
}

// udpLines are a group for each size.
func udpLines() (groups [][]quantity) {
	for _, size := range udpSizes {
		lossFreeRun := func(t *Trial) *UDPRun { return runOf(t, size, func(u *UDP) *UDPRun { return u.LossFree }) }
		lossyRun := func(t *Trial) *UDPRun { return runOf(t, size, func(u *UDP) *UDPRun { return u.Lossy }) }
		overloadRun := func(t *Trial) *UDPRun { return runOf(t, size, func(u *UDP) *UDPRun { return u.Overload }) }
		loadLimits := func(t *Trial) string {
			if lossFreeRun(t) != nil && lossyRun(t) == nil {
				return ">="
			}
			return ""
		}
		notTwice := func(t *Trial) string {
			if m := overloadRun(t); m != nil && m.short() {
				return "~"
			}
			return ""
		}
		name := fmt.Sprintf("UDP %d B ", size)
		groups = append(groups, []quantity{
			{name: name + "without loss", unit: "kpps", best: more, of: lossFree(size), mark: loadLimits},
			{name: name + "slowest with loss", unit: "kpps", best: neither, of: ofUDP(lossyRun, func(m *UDPRun) (float64, bool) { return m.reached() / 1e3, true })},
			{name: name + "delivered of twice that", unit: "kpps", best: more, of: delivered(overloadRun), mark: notTwice},
			{name: name + "delivered of twice that, to without loss", unit: "%", best: neither, of: overloadShare(size), mark: notTwice},
			{name: name + "twice that, as offered", unit: "kpps", best: neither, of: offered(overloadRun)},
			{name: name + "of twice that lost by the receiver", unit: "%", best: neither, of: receiverLost(overloadRun)},
			{name: name + "CPU of both daemons", unit: "s/Mpacket", best: less, of: packetCost(lossFreeRun, bothEnds)},
			{name: name + "CPU of the sending end", unit: "s/Mpacket", best: less, of: packetCost(lossFreeRun, sendingEnd)},
			{name: name + "CPU of the receiving end", unit: "s/Mpacket", best: less, of: packetCost(lossFreeRun, receivingEnd)},
			{name: name + "CPU of both daemons, twice that", unit: "s/Mpacket", best: less, of: packetCost(overloadRun, bothEnds)},
		})
	}
	return groups
}

// floodLines are of files of format 1.
var floodLines = func() (lines []quantity) {
	for _, size := range []int{64, 200} {
		run := func(t *Trial) *UDPRun { return runOf(t, size, func(u *UDP) *UDPRun { return u.Flood }) }
		name := fmt.Sprintf("UDP %d B ", size)
		lines = append(lines,
			quantity{name: name + "delivered", unit: "kpps", best: more, of: delivered(run)},
			quantity{name: name + "lost", unit: "%", best: less, of: lostAltogether(run)},
			quantity{name: name + "offered", unit: "kpps", best: neither, of: offered(run)},
			quantity{name: name + "CPU of both daemons", unit: "us/packet", best: less, of: packetCost(run, bothEnds)})
	}
	return lines
}()

var rttLines = []quantity{
	{name: "RTT during TCP 1 flow, mean", unit: "ms", best: less, of: timed(rttLoaded, mean)},
	{name: "RTT during TCP 1 flow, p50", unit: "ms", best: less, of: timed(rttLoaded, middle)},
	{name: "RTT during TCP 1 flow, p99", unit: "ms", best: less, of: timed(rttLoaded, p99)},
	{name: "RTT during TCP 1 flow, max", unit: "ms", best: less, of: timed(rttLoaded, maximum)},
	{name: "RTT idle, mean", unit: "ms", best: less, of: timed(rttIdle, mean)},
	{name: "RTT idle, p50", unit: "ms", best: less, of: timed(rttIdle, middle)},
	{name: "RTT idle, p99", unit: "ms", best: less, of: timed(rttIdle, p99)},
	{name: "RTT idle, max", unit: "ms", best: less, of: timed(rttIdle, maximum)},
}

func requestLines() (lines []quantity) {
	for _, connections := range requestConnections {
		name := "requests over 1 connection"
		if connections > 1 {
			name = fmt.Sprintf("requests over %d connections", connections)
		}
		latency := func(t *Trial) *Times {
			if m := t.requests(connections); m != nil {
				return m.Latency
			}
			return nil
		}
		lines = append(lines,
			quantity{name: name, unit: "1/s", best: more, of: requestRate(connections)},
			quantity{name: name + ", p50", unit: "ms", best: less, of: timed(latency, middle)},
			quantity{name: name + ", p99", unit: "ms", best: less, of: timed(latency, p99)})
	}
	return lines
}

func rttIdle(t *Trial) *Times   { return t.RTTIdle }
func rttLoaded(t *Trial) *Times { return t.RTTLoaded }
func handshake(t *Trial) *Times { return t.Handshake }

func mean(t *Times) float64    { return t.Mean }
func middle(t *Times) float64  { return t.Median }
func p99(t *Times) float64     { return t.P99 }
func maximum(t *Times) float64 { return t.Max }

// ofTCP makes a quantity of flows.
func ofTCP(flows int, w way, of func(*TCP) (float64, bool)) value {
	return func(t *Trial) (float64, bool) {
		if m := t.stream(flows, w); m != nil {
			return of(m)
		}
		return 0, false
	}
}

func daemonCost(flows int, w way, e end) value {
	return ofTCP(flows, w, func(m *TCP) (float64, bool) {
		cpu, ok := e.cpu(&m.CPU)
		return cpu / (float64(m.Bytes) / 1e9), ok
	})
}

func machineCost(flows int, w way) value {
	return ofTCP(flows, w, func(m *TCP) (float64, bool) { return m.CPU.Machine / (float64(m.Bytes) / 1e9), true })
}

// foreign is what neither the daemons nor the load used: threads of the kernel, and other programs.
func foreign(flows int, w way) value {
	return ofTCP(flows, w, func(m *TCP) (float64, bool) {
		return max(0, m.CPU.Machine-m.CPU.Load-sum(m.CPU.Daemons)) / m.Seconds, true
	})
}

func speed(flows int, w way) value {
	return ofTCP(flows, w, func(m *TCP) (float64, bool) { return float64(m.Bytes) * 8 / 1e9 / m.Seconds, true })
}

// speedEachWay is one way's part where both are measured at once.
func speedEachWay(flows int, back bool) value {
	return ofTCP(flows, both, func(m *TCP) (float64, bool) {
		bytes := m.Bytes - m.BytesBack
		if back {
			bytes = m.BytesBack
		}
		return float64(bytes) * 8 / 1e9 / m.Seconds, true
	})
}

// runOf returns what of returns of datagrams of a size; nil where they were not measured.
func runOf(t *Trial, size int, of func(*UDP) *UDPRun) *UDPRun {
	if m := t.datagrams(size); m != nil {
		return of(m)
	}
	return nil
}

// ofUDP makes a quantity of an offer of datagrams.
func ofUDP(run func(*Trial) *UDPRun, of func(*UDPRun) (float64, bool)) value {
	return func(t *Trial) (float64, bool) {
		if m := run(t); m != nil {
			return of(m)
		}
		return 0, false
	}
}

// lossFree is 0 where even the slowest offer lost too much.
func lossFree(size int) value {
	return func(t *Trial) (float64, bool) {
		m := t.datagrams(size)
		switch {
		case m == nil || m.LossFree == nil && m.Lossy == nil:
			return 0, false
		case m.LossFree == nil:
			return 0, true
		}
		return m.LossFree.rate() / 1e3, true
	}
}

func overloadShare(size int) value {
	return func(t *Trial) (float64, bool) {
		m := t.datagrams(size)
		if m == nil || m.LossFree == nil || m.Overload == nil {
			return 0, false
		}
		return 100 * m.Overload.delivered() / m.LossFree.rate(), true
	}
}

func delivered(run func(*Trial) *UDPRun) value {
	return ofUDP(run, func(m *UDPRun) (float64, bool) { return m.delivered() / 1e3, true })
}

func offered(run func(*Trial) *UDPRun) value {
	return ofUDP(run, func(m *UDPRun) (float64, bool) { return m.rate() / 1e3, true })
}

// lostAltogether has the receiver's losses in it, as format 1 could not tell them from those of the daemon's socket.
func lostAltogether(run func(*Trial) *UDPRun) value {
	return ofUDP(run, func(m *UDPRun) (float64, bool) { return 100 * float64(m.Sent-m.Received) / float64(m.Sent), true })
}

func receiverLost(run func(*Trial) *UDPRun) value {
	return ofUDP(run, func(m *UDPRun) (float64, bool) { return 100 * float64(m.SocketDrops) / float64(m.Sent), true })
}

// packetCost is in seconds for a million packets delivered, which is microseconds for each.
func packetCost(run func(*Trial) *UDPRun, e end) value {
	return ofUDP(run, func(m *UDPRun) (float64, bool) {
		cpu, ok := e.cpu(&m.CPU)
		return cpu * 1e6 / float64(m.Received), ok && m.Received > 0
	})
}

func requestRate(connections int) value {
	return func(t *Trial) (float64, bool) {
		m := t.requests(connections)
		if m == nil {
			return 0, false
		}
		return float64(m.Count) / m.Seconds, true
	}
}

func timed(of func(*Trial) *Times, figure func(*Times) float64) value {
	return func(t *Trial) (float64, bool) {
		m := of(t)
		if m == nil {
			return 0, false
		}
		return figure(m), true
	}
}
