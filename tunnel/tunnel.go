package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"culvert/crypto"
	"culvert/crypto/noise"
	"culvert/crypto/session"
	"culvert/transport"
	"culvert/tunnel/capture"
	"culvert/tunnel/device"
	"culvert/tunnel/icmp"
	"culvert/tunnel/message"
)

// errDeviceGone ends a tunnel whose interface was deleted under it.
var errDeviceGone = errors.New("the interface has vanished (was it deleted with `ip link del`?)")

// ErrClosed is returned by methods of a closed tunnel.
var ErrClosed = errors.New("tunnel is closed")

// Tunnel joins a device to a network. Its methods may be called concurrently.
type Tunnel struct {
	device  device.Device
	network transport.Network
	options Options
	clock   clock
	queues  []device.Queue

	// Snapshots the datapath reads.
	identity  atomic.Pointer[identity]    // nil without a private key
	bound     atomic.Pointer[boundSocket] // nil while down
	lanePorts atomic.Pointer[lanePorts]   // nil while no lanes leave from here
	mtu       atomic.Int32
	port      atomic.Uint32 // the bound port, for the routing-loop check
	routes    *routes
	bridge    *bridge // nil where the device carries IP packets
	indices   *indexTable
	endpoints endpointSet
	loadUntil atomic.Int64 // handshakes are shed until then

	drops       drops
	refused     refusals
	captures    capture.Set
	statistics  statistics
	icmp        icmp.Limiter
	stagedBytes atomic.Int64 // over all peers
	toldTooBig  atomic.Bool  // that the underlay takes not even handshakes

	// To the control loop.
	handshakes chan handshakeMessage
	controls   chan controlMessage
	expected   *expectedParts
	attention  attention
	pings      chan struct{} // unbuffered: whoever sends has been heard
	woken      chan struct{} // of capacity 1: the clock has leapt

	pulses pulses // of the workers

	suites    crypto.Suites        // offered on the native wire
	ephemeral noise.Ephemeral      // crypto.GeneratePrivateKey, or fixed by a test
	jitter    func() time.Duration // spreads repeated initiations

	configuring  sync.Mutex // serialises configuration and the interface's coming and going; guards what follows
	wantPort     uint16     // as configured, or as picked the first time
	mark         uint32
	postQuantum  bool      // peers on WireGuard's wire are refused
	dontFragment bool      // all peers are on the native wire
	goodbyes     *outbound // seals them; nil before the first
	linkUp       bool      // the interface is up
	isUp         bool      // and the socket open
	closed       bool
	suspended    bool    // nothing runs; see Suspend
	restoring    *State  // waits for the first Configure; nil: nothing does
	restoredFrom *State  // until the socket is open; nil afterwards, and in a tunnel that began anew
	renewed      []*peer // get a new session as soon as the socket is open

	peersMu sync.RWMutex // guards peers; changed only while configuring
	peers   map[crypto.PublicKey]*peer

	closing   chan struct{}
	done      chan struct{}
	failOnce  sync.Once
	closeOnce sync.Once
	err       error
	workers   sync.WaitGroup

	waits      atomic.Bool    // to be configured, to go on for another: restoring is not nil
	suspending atomic.Bool    // movers are being stopped
	movers     sync.WaitGroup // those of the workers that move packets
	pause      atomic.Pointer[pause]
	controlled sync.WaitGroup // the control loop
}

// boundSocket is an open socket; its address tells one socket from the next.
type boundSocket struct {
	socket transport.Socket
	closed chan struct{}
}

func (b *boundSocket) close() {
	b.socket.Close()
	close(b.closed)
}

// statistics are HandshakeStatistics as they grow.
type statistics struct {
	initiationsSent, initiationsReceived atomic.Uint64
	responsesSent, responsesReceived     atomic.Uint64
	cookiesSent, cookiesReceived         atomic.Uint64
	completed                            atomic.Uint64
}

// New starts a tunnel between dev and network. It has no key and no peers yet ([Tunnel.Configure] gives it both) and opens
// its UDP port when the interface comes up. The tunnel owns dev from here on and closes it.
func New(dev device.Device, network transport.Network, options Options) (*Tunnel, error) {
	t, err := newTunnel(dev, network, options)
	if err != nil {
		return nil, err
	}
	t.configuring.Lock() // a device that fails at once closes the tunnel only when all workers run
	defer t.configuring.Unlock()
	t.runControl(newControl(t))
	t.watchSleep()
	if t.restoring == nil {
		t.runOutbound()
	}
	return t, nil
}

func (t *Tunnel) runControl(c *control) {
	t.controlled.Add(1)
	t.workers.Go(func() {
		defer t.controlled.Done()
		c.run()
	})
}

