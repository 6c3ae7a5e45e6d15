package monitor

import (
	"encoding/json"
	"math"
	"strconv"
	"sync"
	"time"

	"culvert/control"
	"culvert/crypto"
)

// What the history holds: 300 seconds one by one, and 24 hours by the minute, of each tunnel and of so many peers.
const (
	fineSlots      = 300
	coarseSlots    = 24 * 60
	maxPeerHistory = 128 // about 20 KiB each: those that were the first to carry anything
)

// The quantities of a moment, NaN where they are not known.
const (
	in  = iota // bytes a second from peers
	out        // bytes a second to peers
	rtt        // seconds; of a tunnel the mean of its peers
	quantities
)

type moment [quantities]float32

var unknown = func() (m moment) {
	for i := range m {
		m[i] = float32(math.NaN())
	}
	return m
}()

// ring holds the last moments, one for each step of time.
type ring struct {
	slots []moment
	last  int64 // number of the step that was put last
	any   bool
}

func newRing(n int) ring { return ring{slots: make([]moment, n)} }

// put sets the moment of a step. Steps that were left out since the last are gap.
func (r *ring) put(step int64, m, gap moment) {
	if !r.any {
		for i := range r.slots {
			r.slots[i] = unknown
		}
		r.any, r.last = true, step-1
	}
	n := int64(len(r.slots))
	for s := max(r.last+1, step-n); s < step; s++ {
		r.slots[s%n] = gap
	}
	r.slots[step%n] = m
	r.last = max(r.last, step)
}

// list gives the moments up to a step, oldest first.
func (r *ring) list(step int64) []moment {
	n := int64(len(r.slots))
	outList := make([]moment, n)
	for i := range outList {
		outList[i] = unknown
		if s := step - n + 1 + int64(i); r.any && s >= 0 && s <= r.last && s > r.last-n {
			outList[i] = r.slots[s%n]
		}
	}
	return outList
}

// mean collects the moments of a minute.
type mean struct {
	sum   [quantities]float64
	count [quantities]int
}

func (a *mean) add(m moment) {
	for i, v := range m {
		if v == v { // not NaN
			a.sum[i] += float64(v)
			a.count[i]++
		}
	}
}

func (a *mean) take() (m moment) {
	m = unknown
	for i := range m {
		if a.count[i] > 0 {
			m[i] = float32(a.sum[i] / float64(a.count[i]))
		}
	}
	*a = mean{}
	return m
}

// course is the history of one thing.
type course struct {
	fine, coarse ring
	minute       mean
	minuteStep   int64
	in, out      uint64 // counters as they were
	known        bool
	now          moment // the last one
	seen         int64  // step
}

func newCourse() *course { return &course{fine: newRing(fineSlots), coarse: newRing(coarseSlots)} }

// count makes the rates of a moment from counters. Where a counter went back, it began anew.
func (c *course) count(received, sent uint64, d time.Duration) (m moment) {
	m = unknown
	if c.known && d > 0 {
		rate := func(now, before uint64) float32 {
			if now < before {
				return 0
			}
			return float32(float64(now-before) / d.Seconds())
		}
		m[in], m[out] = rate(received, c.in), rate(sent, c.out)
	}
	c.in, c.out, c.known = received, sent, true
	return m
}

func (c *course) note(step int64, m moment) {
	gap := unknown
	if step-c.fine.last <= 60 { // looked at less often, as it took long
		gap = m
		gap[rtt] = unknown[rtt]
	}
	if minute := step / 60; minute != c.minuteStep {
		if c.fine.any {
			c.coarse.put(c.minuteStep, c.minute.take(), unknown)
		}
		c.minuteStep = minute
	}
	c.fine.put(step, m, gap)
	c.minute.add(m)
	c.now, c.seen = m, step
}

type peerKey struct {
	tunnel string
	key    crypto.PublicKey
}

// history remembers. Time is that since it began, in seconds, so that setting the clock does not matter.
type history struct {
	mu      sync.Mutex
	tunnels map[string]*course
	peers   map[peerKey]*course
	before  map[peerKey]rates // of every peer
	drops   map[string]map[string]dropped
	at      time.Duration
	any     bool
	step    int64
}

// rates are a peer's counters and what became of them since.
type rates struct {
	received, sent uint64
	in, out        float32
}

type dropped struct {
	total uint64
	rate  float32
}

func newHistory() *history {
	return &history{tunnels: make(map[string]*course), peers: make(map[peerKey]*course), before: make(map[peerKey]rates), drops: make(map[string]map[string]dropped)}
}

