package monitor

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"culvert/config"
)

// Bounds of one place.
const (
	maxConnections = 64
	maxHeader      = 8 << 10 // bytes
	headerTime     = 5 * time.Second
	requestTime    = 10 * time.Second
	answerTime     = 30 * time.Second
	idleTime       = 60 * time.Second
)

// tryAgain is how often a place is tried that could not be had at the start.
const tryAgain = 5 * time.Second

// Monitor serves what an instance's file says. The zero value is not usable, see [New].
type Monitor struct {
	source Source
	log    *slog.Logger
	shared shared

	began   time.Time
	history *history // while there is a page

	peerSeries atomic.Bool
	metrics    http.Handler

	mu      sync.Mutex // guards what follows
	conf    config.Monitor
	places  map[config.Listen]*place
	missing map[config.Listen]string // what could not be had, and why
	closed  bool
	given   map[config.Listen]net.Listener // by the process before, until they are served at
	trying  *time.Timer
	looking context.CancelFunc // ends the history; nil while there is no page
	looked  chan struct{}      // closed when it has ended
}

// New makes a monitor that serves nothing yet.
func New(source Source, log *slog.Logger) *Monitor {
	m := &Monitor{source: source, log: log, places: make(map[config.Listen]*place), missing: make(map[config.Listen]string),
		began: time.Now(), history: newHistory()}
	m.shared.source = source
	m.metrics = newMetrics(&collector{m.shared.snapshot, m.peerSeries.Load}, log)
	return m
}

// place is where something is served.
type place struct {
	listener net.Listener
	server   *http.Server
	handler  atomic.Pointer[http.Handler]
	done     chan struct{}
}

func (p *place) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*p.handler.Load()).ServeHTTP(w, r)
}

func (p *place) close() {
	p.server.Close() // the listener as well, with its file
	<-p.done
}

// serve begins to serve at an open listener.
func (m *Monitor) serve(at config.Listen, l net.Listener) *place {
	p := &place{listener: l, done: make(chan struct{})}
	p.handler.Store(new(http.Handler(http.NotFoundHandler())))
	p.server = &http.Server{
		Handler: p, ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: answerTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, ErrorLog: log.New(quiet{m.log}, "", 0), DisableGeneralOptionsHandler: true,
	}
	p.server.Protocols = new(http.Protocols)
	p.server.Protocols.SetHTTP1(true)
	go func() {
		defer close(p.done)
		if err := p.server.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
			m.log.Error("what tells of the instance is no longer served", "at", at, "error", err)
		}
	}()
	return p
}

// quiet takes what net/http says of single connections: it is of interest to nobody but whoever looks for it.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(b []byte) (int, error) {
	q.log.Debug("http: " + strings.TrimSpace(string(b)))
	return len(b), nil
}

// wants are the places of a configuration.
func wants(c *config.Monitor) (list []config.Listen) {
	for _, l := range []config.Listen{c.Metrics, c.Page} {
		if (l != config.Listen{}) && !slices.Contains(list, l) {
			list = append(list, l)
		}
	}
	return list
}

// Start serves what c says. What cannot be had now is told of by warn, and tried again until it can: that somebody looks at a tunnel is no
// reason for it to be down.
func (m *Monitor) Start(c config.Monitor, warn func(text string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conf = c
	for _, at := range wants(&c) {
		l, err := m.given[at], error(nil)
		if l == nil {
			l, err = m.open(at)
		}
		delete(m.given, at)
		if err != nil {
			m.missing[at] = err.Error()
			warn("monitor: " + err.Error() + "; it is tried again every few seconds")
			continue
		}
		m.places[at] = m.serve(at, l)
	}
	for _, l := range m.given { // where nothing is to be served any more
		l.Close()
	}
	m.given = nil
	m.assign()
	m.tryLater()
}

// tryLater has another look at what is missing after a while. Locked.
func (m *Monitor) tryLater() {
	if len(m.missing) == 0 || m.closed || m.trying != nil {
		return
	}
	m.trying = time.AfterFunc(tryAgain, m.retry)
}

// retry tries what is missing.
func (m *Monitor) retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trying = nil
	if m.closed {
		return
	}
	for at, why := range maps.Clone(m.missing) {
		l, err := m.open(at)
		if err == nil {
			m.places[at] = m.serve(at, l)
			delete(m.missing, at)
			m.log.Info("monitor: served now", "at", at)
		} else if text := err.Error(); text != why {
			m.missing[at] = text
			m.log.Warn("monitor: " + text)
		}
	}
	m.assign()
	m.tryLater()
}

// assign says what is served where. Locked.
func (m *Monitor) assign() {
	m.peerSeries.Store(m.conf.PeerSeries())
	m.remember(m.conf.Page != config.Listen{})
	for at, p := range m.places {
		h := m.handler(at, at == m.conf.Metrics, at == m.conf.Page)
		p.handler.Store(&h)
	}
}

// sparing is how many times as long as a look at the tunnels takes there is none after it, so that an instance of ten thousand peers spends no more
// than a fiftieth of a processor on its history.
const sparing = 50

