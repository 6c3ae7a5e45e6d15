package tunnel

import (
	"container/heap"
	"sync"
	"time"
)

// attention is the list of peers that the control loop is asked to look at. Each is in it once.
type attention struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	peers []*peer
}

// add puts p on the list and wakes the control loop. It never blocks for longer than another add.
func (a *attention) add(p *peer) {
	if !p.attended.CompareAndSwap(false, true) {
		return
	}
	a.mu.Lock()
	a.peers = append(a.peers, p)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// take empties the list. Peers on it may be added again from now on. spare is storage to use.
func (a *attention) take(spare []*peer) []*peer {
	a.mu.Lock()
	taken := a.peers
	a.peers = spare[:0]
	a.mu.Unlock()
	for _, p := range taken {
		p.attended.Store(false)
	}
	return taken
}

// agenda orders peers by when they must be visited. It belongs to the control loop.
type agenda []*peer

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].heapAt < a[j].heapAt }
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].heapIndex, a[j].heapIndex = i, j
}

// Push and Pop are container/heap's.
func (a *agenda) Push(x any) {
	p := x.(*peer)
	p.heapIndex = len(*a)
	*a = append(*a, p)
}

func (a *agenda) Pop() any {
	last := len(*a) - 1
	p := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	p.heapIndex = -1
	return p
}

// plan sets when p is visited; 0 takes it off.
func (a *agenda) plan(p *peer, at time.Duration) {
	switch {
	case at == 0 && p.heapIndex >= 0:
		heap.Remove(a, p.heapIndex)
	case at == 0:
	case p.heapIndex < 0:
		p.heapAt = at
		heap.Push(a, p)
	default:
		p.heapAt = at
		heap.Fix(a, p.heapIndex)
	}
}

// first returns the earliest time on the agenda, or 0.
func (a agenda) first() time.Duration {
	if len(a) == 0 {
		return 0
	}
	return a[0].heapAt
}
