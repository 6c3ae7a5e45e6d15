package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"culvert/config"
	"culvert/control"
	"culvert/crypto"
	"culvert/tunnel"
	"culvert/tunnel/ethernet"
)

// defaultTapMTU is that of an Ethernet (IEEE 802.3). What does not fit into a datagram crosses in fragments.
const defaultTapMTU = 1500

// addressOf is a configured MAC address as the engine has it.
func addressOf(m config.MAC) ethernet.Address { return ethernet.AddressAt(m[:]) }

// switchOf is how a tap tunnel is to forward frames.
func switchOf(t *config.Tunnel) *tunnel.SwitchChange {
	return &tunnel.SwitchChange{
		Ageing: t.Switch.Ageing, LinkLocal: t.Switch.LinkLocal, Proxy: t.Switch.Proxy, KeepLoops: t.Switch.KeepLoops,
		KeepCarrier: t.KeepCarrier,
	}
}

// portOf is how frames to and from a peer of a tap tunnel are to be treated.
func portOf(p *config.Peer) *tunnel.PortChange {
	c := &tunnel.PortChange{
		Spoke: p.Spoke, Closed: p.Invited, MaxAddresses: p.MaxMACs, PVID: p.VLANs.PVID, VLANs: p.VLANs.Tagged,
		Sources: p.Sources, Held: p.HoldsMACs, Broadcast: p.Limits.Broadcast, Multicast: p.Limits.Multicast, UnknownUnicast: p.Limits.UnknownUnicast, // config.NoLimit is -1, too
	}
	for _, m := range p.MACs {
		c.Pinned = append(c.Pinned, addressOf(m.MAC))
	}
	return c
}

// fixed tells what of a running tunnel another configuration would change that its device is made with. It is where in the
// file that stands.
func fixed(from, to *config.Tunnel) (what string, at config.Position) {
	at = to.Pos
	place := func(p config.Position) {
		if p != (config.Position{}) {
			at = p
		}
	}
	switch {
	case from.Mode != to.Mode:
		what = fmt.Sprintf("its mode from %s to %s", from.Mode, to.Mode)
		place(to.ModePos)
	case from.MAC != to.MAC:
		what = "its interface's MAC address"
		place(to.MACPos)
	case queuesOf(from) != queuesOf(to):
		what = fmt.Sprintf("its queues from %d to %d", queuesOf(from), queuesOf(to))
		place(to.QueuesPos)
	case (from.Server == nil) != (to.Server == nil):
		what = "whether it is a server for clients"
	}
	return what, at
}

// switchStatusOf is the switch's status as the control protocol shows it, addresses by VLAN and number. names are those
// peers have in the configuration file.
func switchStatusOf(s *tunnel.SwitchStatus, names map[crypto.PublicKey]string) *control.Switch {
	if s == nil {
		return nil
	}
	out := &control.Switch{Wire: s.Wire, Carrier: s.Carrier, Blocked: s.Blocked, Loops: s.Loops, Moves: s.Moves, Addresses: []control.Address{}}
	entries := slices.Clone(s.Addresses)
	slices.SortFunc(entries, func(a, b tunnel.AddressEntry) int {
		return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.Address, b.Address))
	})
	for _, e := range entries {
		a := control.Address{MAC: e.Address.String(), VLAN: e.VLAN, Local: e.Local, Age: int(e.Age / time.Second), Pinned: e.Pinned}
		if !e.Local {
			a.Peer, a.Name = e.Peer, names[e.Peer]
		}
		out.Addresses = append(out.Addresses, a)
	}
	return out
}

func portStatusOf(p *tunnel.PortStatus) *control.Port {
	if p == nil {
		return nil
	}
	return &control.Port{Spoke: p.Spoke, Mutual: p.Mutual, Alive: p.Alive, Addresses: p.Addresses}
}

// summarizeSwitch writes what a tap tunnel's switch would do that is not the default.
func summarizeSwitch(line func(format string, args ...any), t *config.Tunnel) {
	line("carries Ethernet frames (tap)")
	if !t.MAC.IsZero() {
		line("MAC address %s", t.MAC)
	}
	if t.Switch.Ageing != 0 {
		line("forgets MAC addresses that are silent for %s", duration(t.Switch.Ageing))
	}
	if t.Switch.LinkLocal {
		line("forwards link-local frames, such as spanning tree's, between all")
	}
	if t.Switch.Proxy {
		line("answers ARP and neighbour solicitations for known stations")
	}
	if t.Switch.KeepLoops {
		line("does not look for loops")
	}
	if t.KeepCarrier {
		line("carrier is always on")
	} else {
		line("carrier is on while a peer is reached")
	}
}

// summarizePort writes what is special of a tap tunnel's peer.
func summarizePort(line func(format string, args ...any), p *config.Peer) {
	if p.Spoke {
		line("  a spoke: its frames are sent on to the other peers")
	}
	for _, m := range p.MACs {
		line("  has %s", m)
	}
	if len(p.MACs) == 0 && p.MaxMACs != 0 {
		line("  has at most %d MAC addresses", p.MaxMACs)
	}
	if p.VLANs.PVID != 0 {
		line("  untagged frames are of VLAN %d", p.VLANs.PVID)
	}
	if len(p.VLANs.Tagged) > 0 {
		line("  tagged VLANs %s", strings.Join(config.Ranges(p.VLANs.Tagged), ", "))
	}
	for _, l := range []struct {
		what string
		n    int
	}{{"broadcast", p.Limits.Broadcast}, {"multicast", p.Limits.Multicast}, {"unknown unicast", p.Limits.UnknownUnicast}} {
		switch {
		case l.n == config.NoLimit:
			line("  any number of %s frames", l.what)
		case l.n != 0:
			line("  at most %d %s frames a second", l.n, l.what)
		}
	}
}