// remember begins or ends the history. Locked.
func (m *Monitor) remember(on bool) {
	switch {
	case on && m.looking == nil:
		var ctx context.Context
		ctx, m.looking = context.WithCancel(context.Background())
		m.looked = make(chan struct{})
		go func(done chan struct{}) {
			defer close(done)
			for {
				began := time.Now()
				m.history.add(m.shared.tunnels(), time.Since(m.began))
				select {
				case <-time.After(time.Until(began.Add(max(time.Second, sparing*time.Since(began))))):
				case <-ctx.Done():
					return
				}
			}
		}(m.looked)
	case !on && m.looking != nil:
		m.looking()
		m.looking = nil
	}
}

// A Change is a configuration for which everything is open and nothing is changed yet.
type Change struct {
	m      *Monitor
	to     config.Monitor
	opened map[config.Listen]net.Listener
	moved  []config.Listen // to be opened when what this monitor has on the same port is closed
}

// own tells which of some places stands in the way of one that cannot be had: it has the same port, and one of both is at all addresses, as
// 0.0.0.0:9586 is in front of 127.0.0.1:9586.
func own[T any](places map[config.Listen]T, at config.Listen, err error) (found config.Listen, ok bool) {
	if errors.Is(err, syscall.EADDRINUSE) && at.Socket == "" {
		for p := range places {
			if p != at && p.Socket == "" && p.Address.Port() == at.Address.Port() && (p.Address.Addr().IsUnspecified() || at.Address.Addr().IsUnspecified()) {
				return p, true
			}
		}
	}
	return config.Listen{}, false
}

// twice is the error of a place that the monitor itself has taken by another.
func twice(at, other config.Listen) error {
	return fmt.Errorf("%s is taken by this instance's own monitor, which listens at %s: choose another port for one of them, or the same place for both", at, other)
}

// open is listen, but says where a place is taken by the monitor itself. Locked.
func (m *Monitor) open(at config.Listen) (net.Listener, error) {
	l, err := listen(at, m.conf.Group)
	if other, ok := own(m.places, at, err); ok {
		err = twice(at, other)
	}
	return l, err
}

// Prepare opens what c needs besides what there is. Where something cannot be had nothing is changed.
func (m *Monitor) Prepare(c config.Monitor) (*Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change := &Change{m: m, to: c, opened: make(map[config.Listen]net.Listener)}
	wanted := wants(&c)
	for _, at := range wanted {
		if m.places[at] != nil {
			continue
		}
		if _, tried := m.missing[at]; tried && reflect.DeepEqual(m.conf.Group, c.Group) {
			continue // it is no news, and no reason to refuse the rest of the file
		}
		l, err := listen(at, c.Group)
		if other, ok := own(m.places, at, err); ok && !slices.Contains(wanted, other) {
			change.moved = append(change.moved, at)
			continue
		} else if ok {
			err = twice(at, other)
		} else if other, ok := own(change.opened, at, err); ok {
			err = twice(at, other)
		}
		if err != nil {
			change.Discard()
			return nil, err
		}
		change.opened[at] = l
	}
	return change, nil
}

// Discard closes what was opened.
func (c *Change) Discard() {
	for _, l := range c.opened {
		l.Close()
	}
	c.opened = nil
}

// Commit makes the configuration the one in force.
func (c *Change) Commit() {
	m := c.m
	m.mu.Lock()
	regroup := !reflect.DeepEqual(m.conf.Group, c.to.Group)
	m.conf = c.to
	wanted := wants(&c.to)
	var gone []*place
	for at, p := range m.places {
		switch {
		case !slices.Contains(wanted, at):
			gone = append(gone, p)
			delete(m.places, at)
		case regroup && at.Socket != "":
			if err := give(at.Socket, c.to.Group); err != nil {
				m.log.Warn("monitor: " + err.Error())
			}
		}
	}
	maps.DeleteFunc(m.missing, func(at config.Listen, _ string) bool { return !slices.Contains(wanted, at) })
	for at, l := range c.opened {
		if m.places[at] != nil { // had in the meantime by the one that tries again
			l.Close()
			continue
		}
		delete(m.missing, at)
		m.places[at] = m.serve(at, l)
	}
	c.opened = nil
	if len(c.moved) > 0 {
		for _, p := range gone {
			p.close()
		}
		gone = nil
	}
	for _, at := range c.moved {
		if l, err := m.open(at); err == nil {
			m.places[at] = m.serve(at, l)
		} else { // somebody else was quicker
			m.missing[at] = err.Error()
			m.log.Warn("monitor: " + err.Error() + "; it is tried again every few seconds")
		}
	}
	m.assign()
	m.tryLater()
	m.mu.Unlock()
	for _, p := range gone {
		p.close()
	}
}

// Close ends the serving.
func (m *Monitor) Close() {
	m.mu.Lock()
	m.closed = true
	if m.trying != nil {
		m.trying.Stop()
	}
	places := m.places
	m.places = nil
	m.remember(false)
	looked := m.looked
	m.mu.Unlock()
	if looked != nil {
		<-looked
	}
	for _, p := range places {
		p.close()
	}
}