// add notes how tunnels were at a time since the beginning.
func (h *history) add(tunnels []control.Tunnel, at time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := at - h.at
	step := int64(at / time.Second)
	if h.any && (d <= 0 || step == h.step) {
		return
	}
	first := !h.any
	h.at, h.any, h.step = at, true, step
	before := h.before
	h.before = make(map[peerKey]rates, len(before))
	living := make(map[string]bool, len(tunnels))
	for i := range tunnels {
		t := &tunnels[i]
		living[t.Interface] = true
		c := h.tunnels[t.Interface]
		if c == nil {
			c = newCourse()
			h.tunnels[t.Interface] = c
		}
		received, sent := carried(&t.Transport)
		m := c.count(received, sent, d)
		sum, n := 0.0, 0
		for j := range t.Peers {
			p := &t.Peers[j]
			h.addPeer(t, p, before, d, step)
			if p.Native != nil && p.Native.RTT > 0 {
				sum += p.Native.RTT
				n++
			}
		}
		if n > 0 {
			m[rtt] = float32(sum / float64(n))
		}
		c.note(step, m)
		h.addDrops(t, d, first)
	}
	for name := range h.tunnels {
		if !living[name] {
			delete(h.tunnels, name)
			delete(h.drops, name)
		}
	}
	for key := range h.peers {
		if _, ok := h.before[key]; !ok {
			delete(h.peers, key)
		}
	}
}

func carried(t *control.Transport) (received, sent uint64) {
	received, sent = t.ReceivedBytes, t.SentBytes
	if t.Streams != nil {
		received, sent = received+t.Streams.ReceivedBytes, sent+t.Streams.SentBytes
	}
	return received, sent
}

func (h *history) addPeer(t *control.Tunnel, p *control.Peer, before map[peerKey]rates, d time.Duration, step int64) {
	key := peerKey{t.Interface, p.PublicKey}
	was, known := before[key]
	now := rates{received: p.ReceivedBytes, sent: p.SentBytes}
	if known && d > 0 {
		now.in = float32(float64(since(now.received, was.received)) / d.Seconds())
		now.out = float32(float64(since(now.sent, was.sent)) / d.Seconds())
	}
	h.before[key] = now
	c := h.peers[key]
	if c == nil {
		if p.ReceivedBytes|p.SentBytes == 0 || len(h.peers) >= maxPeerHistory {
			return
		}
		c = newCourse()
		h.peers[key] = c
	}
	m := unknown
	if known {
		m[in], m[out] = now.in, now.out
	}
	if p.Native != nil && p.Native.RTT > 0 && !p.LatestHandshake.IsZero() {
		m[rtt] = float32(p.Native.RTT)
	}
	c.note(step, m)
}

// since is how far a counter went; one that went back began anew.
func since(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

func (h *history) addDrops(t *control.Tunnel, d time.Duration, first bool) {
	was := h.drops[t.Interface]
	now := make(map[string]dropped, len(t.Drops))
	for reason, total := range t.Drops {
		x := dropped{total: total}
		if !first && was != nil {
			x.rate = float32(float64(since(total, was[reason].total)) / d.Seconds())
		}
		now[reason] = x
	}
	h.drops[t.Interface] = now
}

// curve is a history for the page: steps of so many seconds, oldest first, null where nothing is known.
type curve struct {
	Step int     `json:"step"`
	In   numbers `json:"in"`
	Out  numbers `json:"out"`
	RTT  numbers `json:"rtt"`
}

// numbers are JSON numbers of few digits, NaN being null.
type numbers []float32

// MarshalJSON implements [json.Marshaler].
func (n numbers) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 6*len(n)+2), '[')
	for i, v := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendNumber(b, v)
	}
	return append(b, ']'), nil
}

func appendNumber(b []byte, v float32) []byte {
	if v != v || math.IsInf(float64(v), 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, float64(v), 'g', 5, 32)
}

var _ json.Marshaler = numbers{}

// of gives the course of a tunnel, or of a peer of it.
func (h *history) of(tunnel string, peer *crypto.PublicKey, coarse bool) (curve, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.tunnels[tunnel]
	if peer != nil {
		c = h.peers[peerKey{tunnel, *peer}]
	}
	if c == nil {
		return curve{}, false
	}
	list, step := c.fine.list(h.step), 1
	if coarse {
		list, step = c.coarse.list(h.step/60-1), 60
	}
	out3 := [quantities]numbers{}
	for q := range out3 {
		out3[q] = make(numbers, len(list))
		for i := range list {
			out3[q][i] = list[i][q]
		}
	}
	return curve{step, out3[in], out3[out], out3[rtt]}, true
}

// sparkSlots is how much of a peer's course is shown in its row.
const sparkSlots = 60

// spark is the end of a peer's round trips.
func (h *history) spark(key peerKey) numbers {
	c := h.peers[key]
	if c == nil {
		return nil
	}
	list := c.fine.list(h.step)
	n := make(numbers, sparkSlots)
	for i := range n {
		n[i] = list[len(list)-sparkSlots+i][rtt]
	}
	return n
}
