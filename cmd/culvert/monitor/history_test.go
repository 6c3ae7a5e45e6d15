package monitor

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"culvert/control"
)

func at(s *Snapshot, received uint64) *Snapshot {
	c := *s
	c.Tunnels = []control.Tunnel{s.Tunnels[0]}
	t := &c.Tunnels[0]
	t.Transport = control.Transport{ReceivedBytes: received, SentBytes: 2 * received}
	t.Peers = append([]control.Peer(nil), t.Peers...)
	t.Peers[0].ReceivedBytes = received
	return &c
}

// Rates are differences of counters, gaps and restarts of counters included; a minute is the mean of its seconds.
func TestHistory(t *testing.T) {
	h, s := newHistory(), sample()
	key := s.Tunnels[0].Peers[0].PublicKey
	total := uint64(0)
	for i := range 200 {
		total += 1000
		h.add(at(&s, total).Tunnels, time.Duration(i)*time.Second)
	}
	fine, ok := h.of("office", nil, false)
	if !ok || len(fine.In) != fineSlots || fine.In[fineSlots-1] != 1000 || fine.Out[fineSlots-1] != 2000 || fine.In[fineSlots-200] == fine.In[fineSlots-200] {
		t.Errorf("%v %v", ok, fine.In)
	}
	coarse, _ := h.of("office", nil, true)
	if len(coarse.In) != coarseSlots || coarse.In[coarseSlots-1] != 1000 || coarse.In[coarseSlots-4] == coarse.In[coarseSlots-4] {
		t.Errorf("%v", coarse.In[coarseSlots-5:])
	}
	peer, ok := h.of("office", &key, false)
	if !ok || peer.In[fineSlots-1] != 1000 || peer.RTT[fineSlots-1] != float32(0.0123) {
		t.Errorf("%v %v %v", ok, peer.In[fineSlots-3:], peer.RTT[fineSlots-3:])
	}
	h.add(at(&s, total+10_000).Tunnels, 209*time.Second) // nobody looked for ten seconds
	if c, _ := h.of("office", nil, false); c.In[fineSlots-1] != 1000 || c.In[fineSlots-9] != 1000 {
		t.Errorf("after a pause: %v", c.In[fineSlots-12:])
	}
	h.add(at(&s, 5).Tunnels, 210*time.Second) // counters began anew
	if c, _ := h.of("office", nil, false); c.In[fineSlots-1] != 0 {
		t.Errorf("counters went back: %v", c.In[fineSlots-1])
	}
	h.add(at(&s, 5).Tunnels, 30*time.Hour) // long after
	if c, _ := h.of("office", nil, false); c.In[fineSlots-2] == c.In[fineSlots-2] {
		t.Errorf("a gap of hours is filled: %v", c.In[fineSlots-2])
	}
	h.add(nil, 31*time.Hour)
	if _, ok := h.of("office", nil, false); ok || len(h.peers)+len(h.before)+len(h.drops) != 0 {
		t.Error("what is gone is remembered")
	}
	text, err := json.Marshal(fine)
	if err != nil || !strings.Contains(string(text), "null,1000,1000") {
		t.Errorf("%v, %.100s", err, text)
	}
}

// However many peers there are, few have a course.
func TestHistoryIsBounded(t *testing.T) {
	h, s := newHistory(), sample()
	s.Tunnels[0].Peers = nil
	for i := range 1000 {
		s.Tunnels[0].Peers = append(s.Tunnels[0].Peers, control.Peer{PublicKey: keyOf(i), ReceivedBytes: 1})
	}
	h.add(s.Tunnels, 0)
	h.add(s.Tunnels, time.Second)
	if len(h.peers) != maxPeerHistory || len(h.before) != 1001 {
		t.Errorf("%d courses, %d peers", len(h.peers), len(h.before))
	}
}
