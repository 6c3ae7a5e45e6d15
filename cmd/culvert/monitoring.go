package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"culvert/cmd/culvert/monitor"
	"culvert/config"
	"culvert/control"
	"culvert/setup/graph"
)

// reloadLog is how reading the file again went.
type reloadLog struct {
	mu    sync.Mutex
	state monitor.Reloads
}

func (l *reloadLog) note(began, ended time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Done++
	l.state.Last, l.state.Took, l.state.LastFailed = ended, ended.Sub(began), err != nil
	if err != nil {
		l.state.Failed++
	} else {
		l.state.LastGood = ended
	}
}

func (l *reloadLog) get(started time.Time) monitor.Reloads {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	if s.LastGood.IsZero() {
		s.LastGood = started
	}
	return s
}

// startMonitor serves what the file says of metrics and page.
func (in *instance) startMonitor() {
	if !in.file.Monitor.On() {
		return
	}
	in.monitor = monitor.New(in, in.d.log)
	in.monitor.Start(in.file.Monitor, func(text string) {
		in.d.log.Warn(text)
		in.d.ready.remark("culvert: warning: " + text)
	})
}

// prepareMonitor opens what another file needs; commit makes it so.
func (in *instance) prepareMonitor(file *config.File) (discard, commit func(), err error) {
	if in.monitor == nil {
		if !file.Monitor.On() {
			return func() {}, func() {}, nil
		}
		in.monitor = monitor.New(in, in.d.log)
	}
	change, err := in.monitor.Prepare(file.Monitor)
	if err != nil {
		return nil, nil, placed(config.Position(file.Monitor.Origin), in.d.confined.explain(fmt.Errorf("monitor: %w", err)))
	}
	return change.Discard, change.Commit, nil
}

// stopMonitor ends it.
func (in *instance) stopMonitor() {
	in.isReady.Store(false)
	if in.monitor != nil {
		in.monitor.Close()
	}
}

// Snapshot implements [monitor.Source].
func (in *instance) Snapshot() monitor.Snapshot {
	return monitor.Snapshot{
		Instance: in.d.Status(), Ready: in.isReady.Load(), Servers: in.servers(), Reloads: in.d.reloads.get(in.d.started),
	}
}

// Tunnels implements [monitor.Source].
func (in *instance) Tunnels() []control.Tunnel { return in.status() }

// servers are the tunnels that clients join. While something is changed they are as they were before: whoever changes it may take long.
func (in *instance) servers() []monitor.Server {
	in.serversMu.Lock()
	defer in.serversMu.Unlock()
	if !in.d.ops.TryLock() {
		return in.serversSeen
	}
	defer in.d.ops.Unlock()
	in.serversSeen = nil
	for _, t := range in.live() {
		if t.role.server == nil {
			continue
		}
		var answer control.ClientsAnswer
		t.listClients("", &answer)
		in.serversSeen = append(in.serversSeen, monitor.Server{Interface: t.hooks.ifname, Clients: answer.Clients, Invitations: len(answer.Invitations)})
	}
	return in.serversSeen
}

// Alive implements [monitor.Source]: the control loop of each tunnel answers.
func (in *instance) Alive(ctx context.Context) error {
	live := in.live()
	errs := make([]error, len(live))
	var asking sync.WaitGroup
	for i, t := range live {
		e, ok := t.engine.(interface{ Responds(context.Context) error })
		if !ok {
			continue
		}
		asking.Go(func() {
			if err := e.Responds(ctx); err != nil {
				errs[i] = fmt.Errorf("tunnel %s: its control loop: %w", t.hooks.ifname, err)
			}
		})
	}
	asking.Wait()
	return errors.Join(errs...)
}

// drawn is how many peers of a tunnel the page's picture has.
const drawn = 24

// Graph implements [monitor.Drawer]: what the file in force declares.
func (in *instance) Graph() ([]byte, error) {
	if !in.d.ops.TryLock() {
		return nil, errors.New("the instance is being changed: try again")
	}
	file := in.file
	in.d.ops.Unlock()
	s := declaredSource(file)
	for at, peers := range s.Peers {
		if len(peers) > drawn {
			s.Peers[at] = append(peers[:drawn:drawn], fmt.Sprintf("%d more", len(peers)-drawn))
		}
	}
	var b bytes.Buffer
	err := graph.New(s).SVG(&b)
	return b.Bytes(), err
}