// runOutbound starts the workers that read from the device.
func (t *Tunnel) runOutbound() {
	for i := range t.queues {
		w := newOutbound(t, i)
		w.pulse = t.pulses.add(fmt.Sprintf("the worker that reads queue %d of the interface", i))
		t.movers.Add(1)
		t.workers.Go(func() {
			defer t.movers.Done()
			defer t.pulses.remove(w.pulse)
			if err := w.run(); !errors.Is(err, os.ErrClosed) && !t.suspending.Load() {
				t.fail(fmt.Errorf("reading from the interface: %w", err))
			}
		})
	}
}

// newTunnel makes a tunnel of which nothing runs yet.
func newTunnel(dev device.Device, network transport.Network, options Options) (*Tunnel, error) {
	t := &Tunnel{
		device:     dev,
		network:    network,
		queues:     dev.Queues(),
		options:    options,
		clock:      newClock(),
		bridge:     newBridge(dev.Layer()),
		routes:     newRoutes(),
		indices:    newIndexTable(min(len(dev.Queues()), maxWorkers)),
		handshakes: make(chan handshakeMessage, handshakeQueue),
		controls:   make(chan controlMessage, controlQueue),
		expected:   newExpectedParts(),
		suites:     options.Suites,
		attention:  attention{wake: make(chan struct{}, 1)},
		pings:      make(chan struct{}),
		woken:      make(chan struct{}, 1),
		ephemeral:  crypto.GeneratePrivateKey,
		jitter:     func() time.Duration { return rand.N(session.MaxRetryJitter) },
		peers:      make(map[crypto.PublicKey]*peer),
		closing:    make(chan struct{}),
		done:       make(chan struct{}),
	}
	t.pause.Store(newPause())
	if t.suites == 0 {
		t.suites = fastSuites()
	}
	t.endpoints.init()
	if s := options.Restore; s != nil {
		t.restoring, t.options.Restore = s, nil // it is large, and not to be kept
		t.waits.Store(true)
		t.clock = clockAt(s.nowIn(t.clock.wall()))
	}
	mtu, err := dev.MTU()
	if err != nil {
		return nil, fmt.Errorf("reading the interface's MTU: %w", err)
	}
	t.mtu.Store(int32(mtu))
	return t, nil
}

// fail ends the tunnel for a reason of its own.
func (t *Tunnel) fail(err error) {
	t.failOnce.Do(func() {
		t.err = err
		go t.Close()
	})
}

// Done is closed when the tunnel has ended, by Close or by itself.
func (t *Tunnel) Done() <-chan struct{} { return t.done }

// Err returns why the tunnel has ended by itself, once Done is closed; nil after Close.
func (t *Tunnel) Err() error {
	select {
	case <-t.done:
		return t.err
	default:
		return nil
	}
}

