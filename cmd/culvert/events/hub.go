package events

import (
	"context"
	"io"
	"sync"
	"time"

	"culvert/control"
)

// queueLength is how many events wait for a subscriber at most, about 300 bytes each, a drift's more.
const queueLength = 1024

// every is how often tunnels and peers are looked at.
const every = time.Second

// Hub hands events to subscribers. Its methods may be called concurrently.
type Hub struct {
	instance string
	look     func() []control.Event // what has changed since the last look; nil: nothing is looked at

	looking sync.Mutex // held while look runs, and before mu

	mu          sync.Mutex
	subscribers map[*Subscription]struct{}
	closed      bool
	watching    context.CancelFunc // ends the regular looking; nil while nobody asks
}

// NewHub makes the hub of an instance. look, which may be nil, is called by one goroutine at a time, every second while there are subscribers;
// the first look of a time with subscribers only says what there is, and its events are told to nobody.
func NewHub(instance string, look func() []control.Event) *Hub {
	return &Hub{instance: instance, look: look, subscribers: make(map[*Subscription]struct{})}
}

// Publish tells the subscribers of an event. Its time, where it has none, and instance are filled in.
func (h *Hub) Publish(e control.Event) { h.publish([]control.Event{e}) }

func (h *Hub) publish(list []control.Event) {
	if h == nil { // of a daemon that does not serve
		return
	}
	now := time.Now().UTC()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range list {
		e.Instance = h.instance
		if e.Time.IsZero() {
			e.Time = now
		}
		for s := range h.subscribers {
			if s.options.Want(e.Event) {
				s.put(e)
			}
		}
	}
}

// Look looks at tunnels and peers now, where somebody asks.
func (h *Hub) Look() {
	if h == nil { // of a daemon that does not serve
		return
	}
	h.looking.Lock()
	defer h.looking.Unlock()
	h.mu.Lock()
	watching := h.watching != nil
	h.mu.Unlock()
	if watching {
		h.publish(h.look())
	}
}

// Subscribe begins to collect events for somebody.
func (h *Hub) Subscribe(o control.EventOptions) *Subscription {
	if h == nil {
		h = new(Hub)
		h.closed = true
	}
	s := &Subscription{hub: h, options: o, wake: make(chan struct{}, 1)}
	h.looking.Lock()
	defer h.looking.Unlock()
	h.mu.Lock()
	first := h.watching == nil && h.look != nil && !h.closed
	if h.closed {
		s.ended = true
	} else {
		h.subscribers[s] = struct{}{}
	}
	var ctx context.Context
	if first {
		ctx, h.watching = context.WithCancel(context.Background())
	}
	h.mu.Unlock()
	if first {
		h.look()
		go h.watch(ctx)
	}
	return s
}

func (h *Hub) watch(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.Look()
		}
	}
}

// Close ends all subscriptions, once they have been read to the end.
func (h *Hub) Close() {
	if h == nil { // of a daemon that does not serve
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subscribers {
		s.end()
	}
	clear(h.subscribers)
	h.rest()
}

// rest ends the looking where nobody asks any more. mu is locked.
func (h *Hub) rest() {
	if len(h.subscribers) == 0 && h.watching != nil {
		h.watching()
		h.watching = nil
	}
}

// Subscription is a queue of events for one reader.
type Subscription struct {
	hub     *Hub
	options control.EventOptions
	wake    chan struct{} // capacity 1

	// What follows is guarded by the hub's mu.
	queue  []control.Event
	missed uint64
	ended  bool
}

// put adds an event. After one that did not fit none is taken until the reader has emptied the queue, so that the gap is at one place.
func (s *Subscription) put(e control.Event) {
	if s.missed > 0 || len(s.queue) >= queueLength {
		s.missed++
		return
	}
	s.queue = append(s.queue, e)
	s.awake()
}

func (s *Subscription) end() {
	s.ended = true
	s.awake()
}

func (s *Subscription) awake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next waits for events. Its error is io.EOF when there will be no more, and that of ctx when this ends; what has come until then comes with it.
func (s *Subscription) Next(ctx context.Context) ([]control.Event, error) {
	for {
		err := ctx.Err()
		list, ended := s.take()
		if err == nil && ended {
			err = io.EOF
		}
		if len(list) > 0 || err != nil {
			return list, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

func (s *Subscription) take() (list []control.Event, ended bool) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	list, s.queue = s.queue, nil
	if s.missed > 0 {
		list = append(list, control.Event{Time: time.Now().UTC(), Event: control.EventMissed, Instance: s.hub.instance, Missed: s.missed})
		s.missed = 0
	}
	return list, s.ended
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subscribers, s)
	s.hub.rest()
}

// Subscribers is how many there are.
func (h *Hub) Subscribers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subscribers)
}
