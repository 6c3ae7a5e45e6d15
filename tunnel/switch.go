package tunnel

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"culvert/tunnel/device"
	"culvert/tunnel/ethernet"
	"culvert/tunnel/loopguard"
	"culvert/tunnel/neighbour"
	"culvert/tunnel/sourceguard"
	"culvert/tunnel/switching"
)

// bridge is what a tunnel has besides where its device carries Ethernet frames. The datapath reads the atomics and the table,
// which takes no lock.
type bridge struct {
	table      *switching.Table
	neighbours *neighbour.Table
	ports      atomic.Pointer[portTable]
	blocked    atomic.Bool  // frames do not cross between the device and the peers
	suspected  atomic.Bool  // an address was seen on both sides, and the control loop does not know yet
	changed    atomic.Bool  // spanning tree tells of a change, and the control loop does not know yet
	waryUntil  atomic.Int64 // until then a wire holds to the limits of a switch
	proxy      atomic.Bool
	answers    atomic.Uint64 // questions answered in a station's place

	// To the control loop.
	probes chan probeMessage
	wake   chan struct{} // capacity 1

	loops atomic.Uint64

	keepLoops, keepCarrier atomic.Bool   // as configured
	own                    atomic.Uint64 // the interface's address, which no peer may send from; 0: not known
	carrier                atomic.Bool   // as last set

	// Guarded by the tunnel's configuration lock.
	settings SwitchChange
	lastPort switching.Port
	taken    map[switching.Port]*peer
	pinned   map[switching.Port][]ethernet.Address // as the table has them
}

const (
	// probeQueue bounds the loop probes that wait for the control loop, of at most loopguard.MaxFrame bytes each.
	probeQueue = 64
	// maxLocalAddresses is how many addresses are learned on this end's side: half of the table.
	maxLocalAddresses = 32768
	// waryFor is how long a suspicion lasts: longer than it takes to find a loop.
	waryFor = 5 * time.Second
	// maxPorts bounds the peers of a tunnel that carries frames, whatever configuration allows.
	maxPorts = 1<<16 - 2
)

// newBridge returns nil where the device carries IP packets.
func newBridge(layer device.Layer) *bridge {
	if layer != device.LayerEthernet {
		return nil
	}
	b := &bridge{
		table:      switching.NewTable(switching.Options{Ageing: DefaultAgeing}),
		neighbours: neighbour.NewTable(0, 0, 0),
		probes:     make(chan probeMessage, probeQueue),
		wake:       make(chan struct{}, 1),
		taken:      make(map[switching.Port]*peer),
		pinned:     make(map[switching.Port][]ethernet.Address),
	}
	b.table.SetLimit(switching.Device, maxLocalAddresses)
	b.ports.Store(&portTable{})
	b.carrier.Store(true) // until it is known otherwise
	return b
}

// port is how frames to and from one peer are treated. A change replaces it.
type port struct {
	number switching.Port
	change PortChange // what it was made of
	spoke  bool
	vlans  switching.VLANs
	own    *sourceguard.Set // the IP addresses that frames from it are held to; nil: any

	broadcast, multicast, unknown switching.Limiter
}

// reaches reports whether frames that come from p are sent on to q (RFC 4762 §4.4).
func (p *peer) reaches(q *peer) bool { return p.relayed() || q.relayed() }

// relayed reports whether frames from and to the peer are sent on. Where each end calls the other its spoke, neither does: one
// of the two is enough for whoever is behind them, and peers that all relay to one another would send a frame round for ever.
func (p *peer) relayed() bool { return p.port.Load().spoke && !p.relays.Load() }

// plain reports whether nothing is asked of the port that a wire does not do.
func (p *port) plain() bool {
	c := &p.change
	return !c.Closed && !c.Held && len(c.Pinned) == 0 && c.PVID == 0 && len(c.VLANs) == 0 && c.MaxAddresses == 0 &&
		c.Broadcast <= 0 && c.Multicast <= 0 && c.UnknownUnicast <= 0
}