// Responds reports whether the control loop, which runs handshakes and timers, is at work: nil as soon as it has answered, ErrClosed, why the
// tunnel has ended, ErrSuspended, or ctx's cause.
func (t *Tunnel) Responds(ctx context.Context) error {
	select {
	case t.pings <- struct{}{}:
		return nil
	case <-t.closing:
		return cmp.Or(t.err, ErrClosed)
	case <-t.pause.Load().begun:
		return ErrSuspended
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close ends the tunnel: the device is closed, the socket too, all keys are erased and all goroutines but calls of
// Options.HandshakeFailing have ended when it returns. It may be called more than once.
func (t *Tunnel) Close() error {
	var err error
	t.closeOnce.Do(func() {
		t.failOnce.Do(func() {}) // what fails from here on is no reason of its own
		t.configuring.Lock()
		t.closed = true
		if !t.suspended { // then another goes on with the sessions
			t.sayGoodbye(t.snapshotPeers(), message.ReasonStopping)
		}
		t.closeSocket()
		t.configuring.Unlock()
		close(t.closing)
		err = t.device.Close()
		t.workers.Wait()
		for _, p := range t.snapshotPeers() {
			p.stop(DropOutTunnelDown)
			p.eraseSecrets()
		}
		t.configuring.Lock() // Status may be copying the key
		if id := t.identity.Swap(nil); id != nil {
			id.private.Zero()
		}
		if t.restoring != nil { // never taken over
			t.restoring.Erase()
		}
		t.configuring.Unlock()
		close(t.done)
	})
	<-t.done
	return err
}

// up opens the socket: the interface has come up.
func (t *Tunnel) up() error {
	t.configuring.Lock()
	defer t.configuring.Unlock()
	t.linkUp = true
	if t.isUp || t.closed || t.restoring != nil {
		return nil
	}
	if t.suspending.Load() {
		return ErrSuspended
	}
	return t.listen(t.wantPort)
}

// listen opens a socket, in place of the one there may be; the first one gets the tunnel going. The interface is up, and
// configuration is locked.
func (t *Tunnel) listen(port uint16) error {
	if err := t.openSocket(port); err != nil || t.isUp {
		return err
	}
	t.isUp = true
	t.takeOver()
	now, peers := t.clock.now(), t.snapshotPeers()
	for _, p := range peers {
		p.call(now, len(peers))
		if p.waiting.Load() { // the datapath saw the interface come up before this did
			p.wantHandshake.Store(true)
			t.attention.add(p)
		}
	}
	return nil
}

// down closes the socket and forgets all sessions: the interface has gone down.
func (t *Tunnel) down() {
	t.configuring.Lock()
	defer t.configuring.Unlock()
	t.linkUp = false
	if !t.isUp {
		return
	}
	t.isUp = false
	t.sayGoodbye(t.snapshotPeers(), message.ReasonStopping)
	t.closeSocket()
	for _, p := range t.snapshotPeers() {
		p.stop(DropOutTunnelDown)
	}
}

// openSocket binds a port and starts a worker per receiver, then closes the socket there was before. On failure things are
// as they were. Configuration is locked.
func (t *Tunnel) openSocket(port uint16) error {
	s, err := t.network.Open(transport.Options{
		Port: port, Mark: t.mark, DontFragment: t.dontFragment, Logf: t.options.Logf,
		Workers: t.workerCount(), Steering: steering,
	})
	if err != nil {
		return err
	}
	for _, r := range s.Receivers() {
		t.receive(r, r.Worker(), false)
	}
	bound := &boundSocket{socket: s, closed: make(chan struct{})}
	t.workers.Go(func() { t.followRoutes(bound) })
	t.wantPort = s.Port()
	t.port.Store(uint32(s.Port()))
	if old := t.bound.Swap(bound); old != nil {
		old.close()
		t.sayWhere()
	}
	return nil
}

// sayWhere has something sent on lane 0 to peers with several, whose data may all go on others: they answer to the port that was
// closed until they hear from another.
func (t *Tunnel) sayWhere() {
	for _, p := range t.snapshotPeers() {
		if kp := p.current.Load(); kp != nil && kp.lanes != nil {
			p.wantKeepalive.Store(true)
			t.attention.add(p)
		}
	}
}

// closeSocket unbinds the ports. Configuration is locked.
func (t *Tunnel) closeSocket() {
	if old := t.bound.Swap(nil); old != nil {
		old.close()
	}
	t.lanePorts.Swap(nil).close()
}

const (
	// routesSettle is how long changes of routes are collected: an address that changes is one that goes and one that comes.
	routesSettle = 100 * time.Millisecond
	// routesBusy is the same where routes change all the time.
	routesBusy = time.Second
)

// followRoutes drops sticky source addresses that changed routes have made wrong, until the socket is closed.
func (t *Tunnel) followRoutes(b *boundSocket) {
	pause, last := routesSettle, time.Duration(0)
	for {
		select {
		case <-b.closed:
			return
		case <-b.socket.RouteChanges(): // nil, and so never ready, where the network cannot tell
		}
		now := t.clock.now()
		if pause = min(2*pause, routesBusy); now-last > routesSettle/2 { // it was quiet
			pause = routesSettle
		}
		checked := make(map[transport.Endpoint]bool) // peers may share an endpoint
		valid := func(ep transport.Endpoint) bool {
			known, ok := checked[ep]
			if !ok {
				known = b.socket.SourceValid(ep)
				checked[ep] = known
			}
			return known
		}
		peers := t.snapshotPeers()
		for _, p := range peers {
			p.checkSource(valid, now, len(peers))
		}
		select {
		case <-b.closed:
			return
		case <-time.After(pause):
		}
		last = t.clock.now()
	}
}

// readMTU follows the interface's MTU.
func (t *Tunnel) readMTU() {
	mtu, err := t.device.MTU()
	if err != nil || t.mtu.Swap(int32(mtu)) == int32(mtu) {
		return
	}
	for _, p := range t.snapshotPeers() {
		if p.wire() == Culvert { // another largest size to look for
			t.attention.add(p)
		}
	}
}

func (t *Tunnel) lookupPeer(key crypto.PublicKey) *peer {
	t.peersMu.RLock()
	defer t.peersMu.RUnlock()
	return t.peers[key]
}

func (t *Tunnel) snapshotPeers() []*peer {
	t.peersMu.RLock()
	defer t.peersMu.RUnlock()
	all := make([]*peer, 0, len(t.peers))
	for _, p := range t.peers {
		all = append(all, p)
	}
	return all
}

func (t *Tunnel) name() string {
	name, err := t.device.Name()
	if err != nil {
		return "tunnel"
	}
	return name
}

func (t *Tunnel) logf(format string, args ...any) {
	if t.options.Logf != nil {
		t.options.Logf(format, args...)
	}
}

func (t *Tunnel) debugf(format string, args ...any) {
	if t.options.Debugf != nil {
		t.options.Debugf(format, args...)
	}
}

// shortKey abbreviates a public key for logs.
func shortKey(k crypto.PublicKey) string { return k.Base64()[:8] + "…" }
