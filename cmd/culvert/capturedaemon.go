package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"culvert/control"
	"culvert/crypto"
	"culvert/tunnel/capture"
)

// capturable is a tunnel whose packets can be shown.
type capturable struct {
	name   string
	engine engine
	peers  func() map[crypto.PublicKey]string // names of peers; nil where there are none
}

func (in *instance) capturable() (list []capturable) {
	for _, t := range in.live() {
		list = append(list, capturable{t.hooks.ifname, t.engine, t.peerNames})
	}
	return list
}

func (w *wgInterface) capturable() []capturable {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.engine == nil {
		return nil
	}
	return []capturable{{name: w.d.name, engine: w.engine}}
}

// tunnelToCapture is the tunnel called name, or the only one where no name is given.
func tunnelToCapture(instance string, list []capturable, name string) (capturable, error) {
	var names []string
	for _, c := range list {
		if c.name == name || name == "" && len(list) == 1 {
			return c, nil
		}
		names = append(names, c.name)
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return capturable{}, fmt.Errorf("%s has no tunnel up", instance)
	case name == "":
		return capturable{}, fmt.Errorf("%s has several tunnels: name one of %s", instance, strings.Join(names, ", "))
	}
	return capturable{}, fmt.Errorf("%s has no tunnel %q: it has %s", instance, name, strings.Join(names, ", "))
}

// Capture implements [control.Capturer].
func (d *daemon) Capture(o control.CaptureOptions) (func(context.Context, io.Writer) error, error) {
	t, err := tunnelToCapture(d.name, d.body.capturable(), o.Interface)
	if err != nil {
		return nil, err
	}
	source, ok := t.engine.(capture.Source)
	if !ok {
		return nil, fmt.Errorf("packets of %s cannot be captured", t.name)
	}
	ring := capture.NewRing(0, o.Snap)
	feed, err := source.Capture(ring)
	if err != nil {
		return nil, err
	}
	d.log.Info("a capture begins", "interface", t.name)
	s := &captureStream{ring: ring, feed: feed, limits: o, ended: t.engine.Done(), start: time.Now()}
	s.in = capture.Interface{
		Name: t.name, Description: "inside the tunnel " + t.name + " of " + d.name, Program: agent(),
		Layer: feed.Layer, Snap: ring.Snap(), Epoch: feed.Epoch,
		Peer: func(k crypto.PublicKey) string {
			if t.peers == nil {
				return ""
			}
			return t.peers()[k]
		},
	}
	return func(ctx context.Context, to io.Writer) error {
		err := s.run(ctx, to)
		d.log.Info("a capture has ended", "interface", t.name, "packets", s.written, "dropped", ring.Dropped())
		return err
	}, nil
}

// captureStream takes a capture's records from their ring to a client.
type captureStream struct {
	ring    *capture.Ring
	feed    capture.Feed
	in      capture.Interface
	limits  control.CaptureOptions
	ended   <-chan struct{} // the tunnel has
	start   time.Time
	written uint64
}

// run writes until ctx or the tunnel ends or a limit is reached, and then what is left in the ring, and the statistics.
func (s *captureStream) run(ctx context.Context, to io.Writer) error {
	defer s.stop()
	capturing, cancel := context.WithCancel(ctx)
	defer cancel()
	if limit := s.limits.Limit(); limit > 0 {
		capturing, cancel = context.WithTimeout(capturing, limit)
		defer cancel()
	}
	go func() {
		select {
		case <-s.ended:
			cancel()
		case <-capturing.Done():
		}
		s.stop() // lest more comes in while the rest goes out
	}()

	out := bufio.NewWriterSize(to, 64<<10)
	w, err := capture.NewWriter(out, s.in, s.start)
	if err != nil {
		return err
	}
	for s.limits.Packets == 0 || s.written < s.limits.Packets {
		rec, ok := s.ring.TryNext()
		if !ok {
			if err := out.Flush(); err != nil {
				return err
			}
			// Not capturing: its end closes the ring, whose rest is still to be read.
			if rec, err = s.ring.Next(context.Background()); err != nil {
				break
			}
		}
		if err := w.Packet(rec); err != nil {
			return err
		}
		s.written++
	}
	s.stop()
	if err := w.Finish(time.Now(), capture.Statistics{Delivered: s.written, Dropped: s.ring.Dropped()}); err != nil {
		return err
	}
	return out.Flush()
}

// stop ends the recording. It may be called more than once.
func (s *captureStream) stop() {
	s.feed.Stop()
	s.ring.Close()
}
