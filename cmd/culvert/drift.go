package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"culvert/control"
	"culvert/setup/model"
	"culvert/setup/plan"
)

const (
	driftInterval = 30 * time.Second       // between two comparisons, whatever is heard
	driftSettle   = 300 * time.Millisecond // what changes at once is looked at once
)

// networkWatch compares the running system with what is declared, now and then, and when something changes. It repairs nothing.
type networkWatch struct {
	publish func(control.Event)
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows
	items   []model.Item
	drift   []control.Drift
	checked time.Time
	err     error
}

// set says what is declared, and that everything is so.
func (w *networkWatch) set(items []model.Item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.items, w.drift, w.checked, w.err = items, nil, time.Now(), nil
}

// status is what was found last; nil where nothing is declared.
func (w *networkWatch) status() *control.Network {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.items == nil {
		return nil
	}
	n := &control.Network{Items: len(w.items), Checked: w.checked.UTC().Truncate(time.Second), Drift: slices.Clone(w.drift)}
	if n.Drift == nil {
		n.Drift = []control.Drift{}
	}
	if w.err != nil {
		n.Error = w.err.Error()
	}
	return n
}

// stop ends the comparing. It lets go of the namespaces, which may then be deleted.
func (w *networkWatch) stop() {
	if w.cancel != nil {
		w.cancel()
		w.running.Wait()
		w.cancel = nil
	}
}

// watchNetwork begins to compare.
func (in *instance) watchNetwork() {
	ctx, cancel := context.WithCancel(in.ctx)
	in.watched.cancel, in.watched.publish = cancel, in.d.events.Publish
	n, log := in.net, in.d.log
	in.watched.running.Go(func() { in.watched.run(ctx, n, log) })
}

func (w *networkWatch) run(ctx context.Context, n *network, log *slog.Logger) {
	for ctx.Err() == nil {
		w.round(ctx, n, log)
	}
}

// round listens for a while and compares, first at once, for what happened while nobody listened. Namespaces that have come are heard from
// the next round on.
func (w *networkWatch) round(ctx context.Context, n *network, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, driftInterval)
	defer cancel()
	heard := make(chan struct{}, 1)
	if n.machine.watch != nil {
		w.mu.Lock()
		names := namespacesOf(w.items)
		w.mu.Unlock()
		var watching sync.WaitGroup
		defer watching.Wait()
		defer cancel()
		watching.Go(func() {
			err := n.machine.watch(ctx, names, func() {
				select {
				case heard <- struct{}{}:
				default:
				}
			})
			if err != nil {
				log.Warn("changes of the network are noticed late", "error", err)
			}
		})
	}
	for {
		w.compare(ctx, n, log)
		select {
		case <-heard:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(driftSettle):
		case <-ctx.Done():
			return
		}
		select {
		case <-heard:
		default:
		}
	}
}

// compare looks once, and logs what was not so before.
func (w *networkWatch) compare(ctx context.Context, n *network, log *slog.Logger) {
	w.mu.Lock()
	items, before := w.items, w.drift
	w.mu.Unlock()
	n.mu.Lock()
	made, _, err := n.engine.Plan(ctx, items)
	n.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	var now []control.Drift
	if err == nil {
		now = driftOf(made)
	}
	w.mu.Lock()
	if err == nil {
		w.drift = now
	}
	w.checked, w.err = time.Now(), err
	w.mu.Unlock()
	if err != nil {
		log.Warn("the network cannot be compared with the file", "error", err)
		return
	}
	found := false
	for _, d := range now {
		if !slices.Contains(before, d) {
			log.Warn("the network is not as declared", "drift", d.Text)
			found = true
		}
	}
	if found {
		w.publish(control.Event{Event: control.EventDriftFound, Drift: now})
	}
	if len(before) > 0 && len(now) == 0 {
		log.Info("the network is as declared again")
		w.publish(control.Event{Event: control.EventDriftGone})
	}
}

// driftOf words what a plan would repair. What is gone with its link or namespace is not told of.
func driftOf(made *plan.Plan) (list []control.Drift) {
	gone := make(map[model.ID]bool)
	for i := range made.Entries {
		if e := &made.Entries[i]; e.Verdict == plan.WillCreate {
			gone[e.ID] = true
		}
	}
	for i := range made.Entries {
		e := &made.Entries[i]
		k := e.ID.Kind()
		if e.Verdict == plan.WillCreate && (k != model.KindLink && gone[model.LinkID(e.ID.Link())] ||
			k != model.KindNetns && gone[model.NetnsID(e.ID.Netns())]) {
			continue
		}
		name := thing(e)
		add := func(is, format string, args ...any) {
			list = append(list, control.Drift{ID: string(e.ID), Is: is, Text: name + ": " + fmt.Sprintf(format, args...), Line: e.Origin.String()})
		}
		switch e.Verdict {
		case plan.WillCreate:
			add("gone", "gone")
		case plan.WillDelete:
			add("extra", "there, and not declared")
		case plan.InConflict:
			add("conflict", "%s", e.Reason)
		default:
			for _, c := range e.Changes {
				add("changed", "%s is %s, not %s", c.Field, orNone(c.Old), orNone(c.New))
			}
			if len(e.Changes) == 0 && !strings.HasPrefix(e.Reason, "it needs ") && !strings.HasPrefix(e.Reason, "its other end") {
				add("changed", "%s", e.Reason)
			}
		}
	}
	return list
}

func orNone[T ~string](v T) string {
	if v == "" {
		return "none"
	}
	return string(v)
}

// thing is what a person would call it.
func thing(e *plan.Entry) string {
	switch e.ID.Kind() {
	case model.KindLink:
		return string(e.ID.Link())
	case model.KindAttachment:
		if master := strings.TrimPrefix(e.Label, "to "); master != e.Label {
			return master + " port " + string(e.ID.Link())
		}
	case model.KindAddress:
		return string(e.ID.Link()) + " address " + e.ID.Words()[1]
	}
	return e.ID.Text()
}
