package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// cellGroup is a group of a trial's measurements that can be chosen.
type cellGroup string

const (
	cellHandshake cellGroup = "handshake"
	cellTCP       cellGroup = "tcp"
	cellRTT       cellGroup = "rtt"
	cellRequests  cellGroup = "rr"
	cellUDP       cellGroup = "udp"
)

var allCells = []cellGroup{cellHandshake, cellTCP, cellRTT, cellRequests, cellUDP}

var (
	tcpFlowCounts      = []int{1, 4, 64}
	tcpWays            = []way{forward, reverse, both}
	udpSizes           = []int{64, 512, 1372} // payload, in bytes
	requestConnections = []int{1, 64}
)

// requestSize is that of a request and of its answer, in bytes.
const requestSize = 1

// measures reports whether a cell of the implementation is to be measured.
func (o *options) measures(impl *Implementation, c cellGroup) bool {
	switch {
	case len(o.Cells) > 0 && !slices.Contains(o.Cells, c):
		return false
	case len(impl.Far) > 0: // what ends of two projects are measured for: that they carry each other's trains
		return c == cellTCP
	case c == cellHandshake: // not all that are configured by files of their own can be told to begin anew
		return impl.part() != partTap && impl.rival == nil && len(impl.Command) > 0
	}
	return true
}

// step is one measurement of a trial.
type step struct {
	name string
	run  func() error
}

// steps returns what a trial measures, in order. The datagrams come last: a flood leaves queues full and paths in doubt.
func (t *Trial) steps(sc *scene, impl *Implementation) (steps []step) {
	o := sc.o
	add := func(name string, run func() error) { steps = append(steps, step{name, run}) }
	if o.measures(impl, cellHandshake) {
		add("handshake", func() (err error) { t.Handshake, err = sc.handshakes(); return err })
	}
	if o.measures(impl, cellRTT) {
		add("idle round trips", func() (err error) { t.RTTIdle, err = sc.roundTrips(); return err })
	}
	if o.measures(impl, cellRequests) {
		for _, connections := range requestConnections {
			add(fmt.Sprintf("requests over %d", connections), func() error {
				m, err := sc.requests(connections)
				if m != nil {
					t.Requests = append(t.Requests, *m)
				}
				return err
			})
		}
	}
	for _, flows := range tcpFlowCounts {
		for _, w := range tcpWays {
			// Round trips under load are those beside one flow forward.
			withPings := flows == 1 && w == forward && o.measures(impl, cellRTT)
			if !withPings && !o.measures(impl, cellTCP) {
				continue
			}
			add(fmt.Sprintf("TCP, %d %s", flows, w), func() error {
				m, loaded, err := sc.tcp(flows, w, withPings)
				if loaded != nil {
					t.RTTLoaded = loaded
				}
				if m != nil {
					t.TCP = append(t.TCP, *m)
				}
				return err
			})
		}
	}
	if o.measures(impl, cellUDP) {
		for _, size := range udpSizes {
			add(fmt.Sprintf("UDP, %d bytes", size), func() error {
				m, err := sc.udp(size, nextStart(t.UDP))
				if len(m.Search) > 0 {
					t.UDP = append(t.UDP, *m)
				}
				return err
			})
		}
	}
	add("memory", func() (err error) { t.PeakMemory, err = sc.memory(); return err })
	if t.part() == partTap || impl.rival != nil {
		add("datagrams", sc.wholeDatagrams)
	}
	return steps
}

// trialGuess is about how long a trial takes.
func (o *options) trialGuess(impl Implementation) time.Duration {
	const (
		setUp       = 2 * time.Second        // hosts and daemons, made and taken away
		around      = 150 * time.Millisecond // a flow made and stopped, and the like
		searchSteps = 10                     // for one size of datagrams, with the overload
	)
	total := setUp
	if o.measures(&impl, cellHandshake) {
		total += time.Duration(o.Handshakes) * (handshakePause + 10*time.Millisecond)
	}
	if o.measures(&impl, cellRTT) {
		total += 2 * (2*o.Window + around)
	}
	if o.measures(&impl, cellRequests) {
		total += time.Duration(len(requestConnections)) * (o.Window + o.Warmup + around)
	}
	if o.measures(&impl, cellTCP) {
		total += time.Duration(len(tcpFlowCounts)*len(tcpWays)) * (o.Window + o.Warmup + around)
	}
	if o.measures(&impl, cellUDP) {
		total += time.Duration(len(udpSizes)*searchSteps) * (o.udpStep() + udpQuiet + around/3)
	}
	return total
}

// measure makes one trial. What could be measured is in t also when there is an error.
func (t *Trial) measure(s *stage, o *options, impl Implementation, told *told) error {
	sc, err := newScene(s, o, t.Underlay, impl)
	if err != nil {
		return err
	}
	var errs []error
	for _, step := range t.steps(sc, &impl) {
		told.step(t, step.name)
		if err := step.run(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.name, err))
			if words := sc.lastWords(); words != nil {
				return errors.Join(append(errs, words)...)
			}
		}
	}
	return errors.Join(errs...)
}