// limitGroup returns what limits frames to a group address, and the reason for those beyond.
func (p *port) limitGroup(to ethernet.Address) (*switching.Limiter, DropReason) {
	if to == ethernet.Broadcast {
		return &p.broadcast, DropInBroadcast
	}
	return &p.multicast, DropInMulticast
}

// portTable is an immutable snapshot of all ports.
type portTable struct {
	wire      *peer   // the only peer, where everything crosses to it
	all       []*peer // in order of their ports
	numbered  []*peer // by port
	linkLocal bool
	proxy     bool
}

// peer returns the peer at a port, or nil.
func (t *portTable) peer(p switching.Port) *peer {
	if int(p) >= len(t.numbered) {
		return nil
	}
	return t.numbered[p]
}

// validate checks what can be known to be wrong of itself.
func (c *SwitchChange) validate() error {
	if c.Ageing < 0 || c.Ageing > 24*time.Hour {
		return fmt.Errorf("%w: ageing of %v is not between 0 and 24 h", ErrInvalidChange, c.Ageing)
	}
	return nil
}

func (c *PortChange) validate() error {
	if c.MaxAddresses < 0 || c.MaxAddresses > maxAddresses {
		return fmt.Errorf("%w: %d addresses of a peer; at most %d are learned", ErrInvalidChange, c.MaxAddresses, maxAddresses)
	}
	for _, a := range c.Pinned {
		if a == 0 || a.Group() || a > ethernet.Broadcast {
			return fmt.Errorf("%w: %v is no address of a station", ErrInvalidChange, a)
		}
	}
	if _, err := switching.NewVLANs(c.PVID, c.VLANs); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidChange, err)
	}
	for _, a := range c.Sources {
		if !a.IsValid() {
			return fmt.Errorf("%w: a network of IP addresses that is none", ErrInvalidChange)
		}
	}
	if min(c.Broadcast, c.Multicast, c.UnknownUnicast) < -1 {
		return fmt.Errorf("%w: a limit below -1", ErrInvalidChange)
	}
	return nil
}

// maxAddresses is the most addresses of one peer.
const maxAddresses = 65536

// setSwitch applies a change. Configuration is locked.
func (b *bridge) setSwitch(c SwitchChange) {
	b.settings = c
	ageing := c.Ageing
	if ageing == 0 {
		ageing = DefaultAgeing
	}
	b.table.SetAgeing(ageing)
	b.neighbours.SetAgeing(ageing)
	b.proxy.Store(c.Proxy)
	b.keepLoops.Store(c.KeepLoops)
	b.keepCarrier.Store(c.KeepCarrier)
	b.wakeUp()
}

// addPort gives a new peer a port. A number is used again as late as can be: frames of whoever had it may still be on their
// way. Configuration is locked.
func (b *bridge) addPort(p *peer) {
	for {
		b.lastPort++
		if b.lastPort > maxPorts {
			b.lastPort = 1
		}
		if b.taken[b.lastPort] == nil {
			break
		}
	}
	b.taken[b.lastPort] = p
	p.port.Store(mustPort(b.lastPort, PortChange{}))
	b.table.SetLimit(b.lastPort, DefaultMaxAddresses)
}

// removePort takes a peer's port away, and all addresses behind it. Configuration is locked.
func (b *bridge) removePort(p *peer) {
	port := p.port.Load()
	delete(b.taken, port.number)
	b.table.Retire(port.number)
	b.neighbours.Forget(int(port.number))
}

// mustPort makes a port of a change that has been validated.
func mustPort(number switching.Port, c PortChange) *port {
	vlans, err := switching.NewVLANs(c.PVID, c.VLANs)
	if err != nil {
		panic(err)
	}
	if c.Closed {
		vlans = switching.Nothing
	}
	p := &port{number: number, change: c, spoke: c.Spoke, vlans: vlans}
	p.change.Pinned, p.change.VLANs, p.change.Sources = slices.Clone(c.Pinned), slices.Clone(c.VLANs), slices.Clone(c.Sources)
	if c.Sources != nil {
		p.own = sourceguard.New(c.Sources)
	}
	p.limit(1)
	return p
}

