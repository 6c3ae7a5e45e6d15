package main

import (
	"context"
	"slices"

	"culvert/cmd/culvert/events"
	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/server"
	"culvert/tunnel"
)

// sighted is an engine whose peers can be looked at.
type sighted interface {
	IsUp() bool
	Sightings([]tunnel.Sighting) []tunnel.Sighting
}

// openEvents begins to tell what happens.
func (d *daemon) openEvents() {
	var watch events.Watch
	var list []tunnel.Sighting // storage, of one tunnel after the other
	d.events = events.NewHub(d.name, func() []control.Event {
		list = list[:0]
		var now []events.Tunnel
		for _, t := range d.body.capturable() {
			if e, ok := t.engine.(sighted); ok {
				before := len(list)
				list = e.Sightings(list)
				now = append(now, events.Tunnel{Name: t.name, Up: e.IsUp(), Peers: slices.Clip(list[before:]), Names: t.peers})
			}
		}
		return watch.Look(now)
	})
}

// closeEvents tells nobody any more, and waits for programs that were run at events.
func (d *daemon) closeEvents() {
	d.events.Close()
	if b, ok := d.body.(*instance); ok {
		b.hooks.Close()
	}
}

// Events implements [control.EventSource].
func (d *daemon) Events(o control.EventOptions) (func(context.Context) ([]control.Event, error), func()) {
	s := d.events.Subscribe(o)
	return s.Next, s.Close
}

// happened publishes an event of the tunnel. In tests of a tunnel alone nobody is told.
func (t *liveTunnel) happened(e control.Event) {
	if t.publish != nil {
		e.Tunnel = t.conf.Name
		t.publish(e)
	}
}

// clientEvents are what lines of the audit log are called as events.
var clientEvents = map[string]string{
	server.EventInvited: control.EventClientInvited, server.EventExpired: control.EventClientUninvited, server.EventJoined: control.EventClientJoined,
	server.EventAdded: control.EventClientAdded, server.EventRefused: control.EventClientRefused, server.EventConnected: control.EventClientConnected,
	server.EventReadress: control.EventClientReaddressed, server.EventRevoked: control.EventClientRevoked, server.EventEnrolled: control.EventClientFactor,
	server.EventSignedIn: control.EventClientSignedIn, server.EventSignedOut: control.EventClientSignedOut,
}

// clientHappened publishes a line of the audit log.
func (s surroundings) clientHappened(tunnel string, e server.Event) {
	if s.publish != nil {
		s.publish(control.Event{Event: clientEvents[e.Event], Tunnel: tunnel, Client: e.Client, PublicKey: e.Key, Endpoint: e.From, Why: e.Why, By: e.By})
	}
}

// serverChanged publishes that another server is used now.
func (t *liveTunnel) serverChanged(before, now crypto.PublicKey) {
	t.happened(control.Event{Event: control.EventServerChanged, Peer: peerName(&t.conf, now), PublicKey: now, Before: peerName(&t.conf, before)})
}

// peerName is the name of a peer in the file; its key where it has none.
func peerName(conf *config.Tunnel, key crypto.PublicKey) string {
	for i := range conf.Peers {
		if conf.Peers[i].PublicKey == key && conf.Peers[i].Name != "" {
			return conf.Peers[i].Name
		}
	}
	return key.String()
}

// eventHooks are the programs that a file has run at events.
func eventHooks(file *config.File) (list []events.Hook) {
	for _, on := range file.On {
		list = append(list, events.Hook{Events: on.Events, Run: on.Run, Where: on.Pos.String()})
	}
	return list
}

// openHooks begins to run programs at events, from before anything has happened.
func (in *instance) openHooks() {
	in.hooks = events.NewHooks(in.d.events, in.d.log, in.d.p.priority.run)
	in.hooks.Set(eventHooks(in.file))
}

// programsAt are the programs that a file has run at events, wherever it says so.
func programsAt(file *config.File) []events.Hook {
	list := eventHooks(file)
	for i := range list {
		list[i].Where = ""
	}
	return list
}
