package tunnel

import (
	"sync"

	"culvert/tunnel/device"
)

// sharedQueue lets several workers write to one queue.
type sharedQueue struct {
	device.Queue
	mu sync.Mutex
}

func (q *sharedQueue) Write(buf []byte, lo, hi int, o device.Offload) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.Queue.Write(buf, lo, hi, o)
}

// Offloads implements device.Offloader.
func (q *sharedQueue) Offloads() device.Offloads {
	if o, ok := q.Queue.(device.Offloader); ok {
		return o.Offloads()
	}
	return device.Offloads{}
}