// limit sets the port's limits, where each frame becomes so many copies.
func (p *port) limit(copies int) {
	rate := func(asked, otherwise int) int {
		if asked == 0 {
			return max(min(otherwise, FloodBudget/max(copies, 1)), 1)
		}
		return asked // below zero: no limit
	}
	c := &p.change
	p.broadcast.SetRate(rate(c.Broadcast, DefaultBroadcast))
	p.multicast.SetRate(rate(c.Multicast, DefaultMulticast))
	p.unknown.SetRate(rate(c.UnknownUnicast, DefaultUnknownUnicast))
}

// sameAs reports whether the port was made of the same.
func (p *port) sameAs(c *PortChange) bool {
	d := p.change
	return d.Spoke == c.Spoke && d.Closed == c.Closed && d.Held == c.Held && slices.Equal(d.Pinned, c.Pinned) && d.MaxAddresses == c.MaxAddresses && d.PVID == c.PVID &&
		slices.Equal(d.VLANs, c.VLANs) && (d.Sources == nil) == (c.Sources == nil) && slices.Equal(d.Sources, c.Sources) && d.Broadcast == c.Broadcast && d.Multicast == c.Multicast && d.UnknownUnicast == c.UnknownUnicast
}

// setPort changes how a peer's frames are treated. What was learned under other rules is forgotten. Configuration is locked.
func (b *bridge) setPort(p *peer, c PortChange) {
	old := p.port.Load()
	if old.sameAs(&c) {
		return
	}
	b.table.Forget(old.number)
	b.neighbours.Forget(int(old.number))
	limit := b.table.SetLimit
	if c.Held {
		limit = b.table.Hold
	}
	limit(old.number, cmp.Or(c.MaxAddresses, DefaultMaxAddresses))
	p.port.Store(mustPort(old.number, c))
}

// limitPorts sets all ports' limits by how many others their frames go to, the device being one. Configuration is locked.
func (b *bridge) limitPorts(all []*peer) {
	spokes := 0
	for _, p := range all {
		if p.port.Load().spoke {
			spokes++
		}
	}
	for _, p := range all {
		if port := p.port.Load(); port.spoke {
			port.limit(len(all))
		} else {
			port.limit(1 + spokes)
		}
	}
}

// applyPins has the forwarding database hold to the addresses that ports have pinned. An address may have been moved from one
// port to another, so all that changed are lifted first; what is learned meanwhile SetPins forgets. Configuration is locked.
func (b *bridge) applyPins() {
	var changed []*port
	for _, p := range b.taken {
		if port := p.port.Load(); !slices.Equal(b.pinned[port.number], port.change.Pinned) {
			changed = append(changed, port)
			_ = b.table.SetPins(port.number, nil) // cannot fail
		}
	}
	for number := range b.pinned {
		if b.taken[number] == nil {
			delete(b.pinned, number)
		}
	}
	for _, port := range changed {
		if err := b.table.SetPins(port.number, port.change.Pinned); err != nil {
			panic(err) // checkLayer has seen to it
		}
		b.pinned[port.number] = port.change.Pinned
	}
}

// publishPorts makes the ports as they are now visible to the datapath. Configuration is locked.
func (b *bridge) publishPorts() {
	t := &portTable{linkLocal: b.settings.LinkLocal, proxy: b.settings.Proxy}
	last := switching.Port(0)
	for n := range b.taken {
		last = max(last, n)
	}
	t.numbered = make([]*peer, int(last)+1)
	for n, p := range b.taken {
		t.numbered[n] = p
	}
	for _, p := range t.numbered {
		if p != nil {
			t.all = append(t.all, p)
		}
	}
	b.applyPins()
	b.limitPorts(t.all)
	if len(t.all) == 1 {
		if t.all[0].port.Load().plain() {
			t.wire = t.all[0]
		} else {
			t.linkLocal = true // two ends all the same
		}
	}
	b.ports.Store(t)
	for _, p := range t.all {
		p.sayRelays()
	}
	b.wakeUp()
}

