package device

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// FromTUN makes a device of one queue from any [golang.zx2c4.com/wireguard/tun.Device], such as its netstack. The device
// owns t from then on. It takes no offloads, and what Write is given with one is cut up first.
//
// Such a device cannot be asked whether a packet is waiting. So a Read that may not wait hands out what the last reading
// of t brought in, and then returns [ErrWouldBlock].
func FromTUN(t wgtun.Device) Device {
	a := &adapter{tun: t, events: make(chan Event, 16), done: make(chan struct{})}
	batch := max(1, t.BatchSize())
	a.queue = adapterQueue{
		adapter: a,
		bufs:    make([][]byte, batch),
		sizes:   make([]int, batch),
		write:   make([][]byte, 1),
	}
	if batch > 1 { // a single packet is read to where it is wanted
		for i := range a.queue.bufs {
			a.queue.bufs[i] = make([]byte, Headroom+MaxPacket)
		}
	}
	a.translator.Go(a.translate)
	return a
}

type adapter struct {
	tun        wgtun.Device
	queue      adapterQueue
	events     chan Event
	closed     atomic.Bool
	done       chan struct{} // closed by Close
	translator sync.WaitGroup
}

func (a *adapter) Layer() Layer          { return LayerIP }
func (a *adapter) Name() (string, error) { return a.tun.Name() }
func (a *adapter) MTU() (int, error)     { return a.tun.MTU() }
func (a *adapter) Queues() []Queue       { return []Queue{&a.queue} }
func (a *adapter) Events() <-chan Event  { return a.events }

// Close implements [Device].
func (a *adapter) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	close(a.done)
	err := a.tun.Close()
	a.translator.Wait()
	return err
}

// translate passes the far side's events on, each of which may be several at once.
func (a *adapter) translate() {
	defer close(a.events)
	for {
		var e wgtun.Event
		var ok bool
		select {
		case e, ok = <-a.tun.Events():
		case <-a.done:
		}
		if !ok {
			return
		}
		for _, known := range [...]struct {
			theirs wgtun.Event
			ours   Event
		}{{wgtun.EventUp, EventUp}, {wgtun.EventDown, EventDown}, {wgtun.EventMTUUpdate, EventMTU}} {
			if e&known.theirs == 0 {
				continue
			}
			select {
			case a.events <- known.ours:
			case <-a.done:
				return
			}
		}
	}
}

type adapterQueue struct {
	adapter *adapter

	// The batch last read: bufs[next:count] have not been handed out.
	bufs        [][]byte
	sizes       []int
	next, count int
	failed      error // what ended the batch

	writing  sync.Mutex // guards what follows
	write    [][]byte
	segments Segments
}

// Read implements [Queue].
func (q *adapterQueue) Read(buf []byte, wait bool) (lo, hi int, o Offload, err error) {
	if len(q.bufs) == 1 {
		q.bufs[0] = buf[: Headroom+MaxPacket : Headroom+MaxPacket]
	}
	for {
		if q.adapter.closed.Load() {
			return 0, 0, Offload{}, os.ErrClosed
		}
		for q.next < q.count {
			i := q.next
			q.next++
			n := q.sizes[i]
			if n <= 0 || n > MaxPacket {
				continue
			}
			if len(q.bufs) > 1 {
				copy(buf[Headroom:], q.bufs[i][Headroom:Headroom+n])
			}
			return Headroom, Headroom + n, Offload{}, nil
		}
		if err := q.failed; err != nil {
			q.failed = nil
			return 0, 0, Offload{}, err
		}
		if !wait {
			return 0, 0, Offload{}, ErrWouldBlock
		}
		n, err := q.adapter.tun.Read(q.bufs, q.sizes, Headroom)
		q.next, q.count = 0, min(max(n, 0), len(q.bufs))
		switch {
		case err == nil, errors.Is(err, wgtun.ErrTooManySegments): // that means only that some packets are missing
		case errors.Is(err, os.ErrClosed), errors.Is(err, io.EOF):
			q.failed = os.ErrClosed
		default:
			q.failed = err
		}
	}
}

// Write implements [Queue].
func (q *adapterQueue) Write(buf []byte, lo, hi int, o Offload) error {
	q.writing.Lock()
	defer q.writing.Unlock()
	if err := q.segments.Reset(buf, lo, hi, o); err != nil {
		return err
	}
	var first error
	for lo, hi, ok := q.segments.Next(); ok; lo, hi, ok = q.segments.Next() {
		// What lies in front of a segment belongs to one written before.
		q.write[0] = buf[lo-Headroom : hi : hi]
		if _, err := q.adapter.tun.Write(q.write, Headroom); err != nil && first == nil {
			first = err
			if q.adapter.closed.Load() {
				first = os.ErrClosed
			}
		}
	}
	q.write[0] = nil
	return first
}
