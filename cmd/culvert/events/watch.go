package events

import (
	"net/netip"
	"slices"

	"culvert/control"
	"culvert/crypto"
	"culvert/tunnel"
)

// Tunnel is what is seen of a tunnel.
type Tunnel struct {
	Name  string
	Up    bool
	Peers []tunnel.Sighting
	Names func() map[crypto.PublicKey]string // of peers; asked for only where there is something to tell
}

// Watch tells what has changed between two looks at the tunnels: a state machine without a clock.
//
//	seen before     seen now          event
//	no tunnel       up                tunnel-up
//	up              no, or not up     tunnel-down
//	not connected   connected         peer-connected
//	connected       not connected     peer-lost
//	connected       no such peer      peer-lost, why: removed (not where its tunnel has gone with it)
//	connected at A  connected at B    peer-roamed; where one is UDP and the other TCP peer-tcp or peer-udp
type Watch struct {
	tunnels map[string]*watched
	round   uint64
}

type watched struct {
	up    bool
	peers map[crypto.PublicKey]*watchedPeer
	round uint64 // of the last look that has seen it
}

type watchedPeer struct {
	connected bool
	tcp       bool
	endpoint  netip.AddrPort
	round     uint64
}

// Look takes what is seen now and returns what has changed.
func (w *Watch) Look(now []Tunnel) (events []control.Event) {
	if w.tunnels == nil {
		w.tunnels = make(map[string]*watched)
	}
	w.round++
	for i := range now {
		events = append(events, w.lookAt(&now[i])...)
	}
	for name, t := range w.tunnels {
		if t.round != w.round {
			delete(w.tunnels, name)
			if t.up {
				events = append(events, control.Event{Event: control.EventTunnelDown, Tunnel: name, Why: "it was taken away"})
			}
		}
	}
	return events
}

func (w *Watch) lookAt(now *Tunnel) (events []control.Event) {
	t := w.tunnels[now.Name]
	if t == nil {
		t = &watched{peers: make(map[crypto.PublicKey]*watchedPeer, len(now.Peers))}
		w.tunnels[now.Name] = t
	}
	t.round = w.round
	if now.Up != t.up {
		t.up = now.Up
		e := control.Event{Event: control.EventTunnelUp, Tunnel: now.Name}
		if !t.up {
			e.Event, e.Why = control.EventTunnelDown, "its interface was set down, or its port cannot be opened"
		}
		events = append(events, e)
	}
	tell := func(kind string, key crypto.PublicKey, at netip.AddrPort, more control.Event) {
		more.Event, more.Tunnel, more.PublicKey = kind, now.Name, key
		if at.IsValid() {
			more.Endpoint = at.String()
		}
		events = append(events, more)
	}
	for i := range now.Peers {
		seen := &now.Peers[i]
		p := t.peers[seen.PublicKey]
		if p == nil {
			p = new(watchedPeer)
			t.peers[seen.PublicKey] = p
		}
		before := *p
		*p = watchedPeer{seen.Connected, seen.TCP, seen.Endpoint, w.round}
		switch {
		case seen.Connected && !before.connected:
			tell(control.EventPeerConnected, seen.PublicKey, seen.Endpoint, control.Event{})
			if seen.TCP {
				tell(control.EventPeerTCP, seen.PublicKey, seen.Endpoint, control.Event{})
			}
		case !seen.Connected && before.connected:
			tell(control.EventPeerLost, seen.PublicKey, seen.Endpoint, control.Event{Why: "silent"})
		case !seen.Connected:
		case seen.TCP && !before.tcp:
			tell(control.EventPeerTCP, seen.PublicKey, seen.Endpoint, control.Event{Before: before.endpoint.String()})
		case !seen.TCP && before.tcp:
			tell(control.EventPeerUDP, seen.PublicKey, seen.Endpoint, control.Event{Before: before.endpoint.String()})
		case seen.Endpoint != before.endpoint:
			tell(control.EventPeerRoamed, seen.PublicKey, seen.Endpoint, control.Event{Before: before.endpoint.String()})
		}
	}
	for key, p := range t.peers {
		if p.round != w.round {
			delete(t.peers, key)
			if p.connected {
				tell(control.EventPeerLost, key, p.endpoint, control.Event{Why: "removed"})
			}
		}
	}
	if len(events) > 0 && now.Names != nil {
		names := now.Names()
		for i := range events {
			events[i].Peer = names[events[i].PublicKey]
		}
	}
	slices.SortStableFunc(events, func(a, b control.Event) int { return a.PublicKey.Compare(b.PublicKey) })
	return events
}