// forgetLearned forgets where stations are, but for those that are held: who says that something has moved is not to have them.
func (b *bridge) forgetLearned() {
	b.table.Forget(switching.Device)
	for _, p := range b.ports.Load().all {
		if port := p.port.Load(); !port.change.Held {
			b.table.Forget(port.number)
		}
	}
}

// suspectLoop has the control loop look for a loop at once: an address was seen on both sides. Until it has found out, a
// wire limits what would go round and round. The guard sends no two probes within loopguard.Spacing, so more would only keep
// the control loop busy: whoever lets an address move to and fro could have it do nothing else.
func (b *bridge) suspectLoop(now time.Duration) {
	was := b.waryUntil.Load()
	if was != 0 && int64(now+waryFor)-was < int64(loopguard.Spacing) || !b.waryUntil.CompareAndSwap(was, int64(now+waryFor)) {
		return
	}
	if !b.suspected.Load() && b.suspected.CompareAndSwap(false, true) {
		b.wakeUp()
	}
}

// wakeUp has the control loop look at the bridge.
func (b *bridge) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// probeMessage is a loop probe that was copied off the datapath.
type probeMessage struct {
	from  *peer // nil: the device
	size  int
	bytes [room + loopguard.MaxFrame]byte // behind room
}

// queueProbe hands a loop probe to the control loop.
func (t *Tunnel) queueProbe(from *peer, frame []byte, now time.Duration) {
	why := DropOutProbe
	if from != nil {
		why = DropInProbe
		if n := from.native.Load(); n == nil || !n.admitControl(now) {
			t.drops.add(why, 1)
			return
		}
	}
	m := probeMessage{from: from, size: len(frame)}
	if copy(m.bytes[room:], frame) < len(frame) {
		t.drops.add(why, 1)
		return
	}
	select {
	case t.bridge.probes <- m:
	default:
		t.drops.add(why, 1)
	}
}

// switchStatus is the snapshot of the bridge. Configuration is locked.
func (t *Tunnel) switchStatus(now time.Duration) *SwitchStatus {
	b := t.bridge
	if b == nil {
		return nil
	}
	ports := b.ports.Load()
	s := &SwitchStatus{
		Wire:      ports.wire != nil,
		Carrier:   b.carrier.Load(),
		Blocked:   b.blocked.Load(),
		Loops:     b.loops.Load(),
		Moves:     b.table.Moves(),
		Answers:   b.answers.Load(),
		Addresses: []AddressEntry{},
	}
	for _, e := range b.table.Entries(now) {
		a := AddressEntry{Address: e.Key.Address(), VLAN: e.Key.VLAN(), Local: e.Port == switching.Device, Age: e.Age, Pinned: e.Pinned}
		if p := ports.peer(e.Port); p != nil {
			a.Peer = p.public
		} else if !a.Local {
			continue // removed this moment
		}
		s.Addresses = append(s.Addresses, a)
	}
	slices.SortFunc(s.Addresses, func(a, b AddressEntry) int {
		if a.VLAN != b.VLAN {
			return int(a.VLAN) - int(b.VLAN)
		}
		return int(int64(a.Address) - int64(b.Address)) // both below 2^48
	})
	return s
}

// portStatus is a peer's part of it.
func (p *peer) portStatus(now time.Duration) *PortStatus {
	port := p.port.Load()
	if port == nil {
		return nil
	}
	return &PortStatus{Spoke: port.spoke, Mutual: port.spoke && p.relays.Load(), Alive: p.reached(now), Addresses: p.tunnel.bridge.table.Count(port.number)}
}
